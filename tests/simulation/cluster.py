"""The real worker on the memory adapters: a broker, worker slots with a disk each, and a scheduler that draws.

Whatever may happen to a process happens here between two steps of the commit order: it dies at a failpoint, with or
without its last local writes; its slot stays empty until the session expires; a commit's answer is lost; somebody
starts a rebalance; a second process takes over the slot while the first still believes it owns it.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.records import CaughtUp, encode
from pipeline.runtime import worker as worker_module
from pipeline.runtime.errors import Abortable, Retriable, WorkerStopped
from pipeline.runtime.failpoints import POINTS
from pipeline.runtime.memory import MemoryBroker, MemoryStores, memory_adapters
from pipeline.runtime.overlay import RESERVED
from pipeline.runtime.ports import Record, Stage
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from pipeline.topology import IDENTITY, TOPICS, UNIFY, Role
from pipeline.unify.stage import UnifyStage
from tests.simulation.driver import Stuck, Written

MOST_ROUNDS = 20_000
# Every turn of long work is late, so that such work rests whenever it can.
LONG_TURN_S = 1e-9
# Whatever was said of a batch, what is there by then goes along with it.
GATHER_S = 1e-9


class Killed(BaseException):
    """The process of a worker ended here. No handler of the worker may catch it."""


class Watch:
    """The stopwatch of the workers: what took how long, and when long work has rested enough, is drawn too."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._now_s = 0.0

    def perf_counter(self) -> float:
        self._now_s += self._rng.choice((0.0, 0.0, 0.001, 0.01, 0.3))
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += seconds


@dataclass
class Slot:
    """A place where a worker runs: it keeps its disk whoever works there."""

    role: Role
    number: int
    make_stage: Callable[[int], Stage]
    stores: MemoryStores = field(default_factory=MemoryStores)
    worker: Worker | None = None

    @property
    def instance(self) -> str:
        return f"{self.role.name}-{self.number}"


class Topics:
    """The broker as a reader with `read_committed` sees it."""

    def __init__(self, broker: MemoryBroker, partitions: int) -> None:
        self.broker = broker
        self.partitions = partitions
        self._trimmed: dict[str, list[Written]] = {}
        self._delete = broker.delete_records
        broker.delete_records = self._delete_and_keep  # type: ignore[method-assign]

    def _delete_and_keep(self, positions: Mapping[tuple[str, int], int]) -> None:
        """What a stage trims once it was committed is kept here: the checks go over all that was ever said."""
        for (topic, partition), position in positions.items():
            kept = self._trimmed.setdefault(topic, [])
            kept += [
                Written(record.key, record.value)
                for record in self.broker.read(topic, partition)
                if record.offset < position
            ]
        self._delete(positions)

    def records(self, name: str) -> list[Written]:
        there = [Written(record.key, record.value) for record in self.broker.read(name)]
        return self._trimmed.get(name, []) + there

    def by_partition(self, name: str) -> list[dict[int, Written]]:
        return [
            {record.offset: Written(record.key, record.value) for record in self.broker.read(name, partition)}
            for partition in range(self.partitions)
        ]

    def compacted(self, name: str) -> dict[bytes, bytes]:
        return compacted(self.broker.read(name))


def compacted(records: list[Record]) -> dict[bytes, bytes]:
    """The present value of each key."""
    present: dict[bytes, bytes] = {}
    for record in records:
        assert record.key is not None
        if record.value is None:
            present.pop(record.key, None)
        else:
            present[record.key] = record.value
    return present


