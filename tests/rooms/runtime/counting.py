"""A stage that counts per key, and the memory world it runs in: what the tests of the engine share.

Words as values do special things: `poison` makes the step raise, `late poison` makes `finish` raise, `forget` deletes
the key's state, `wake 17` asks to be woken at 17.
"""

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.runtime.errors import Retriable
from pipeline.runtime.failpoints import Failpoints, no_failpoints
from pipeline.runtime.memory import MemoryBroker, MemoryStores, memory_adapters
from pipeline.runtime.ports import Outputs, Record, Stage, State
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from pipeline.topology import Role

COUNTING = Role("counting", ("words", "echoes"), "counting-changelog", tolerant=("words",), trimmed=("echoes",))
TOPICS = ("words", "echoes", "counting-changelog", "counts", "latest", "dead-letters")


class Crash(BaseException):
    """The process is gone: nothing in it may handle this."""


class CountingStage:
    """Counts records per key, logs every count, keeps the last one of each key in a compacted topic.

    With `echo`, every record of `words` is sent once more through `echoes`, the stage's loop back to itself.
    """

    def __init__(self, partition: int, echo: bool = False) -> None:
        self.partition = partition
        self.echo = echo
        self.touched: dict[bytes, int] = {}
        self.raise_in_finish = False

    def step(self, record: Record, state: State, out: Outputs) -> None:
        key, value = record.key or b"", record.value or b""
        counted = state.get(b"c" + key)
        if counted is None:
            counted = [0]
        # In place before anything can raise: an abort must forget it.
        counted[0] += 1
        if value == b"poison":
            raise ValueError("a poisoned word")
        self.raise_in_finish |= value == b"late poison"
        wake_at = int(value.removeprefix(b"wake ")) if value.startswith(b"wake ") else 0
        if value == b"forget":
            state.delete(b"c" + key)
            counted = [0]
        else:
            state.put(b"c" + key, counted, wake_at)
        self.touched[key] = counted[0]
        out.log("counts", key, b"%s %d" % (key, counted[0]))
        if self.echo and record.topic == "words":
            out.log("echoes", key, b"echo", self.partition)

    def finish(self, state: State, out: Outputs) -> None:
        if self.raise_in_finish:
            raise ValueError("poison that shows at the end")
        for key, count in self.touched.items():
            out.upsert("latest", key, b"%d" % count)
        self.touched.clear()

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        for wake_at, key in state.due(now_ms, 10):
            counted = state.get(key)
            state.put(key, counted)
            out.log("counts", key[1:], b"%s woken at %d" % (key[1:], wake_at))

    def forget(self) -> None:
        self.touched.clear()
        self.raise_in_finish = False

    def encode(self, key: bytes, value: Any) -> bytes:
        return b"%d" % value[0]

    def decode(self, key: bytes, data: bytes) -> Any:
        return [int(data)]


class StatelessStage:
    """A stage that keeps nothing, and does nothing but its step."""

    def finish(self, state: State, out: Outputs) -> None:
        return

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        return

    def forget(self) -> None:
        return

    def encode(self, key: bytes, value: Any) -> bytes:
        raise AssertionError

    def decode(self, key: bytes, data: bytes) -> Any:
        raise AssertionError


class World:
    """A broker with the topics of the counting role, and the disk its workers share."""

    def __init__(self, partitions: int = 2, role: Role = COUNTING) -> None:
        self.broker = MemoryBroker()
        self.disks: dict[str, MemoryStores] = {}
        self.now_ms = 1_000_000
        self.role = role
        self.partitions = partitions
        for topic in (*TOPICS, *role.inputs):
            self.broker.create_topic(topic, partitions)

    def worker(
        self,
        slot: str = "0",
        failpoints: Failpoints = no_failpoints,
        make_stage: Callable[[int], Stage] = CountingStage,
        settings: WorkerSettings | None = None,
    ) -> Worker:
        """A started worker; each slot has a disk of its own."""
        stores = self.disks.setdefault(slot, MemoryStores())
        adapters = memory_adapters(
            self.broker, self.role.name, slot, lambda: self.now_ms, stores if self.role.changelog else None
        )
        worker = Worker(self.role, make_stage, adapters, settings, failpoints)
        worker.start()
        return worker

    def say(self, *words: tuple[str, str], topic: str = "words") -> None:
        """Produce (key, value) records."""
        for key, value in words:
            self.broker.produce(topic, key.encode(), value.encode())

    def counts(self) -> list[str]:
        """What a read_committed consumer sees in `counts`, in each partition's order."""
        return [(record.value or b"").decode() for record in self.broker.read("counts")]

    def changelog(self) -> dict[bytes, bytes]:
        """The fold of the changelog."""
        found: dict[bytes, bytes] = {}
        for record in self.broker.read("counting-changelog"):
            assert record.key is not None
            if record.value is None:
                found.pop(record.key, None)
            elif not record.key.startswith(b"\x00"):
                found[record.key] = record.value
        return found

    def stored(self) -> dict[bytes, bytes]:
        """All values of all stores."""
        return {k: v for disk in self.disks.values() for store in disk.stores.values() for k, v in store.values.items()}


def run_idle(*workers: Worker, turns: int = 1_000) -> None:
    """Run workers in turn until none has anything left to do."""
    quiet = 0
    for _ in range(turns):
        busy = sum(worker.run_once() for worker in workers)
        busy = busy or any(worker.restoring() or worker._rest for worker in workers)
        quiet = 0 if busy else quiet + 1
        if quiet > 3:
            return
    raise AssertionError("the workers did not come to rest")


def crash_at(point: str, hit: int = 1) -> Failpoints:
    """A failpoint that ends the process, as far as the memory world goes."""
    left = [hit]

    def reached(name: str) -> None:
        if name == point:
            left[0] -= 1
            if left[0] == 0:
                raise Crash(point)

    return reached


def refuse_next_consume(worker: Worker) -> None:
    """The broker does not answer the next time that records are asked for."""
    original = worker._consumer.consume

    def refused(limit: int, timeout_s: float) -> list[Record]:
        worker._consumer.consume = original  # type: ignore[method-assign]
        raise Retriable("nobody is there")

    worker._consumer.consume = refused  # type: ignore[method-assign]


def is_undone_and_done_again(world: World, worker: Worker, counts: list[str]) -> None:
    """The next batch is not committed and leaves nothing; then it is done, with these counts."""
    finished: list[object] = []
    worker._producer.flush = finished.append  # type: ignore[assignment, method-assign]
    assert worker.run_once() == 0
    assert not finished, "nobody tries to commit it"
    assert not world.counts() and not world.broker.open_transactions(), "what was handed over is aborted"
    del worker._producer.flush
    run_idle(worker)
    assert sorted(world.counts()) == sorted(counts)
    assert world.stored() == world.changelog()


def all_are_counted_once(world: World, workers: Sequence[Worker], said: int, poison: int) -> None:
    """Of what was said all but poison is counted once, in order, and stores and positions are where they are to be."""
    counted: dict[str, int] = {}
    for each in world.counts():
        key, count = each.split()
        assert int(count) == counted.get(key, 0) + 1, "each once, in order"
        counted[key] = int(count)
    assert sum(counted.values()) == said - poison
    assert len(world.broker.read("dead-letters")) == poison
    assert {key[1:].decode(): int(value[8:]) for key, value in world.changelog().items()} == counted
    positions = {
        at: position for worker in workers for task in worker.tasks.values() for at, position in task.positions.items()
    }
    assert positions == {(topic, n): world.broker.log((topic, n)).end for topic in COUNTING.inputs for n in range(2)}
