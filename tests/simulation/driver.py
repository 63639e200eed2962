"""A light engine for one seed: partitions as lists, transactions as buffers, and a scheduler that draws.

It drives the real stages. What it adds to what the stages are promised by the runtime is malice: batches of any
size, any interleaving of tasks and of a task's inputs, aborts, crashes before and after the commit, restores from the
changelog or from a stale store, ticks at any moment.
"""

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from pipeline.identifiers import partition_of
from pipeline.records import CaughtUp, encode
from pipeline.runtime.ports import Record, Stage

COMPACTED = {"profiles", "identities", "segment-members", "identity-decisions"}
SINGLE = {"identity-edges", "identity-changelog", "identity-decisions", "definitions"}
MOST_ROUNDS = 20_000


class Stuck(Exception):
    """The pipeline did not come to rest."""


@dataclass(frozen=True)
class Written:
    """One record of a topic; `transaction` is the number of the commit that wrote it, 0 for the outside."""

    key: bytes | None
    value: bytes | None
    transaction: int = 0


class Broker:
    """Topics as lists of lists. Only committed records are in them."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._topics: dict[str, list[list[Written]]] = {}

    def topic(self, name: str) -> list[list[Written]]:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = [[] for _ in range(1 if name in SINGLE else self.partitions)]
        return found

    def append(self, name: str, key: bytes | None, written: Written, partition: int | None) -> None:
        topic = self.topic(name)
        if partition is None:
            partition = 0 if key is None else partition_of(key, len(topic))
        topic[partition].append(written)

    def insert(self, name: str, written: Written, partition: int | None, lowest: int, rng: random.Random) -> None:
        """Append a record, or put it between unread records of a transaction that was under way at the same time.
        `lowest` is the first place it may take; nothing that belongs before it stands behind."""
        topic = self.topic(name)
        if partition is None:
            partition = 0 if written.key is None else partition_of(written.key, len(topic))
        log = topic[partition]
        place = len(log)
        while place > lowest and rng.random() < 0.7:
            place -= 1
        log.insert(place, written)

    def records(self, name: str) -> list[Written]:
        """All records of a topic, partition by partition."""
        return [written for partition in self.topic(name) for written in partition]

    def by_partition(self, name: str) -> list[dict[int, Written]]:
        """The records of each partition by offset."""
        return [dict(enumerate(partition)) for partition in self.topic(name)]

    def compacted(self, name: str) -> dict[bytes, bytes]:
        """The present value of each key."""
        present: dict[bytes, bytes] = {}
        for written in self.records(name):
            assert written.key is not None
            if written.value is None:
                present.pop(written.key, None)
            else:
                present[written.key] = written.value
        return present


class OverlayState:
    """The State of one task: a store of encoded values, an overlay for the running batch, decoded objects above.
    `rests`: what is awake goes to rest at each step; otherwise nothing ever does."""

    def __init__(self, stage: Stage, store: dict[bytes, tuple[int, bytes]], rests: bool = True) -> None:
        self.store = store
        self.rests = rests
        self._stage = stage
        self._objects: dict[bytes, Any] = {}
        self._overlay: dict[bytes, tuple[int, Any] | None] = {}
        self._touched: set[bytes] = set()
        self._awake: dict[bytes, None] = {}

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        return iter(keys)

    def rest(self, prefix: bytes) -> None:
        """All goes to rest at each step, which is as little as a stage may count on: every object is a new one."""
        if not self.rests:
            return
        for key in self._awake:
            if not key.startswith(prefix):
                continue
            self._stage.resting(key, again=bool(key[-1] & 1))  # type: ignore[attr-defined]
            entry = self._overlay.get(key)
            if key in self._touched and key not in self._overlay:
                self._check(key)
            self._touched.discard(key)
            self._objects.pop(key, None)
            if entry is not None:
                self._overlay[key] = (entry[0], self._stage.decode(key, self._stage.encode(key, entry[1])))
        self._awake.clear()

    def get(self, key: bytes) -> Any | None:
        self._awake[key] = None
        if key in self._overlay:
            entry = self._overlay[key]
            return None if entry is None else entry[1]
        if key in self._objects:
            self._touched.add(key)
            return self._objects[key]
        if key not in self.store:
            return None
        self._touched.add(key)
        value = self._objects[key] = self._stage.decode(key, self.store[key][1])
        return value

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        assert isinstance(key, bytes) and isinstance(wake_at, int) and wake_at >= 0
        self._overlay[key] = (wake_at, value)
        self._awake[key] = None

    def delete(self, key: bytes) -> None:
        self._overlay[key] = None

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        keys = {key for key in self.store if key.startswith(prefix)}
        keys |= {key for key in self._overlay if key.startswith(prefix)}
        for key in sorted(keys):
            value = self.get(key)
            if value is not None:
                yield key, value

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        found = sorted((wake_at, key) for key, wake_at in self._wakes() if wake_at <= until_ms)
        return found[:limit]

    def first_wake(self) -> int | None:
        return min((wake_at for _, wake_at in self._wakes()), default=None)

    def scrub(self, prefix: bytes) -> None:
        """Here a former value is gone at once."""

    def _wakes(self) -> Iterator[tuple[bytes, int]]:
        for key, (wake_at, _) in self.store.items():
            if wake_at and key not in self._overlay:
                yield key, wake_at
        for key, entry in self._overlay.items():
            if entry is not None and entry[0]:
                yield key, entry[0]

    def encoded(self) -> dict[bytes, tuple[int, bytes] | None]:
        """What the batch changed, encoded. Also sees to it that nothing was changed without being put."""
        for key in self._touched - self._overlay.keys():
            self._check(key)
        return {
            key: None if entry is None else (entry[0], self._stage.encode(key, entry[1]))
            for key, entry in self._overlay.items()
        }

    def _check(self, key: bytes) -> None:
        if self._stage.encode(key, self._objects[key]) != self.store[key][1]:
            raise AssertionError(f"the state under {key!r} was changed in place and not put")

    def applied(self, encoded: dict[bytes, tuple[int, bytes] | None]) -> None:
        """The batch was committed: the overlay becomes the store."""
        for key, entry in encoded.items():
            if entry is None:
                self.store.pop(key, None)
                self._objects.pop(key, None)
            else:
                self.store[key] = entry
                self._objects[key] = self._overlay[key][1]  # type: ignore[index]
        self._clear()

    def dropped(self) -> None:
        """The batch was aborted: every object it touched is decoded anew."""
        for key in self._touched | self._overlay.keys():
            self._objects.pop(key, None)
        self._clear()

    def forget_objects(self) -> None:
        self._objects.clear()

    def _clear(self) -> None:
        self._overlay.clear()
        self._touched.clear()


Logged = tuple[str, bytes | None, bytes, int | None]


@dataclass
class Buffer:
    """The Outputs of one transaction."""

    upserts: dict[tuple[str, bytes], bytes | None] = field(default_factory=dict)
    _place: int = -1
    _placed: list[tuple[int, Logged]] = field(default_factory=list)

    @property
    def logged(self) -> list[Logged]:
        """What was logged, in the order of the records it was said of."""
        return [one for _, one in sorted(self._placed, key=itemgetter(0))]

    def at(self, place: int) -> None:
        self._place = place

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        assert topic not in COMPACTED, topic
        assert isinstance(value, bytes)
        self._placed.append((self._place, (topic, key, value, partition)))

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        assert topic in COMPACTED, topic
        self.upserts.pop((topic, key), None)
        self.upserts[(topic, key)] = value


@dataclass
class Task:
    """One partition of a stage."""

    role: str
    partition: int
    inputs: tuple[tuple[str, int], ...]
    make_stage: Callable[[int], Stage]
    broker: Broker
    stage: Stage = field(init=False)
    state: OverlayState = field(init=False)
    positions: dict[tuple[str, int], int] = field(init=False)
    consumed: list[tuple[str, int]] = field(default_factory=list)
    produced: list[Logged] = field(default_factory=list)
    seen_transaction: int = 0
    last_transaction: int = 0
    stale: tuple[int, dict[bytes, tuple[int, bytes]]] = field(default_factory=lambda: (0, {}))

    def __post_init__(self) -> None:
        self.positions = dict.fromkeys(self.inputs, 0)
        self.stage = self.make_stage(self.partition)
        self.state = OverlayState(self.stage, {})

    @property
    def changelog(self) -> list[Written]:
        return self.broker.topic(f"{self.role}-changelog")[self.partition]

    def waiting(self) -> int:
        return sum(len(self.broker.topic(name)[at]) - self.positions[name, at] for name, at in self.inputs)

    def restore(self, stale: bool) -> None:
        """A new process: nothing but the changelog, or an old store and the rest of the changelog."""
        store = self.rebuilt(*self.stale) if stale else self.rebuilt(0, {})
        self.stage = self.make_stage(self.partition)
        self.state = OverlayState(self.stage, store)

    def rebuilt(self, start: int, store: dict[bytes, tuple[int, bytes]]) -> dict[bytes, tuple[int, bytes]]:
        """A store brought up to the end of the changelog."""
        store = dict(store)
        for written in self.changelog[start:]:
            assert written.key is not None
            if written.value is None:
                store.pop(written.key, None)
            else:
                store[written.key] = (int.from_bytes(written.value[:8], "big"), written.value[8:])
        return store


class Simulation:
    """Drives all tasks of one deployment."""

    def __init__(
        self,
        partitions: int,
        rng: random.Random,
        make_identity: Callable[[int], Stage],
        make_unify: Callable[[int], Stage],
        crash_rate: float = 0.06,
    ) -> None:
        self.rng = rng
        self.broker = Broker(partitions)
        self.crash_rate = crash_rate
        self.largest_batch = rng.choice((1, 2, 5, 20))
        self.now = 0
        self.crashes = 0
        self.transactions = 0
        self.interleaves = rng.random() < 0.6
        self.tasks = [Task("identity", 0, (("identity-edges", 0),), make_identity, self.broker)]
        for partition in range(partitions):
            inputs = (("events", partition), ("links", partition))
            self.tasks.append(Task("unify", partition, inputs, make_unify, self.broker))
        self.weights = [rng.choice((0.1, 1.0, 1.0, 5.0)) for _ in self.tasks]

    # ------------------------------------------------------------------------------------------------- the outside

    def write(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        self.broker.append(topic, key, Written(key, value), partition)

    def end(self, topic: str, partition: int = 0) -> int:
        """The offset that the next record gets."""
        return len(self.broker.topic(topic)[partition])

    def caught_up(self, now: int) -> None:
        self.now = max(self.now, now)
        for partition in range(self.broker.partitions):
            self.write("events", None, encode(CaughtUp(now)), partition)

    # --------------------------------------------------------------------------------------------------- the inside

    def some_steps(self) -> None:
        """A few batches of whichever tasks are drawn, now and then a wake-up."""
        for _ in range(self.rng.choice((0, 1, 1, 2, 6))):
            task = self.rng.choices(self.tasks, self.weights)[0]
            self.batch(task, woken=self.rng.random() < 0.3)

    def come_to_rest(self) -> None:
        """Read everything to its end, wake everyone, until nothing is left to do. Crashes go on meanwhile."""
        for _ in range(MOST_ROUNDS):
            busy = [task for task in self.tasks if task.waiting()]
            if busy:
                self.batch(self.rng.choice(busy))
            else:
                said = [self.batch(task, woken=True) for task in self.tasks]
                if not any(said):
                    return
        raise Stuck(f"not at rest after {MOST_ROUNDS} batches")

    def batch(self, task: Task, woken: bool = False) -> bool:
        """One transaction: a wake-up if asked for, then some of what waits. True if there was anything in it, or if it
        came to grief and must be looked at again."""
        positions = dict(task.positions)
        records: list[Record] = []
        for _ in range(self.rng.randint(0 if woken else 1, self.largest_batch)):
            ready = [one for one in task.inputs if positions[one] < len(self.broker.topic(one[0])[one[1]])]
            if not ready:
                break
            name, partition = self.rng.choice(ready)
            offset = positions[name, partition]
            written = self.broker.topic(name)[partition][offset]
            records.append(Record(name, partition, offset, written.key, written.value))
            positions[name, partition] = offset + 1
        return self._transaction(task, woken, records, positions)

    def _step(self, task: Task, records: list[Record], out: Buffer) -> None:
        """As the runtime does it: at once, where a stage takes several. `replayed` takes one after the other."""
        step_many = getattr(task.stage, "step_many", None)
        if step_many is not None:
            step_many(records, range(len(records)), task.state, out)
        else:
            for place, record in enumerate(records):
                out.at(place)
                task.stage.step(record, task.state, out)

    def _transaction(
        self, task: Task, woken: bool, records: list[Record], positions: dict[tuple[str, int], int]
    ) -> bool:
        out = Buffer()
        fate = self.rng.random() / self.crash_rate if self.crash_rate else 9.0
        last = self.rng.randint(0, len(records)) if fate < 0.2 else len(records)
        if woken:
            task.stage.wake(task.state, out, self.now)
        by_waking = len(out.logged)
        self._step(task, records[:last], out)
        out.at(len(records))
        if fate >= 0.2:
            task.stage.finish(task.state, out)
        if fate < 0.3:
            self.crashes += 1
            task.state.dropped()
            task.stage.forget()
            return True
        if fate < 0.6:
            self.crashes += 1
            task.restore(stale=self.rng.random() < 0.5)
            return True
        encoded = task.state.encoded()
        for record in records:
            written = self.broker.topic(record.topic)[record.partition][record.offset]
            task.seen_transaction = max(task.seen_transaction, written.transaction)
        self._commit(task, out, encoded, by_waking)
        for record in records:
            task.consumed.append((record.topic, record.offset))
        task.positions = dict(positions)
        task.last_transaction = self.transactions
        if fate < 1.0:
            self.crashes += 1
            task.restore(stale=self.rng.random() < 0.5)
            return True
        task.state.applied(encoded)
        if self.rng.random() < 0.1:
            task.stale = (len(task.changelog), dict(task.state.store))
        if self.rng.random() < 0.05:
            task.state.forget_objects()
        return bool(records or out.logged or out.upserts)

    def _commit(self, task: Task, out: Buffer, encoded: dict[bytes, tuple[int, bytes] | None], by_waking: int) -> None:
        self.transactions += 1
        number = self.transactions
        for name, key, value, partition in out.logged:
            written = Written(key, value, number)
            if name == "links" and self.interleaves:
                at = partition if partition is not None else partition_of(key or b"", self.broker.partitions)
                self.broker.insert(name, written, at, self._lowest(task, at, number), self.rng)
            else:
                self.broker.append(name, key, written, partition)
        task.produced += out.logged[by_waking:]
        for (name, key), upserted in out.upserts.items():
            self.broker.append(name, key, Written(key, upserted), None)
        for key, entry in encoded.items():
            data = None if entry is None else entry[0].to_bytes(8, "big") + entry[1]
            task.changelog.append(Written(key, data))

    def _lowest(self, task: Task, partition: int, number: int) -> int:
        """The first place in a partition of `links` that a record of this transaction may take: behind what was read,
        behind this task's own records, and behind every transaction whose records the task may have seen."""
        log = self.broker.topic("links")[partition]
        owner = next(one for one in self.tasks if one.role == "unify" and one.partition == partition)
        place = len(log)
        while place > owner.positions["links", partition]:
            other = log[place - 1].transaction
            if other == number or other <= max(task.seen_transaction, task.last_transaction):
                break
            place -= 1
        return place

    def stores(self) -> dict[str, tuple[Any, Any]]:
        """By task: (what its store holds, what its changelog gives)."""
        return {f"{task.role} {task.partition}": (task.state.store, task.rebuilt(0, {})) for task in self.tasks}