class Cluster:
    """One deployment: a worker for identity, one to three for unify."""

    def __init__(
        self,
        partitions: int,
        rng: random.Random,
        make_identity: Callable[[int], Stage],
        make_unify: Callable[[int], Stage],
        crash_rate: float = 0.02,
    ) -> None:
        self.rng = rng
        self.now = 0
        self.crashes = 0
        self.crash_rate = crash_rate
        self.partitions = partitions
        self.memory = MemoryBroker()
        self.memory.interleave = rng
        for topic in TOPICS:
            self.memory.create_topic(topic.name, topic.partitions or partitions)
        self.broker = Topics(self.memory, partitions)
        self.slots = [Slot(IDENTITY, 0, make_identity)]
        self.slots += [Slot(UNIFY, number, self._with_watermark(make_unify)) for number in range(rng.choice((1, 2, 3)))]
        self.weights = [rng.choice((0.2, 1.0, 3.0)) for _ in self.slots]
        self.batch_records = rng.choice((1, 3, 10, 100))
        # Drawn apart: worlds are what they were before workers had a stopwatch.
        self.watch = Watch(random.Random(repr(rng.getstate())))

    def _with_watermark(self, make_unify: Callable[[int], Stage]) -> Callable[[int], Stage]:
        def make(partition: int) -> Stage:
            stage = make_unify(partition)
            assert isinstance(stage, UnifyStage)
            stage._watermark = lambda _: self._watermark()
            return stage

        return make

    def _watermark(self) -> int:
        """The least of the clocks of unify's tasks, as the broker has them; -1 while one of them has told none."""
        assert UNIFY.changelog is not None
        kept = self.memory.groups[UNIFY.name].offsets
        told = [kept.get((UNIFY.changelog, number)) for number in range(self.partitions)]
        return min(-1 if one is None else int(one.note.split()[0]) for one in told)

    # ------------------------------------------------------------------------------------------------- the outside

    def write(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        if partition is None:
            self.memory.produce(topic, key, value)
        else:
            self.memory.produce(topic, key, value, partition)

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset that the next record gets. What is read may end before it, at a transaction left open."""
        return self.memory.topics[topic][partition].end

    def caught_up(self, now: int) -> None:
        self.now = max(self.now, now)
        self.memory.now_ms = self.now
        for partition in range(self.partitions):
            self.memory.produce("events", None, encode(CaughtUp(now)), partition)

    # --------------------------------------------------------------------------------------------------- the inside

    def some_steps(self) -> None:
        for _ in range(self.rng.choice((0, 1, 3, 8))):
            self.turn(self.rng.choices(self.slots, self.weights)[0])

    def come_to_rest(self) -> None:
        """Turn every worker until nothing is written and nothing waits any more."""
        quiet, size = 0, -1
        for _ in range(MOST_ROUNDS):
            for slot in self.rng.sample(self.slots, len(self.slots)):
                self.turn(slot)
            now_size = self._size()
            settled = now_size == size and self._is_idle()
            quiet = quiet + 1 if settled else 0
            size = now_size
            if quiet >= 3:
                return
        raise Stuck(f"not at rest after {MOST_ROUNDS} rounds")

    def turn(self, slot: Slot) -> None:
        """One turn of a slot's worker; a slot without one starts one."""
        rng, chaos = self.rng, self.rng.random() < self.crash_rate
        if chaos:
            self.crashes += 1
            self._mischief(slot)
        of_process, worker_module.time = worker_module.time, self.watch  # type: ignore[attr-defined]
        try:
            if slot.worker is None:
                slot.worker = self._start(slot)
            slot.worker.run_once()
        except (Killed, WorkerStopped) as ended:
            if isinstance(ended, WorkerStopped) and "raised" in str(ended):
                raise
            slot.worker = None
            slot.stores.crash(rng.choice((0, 1, 3)))
        finally:
            worker_module.time = of_process  # type: ignore[attr-defined]

    def _start(self, slot: Slot) -> Worker:
        adapters = memory_adapters(self.memory, slot.role.name, slot.number, lambda: self.now, slot.stores)
        settings = WorkerSettings(
            batch_records=self.batch_records,
            trim_interval_ms=86_400_000,
            cache_objects=self.rng.choice((2, 1_000)),
            long_turn_s=LONG_TURN_S,
            gather_s=GATHER_S,
        )
        worker = Worker(slot.role, slot.make_stage, adapters, settings, self._reach)
        slot.worker = worker
        worker.start()
        return worker

    def _reach(self, point: str) -> None:
        if self.rng.random() < self.crash_rate / len(POINTS):
            self.crashes += 1
            raise Killed(point)

    def _mischief(self, slot: Slot) -> None:
        rng, memory = self.rng, self.memory
        match rng.choice(("killed", "expired", "rebalance", "commit_lost", "commit_unanswered", "abort", "lost_disk")):
            case "killed":
                self._kill(slot)
            case "expired":
                self._kill(slot)
                memory.expire_transaction(slot.instance)
                memory.expire_member(slot.role.name, slot.instance)
            case "rebalance":
                memory.rebalance(slot.role.name)
            case "commit_lost":
                memory.fail_next("commit", Retriable("no answer"))
            case "commit_unanswered":
                memory.fail_next("commit", Retriable("no answer"), applied=True)
            case "abort":
                memory.fail_next(rng.choice(("flush", "send_offsets", "commit")), Abortable("the broker says no"))
            case "lost_disk":
                self._kill(slot)
                slot.stores.stores.clear()

    def _kill(self, slot: Slot) -> None:
        if slot.worker is not None:
            slot.worker = None
            slot.stores.crash(self.rng.choice((0, 1, 3)))

    def _size(self) -> int:
        return sum(log.end for logs in self.memory.topics.values() for log in logs)

    def _is_idle(self) -> bool:
        """Whether every partition has an owner that has read everything."""
        owned = dict.fromkeys((slot.role.name for slot in self.slots), 0)
        for slot in self.slots:
            if slot.worker is None or (slot.worker.tasks and slot.worker.input_lag() != 0) or slot.worker._rest:
                return False
            owned[slot.role.name] += len(slot.worker.tasks)
        return owned == {IDENTITY.name: 1, UNIFY.name: self.partitions}

    def stores(self) -> dict[str, tuple[dict[bytes, bytes], dict[bytes, bytes]]]:
        """By task: (what its open store holds, what its changelog gives)."""
        found = {}
        for slot in self.slots:
            if slot.worker is None or slot.role.changelog is None:
                continue
            for number in slot.worker.tasks:
                local = slot.stores.stores[number].values
                rebuilt = compacted(self.memory.read(slot.role.changelog, number))
                of_stage = {key: value for key, value in rebuilt.items() if not key.startswith(RESERVED)}
                there = {key: value for key, value in local.items() if not key.startswith(RESERVED)}
                found[f"{slot.role.name} {number}"] = (there, of_stage)
        return found