Said = list[tuple[str, bytes | None, bytes, int | None]]


def replayed(task: Task, rng: random.Random) -> tuple[Said, dict[bytes, tuple[int, bytes]]]:
    """What a task says, and what it has kept at the end, that consumes the same records in the same order in other
    batches: never crashed, not woken, and with everything at hand as it was left, or now and then nothing."""
    forgets = random.Random(f"forgets {task.role} {task.partition} {len(task.consumed)}")
    forgetting = forgets.choice((0.0, 0.3))
    state_stage = task.make_stage(task.partition)
    state = OverlayState(state_stage, {}, rests=False)
    said: Said = []
    place, cuts = 0, sorted(rng.sample(range(len(task.consumed) + 1), min(len(task.consumed), rng.randint(0, 9))))
    while place < len(task.consumed):
        following = bisect_right(cuts, place)
        end = cuts[following] if following < len(cuts) else len(task.consumed)
        out = Buffer()
        for name, offset in task.consumed[place:end]:
            partition = dict(task.inputs)[name]
            written = task.broker.topic(name)[partition][offset]
            state_stage.step(Record(name, partition, offset, written.key, written.value), state, out)
        state_stage.finish(state, out)
        state.applied(state.encoded())
        said += out.logged
        place = end
        if forgets.random() < forgetting:
            state_stage.forget()
            state.forget_objects()
    return said, state.store
