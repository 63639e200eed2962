"""The clients of the memory broker, behind the ports of `adapters.py`."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.runtime.adapters import (
    NO_NOTES,
    Adapters,
    Change,
    Clock,
    Committed,
    Listener,
    Membership,
    Outgoing,
    Partition,
    Stores,
)
from pipeline.runtime.errors import Fatal
from pipeline.runtime.memory.broker import Fault, Member, MemoryBroker
from pipeline.runtime.memory.log import Transaction
from pipeline.runtime.ports import Record


def memory_adapters(
    broker: MemoryBroker, role: str, slot: str | int, clock: Clock, stores: Stores | None = None
) -> Adapters:
    """What a worker of `role` in `slot` needs, on one broker. `stores` outlive the worker, as a disk does."""
    instance = f"{role}-{slot}"
    return Adapters(
        consumer=MemoryConsumer(broker, role, instance),
        producer=MemoryProducer(broker, instance, role),
        admin=MemoryAdmin(broker),
        clock=clock,
        reader=MemoryLogReader(broker) if stores is not None else None,
        stores=stores,
        history=(lambda: MemoryLogReader(broker)) if stores is not None else None,
        look=lambda committed: MemoryLogReader(broker, committed),
    )


class MemoryConsumer:
    """A static member of a group."""

    def __init__(self, broker: MemoryBroker, group_id: str, instance: str) -> None:
        self._broker = broker
        self._group_id = group_id
        self._instance = instance
        self._topics: tuple[str, ...] = ()
        self._listener: Listener | None = None
        self._member: Member | None = None
        self._assigned: list[Partition] = []
        self._positions: dict[Partition, int] = {}
        self._turn = 0

    def subscribe(self, topics: Sequence[str], listener: Listener) -> None:
        self._topics = tuple(topics)
        self._listener = listener
        self._member = self._broker.join(self._group_id, self._instance, topics)

    def consume(self, limit: int, timeout_s: float) -> list[Record]:
        self._serve_group()
        found: list[Record] = []
        for partition in self._assigned:
            position = self._positions.get(partition)
            log = self._broker.log(partition)
            if position is not None and not log.start <= position <= log.end:
                raise Fatal(f"position {position} of {partition} is outside the log [{log.start}, {log.end}]")
        if self._broker.interleave is None:
            self._turn += 1
            order = self._assigned[self._turn % max(1, len(self._assigned)) :]
            for partition in order + self._assigned[: len(self._assigned) - len(order)]:
                self._take(partition, limit - len(found), found)
        else:
            self._take_at_random(self._broker.interleave, limit, found)
        return found

    def _take_at_random(self, generator: random.Random, limit: int, found: list[Record]) -> None:
        waiting = [partition for partition in self._assigned if partition in self._positions]
        while waiting and len(found) < limit:
            partition = generator.choice(waiting)
            if self._take(partition, min(generator.randint(1, 8), limit - len(found)), found) == 0:
                waiting.remove(partition)

    def _take(self, partition: Partition, limit: int, found: list[Record]) -> int:
        position = self._positions.get(partition)
        if position is None or limit <= 0:
            return 0
        entries, self._positions[partition] = self._broker.log(partition).read(position, limit)
        topic, number = partition
        found += [Record(topic, number, e.offset, e.key, e.value, e.timestamp_ms, (), e.timestamp_ms) for e in entries]
        return len(entries)

    def _serve_group(self) -> None:
        member, listener = self._member, self._listener
        if member is None or listener is None:
            raise Fatal("consume before subscribe")
        group = self._broker.groups[self._group_id]
        known = group.members.get(self._instance)
        if known is None:
            self._drop_assignment(listener.lost)
            self._member = self._broker.join(self._group_id, self._instance, self._topics)
        elif known is not member:
            raise Fatal(f"instance {self._instance} was fenced: another process has taken its place")
        elif group.preparing and not member.joined:
            self._drop_assignment(listener.revoked)
            self._broker.rejoin(self._group_id, member)
        member = self._member
        assert member is not None
        if not group.preparing and member.generation != group.generation:
            if member.generation != -1:
                self._drop_assignment(listener.revoked)
            member.generation = group.generation
            self._assigned = list(group.assignment.get(self._instance, []))
            listener.assigned(list(self._assigned))

    def _drop_assignment(self, tell: Callable[[Sequence[Partition]], None]) -> None:
        had, self._assigned = self._assigned, []
        if had:
            tell(had)
        self._positions.clear()

    def start(self, positions: Mapping[Partition, int]) -> None:
        self._positions.update({p: position for p, position in positions.items() if p in self._assigned})

    def hold(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)

    def committed(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, Committed | None]:
        fault = self._broker.next_fault("committed")
        if fault is not None:
            raise fault.error
        return self._broker.committed(self._group_id, partitions)

    def membership(self) -> Membership:
        member = self._member
        if member is None or member.generation == -1:
            return Membership(None, -1)
        return Membership(member, member.generation)

    def lag(self, partition: Partition) -> int | None:
        position = self._positions.get(partition)
        return None if position is None else max(0, self._broker.log(partition).stable_end - position)

    def end(self, partition: Partition) -> int | None:
        return self._broker.log(partition).stable_end

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        log = self._broker.log(partition)
        return log.start, log.stable_end

    def close(self) -> None:
        self._positions.clear()


class MemoryProducer:
    """The transactional producer of a slot. Faults queued at the broker meet its calls."""

    def __init__(self, broker: MemoryBroker, transactional_id: str, group_id: str) -> None:
        self._broker = broker
        self._transactional_id = transactional_id
        self._group_id = group_id
        self._epoch = -1
        self._transaction: Transaction | None = None
        self._highest: dict[Partition, int] = {}

    def init(self, timeout_s: float) -> None:
        fault = self._before("init")
        self._epoch = self._broker.init_transactions(self._transactional_id)
        self._after(fault)

    def begin(self) -> None:
        fault = self._before("begin")
        self._transaction = self._broker.begin(self._transactional_id, self._epoch)
        self._highest = {}
        self._after(fault)

    def send(self, records: Iterable[Outgoing]) -> None:
        fault = self._before("send")
        transaction = self._open_transaction()
        for topic, value, key, partition in records:
            self._broker.produce(topic, key, value, partition, transaction)
        self._after(fault)

    def send_changelog(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        transaction = self._open_transaction()
        for key, value in records:
            self._highest[(topic, partition)] = self._broker.produce(topic, key, value, partition, transaction)

    def flush(self, timeout_s: float) -> dict[Partition, int]:
        fault = self._before("flush")
        self._open_transaction()
        self._after(fault)
        return self._highest

    def send_offsets(
        self,
        positions: Mapping[Partition, int],
        membership: Membership,
        timeout_s: float,
        notes: Mapping[Partition, str] = NO_NOTES,
    ) -> None:
        fault = self._before("send_offsets")
        self._broker.send_offsets(self._open_transaction(), self._group_id, positions, membership, notes)
        self._after(fault)

    def commit(self, timeout_s: float) -> None:
        self._finish("commit", True)

    def abort(self, timeout_s: float) -> None:
        self._finish("abort", False)

    def _finish(self, operation: str, commit: bool) -> None:
        transaction = self._transaction
        if transaction is None:
            raise Fatal(f"{operation} without a transaction")
        fault = self._before(operation)
        self._broker.end(transaction, self._epoch, commit)
        self._after(fault)
        self._transaction = None

    def _open_transaction(self) -> Transaction:
        self._broker.check_epoch(self._transactional_id, self._epoch)
        if self._transaction is None:
            raise Fatal("no transaction is open")
        return self._transaction

    def _before(self, operation: str) -> Fault | None:
        fault = self._broker.next_fault(operation)
        if fault is not None and not fault.applied:
            raise fault.error
        return fault

    def _after(self, fault: Fault | None) -> None:
        if fault is not None:
            raise fault.error

    def close(self) -> None:
        return


class MemoryLogReader:
    """Reads partitions back: what is committed, or everything."""

    def __init__(self, broker: MemoryBroker, committed: bool = True) -> None:
        self._broker = broker
        self._committed = committed
        self._positions: dict[Partition, int] = {}

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        log = self._broker.log(partition)
        return log.start, log.end

    def open(self, partition: Partition, position: int) -> None:
        log = self._broker.log(partition)
        if not log.start <= position <= log.end:
            raise Fatal(f"position {position} of {partition} is outside the log [{log.start}, {log.end}]")
        self._positions[partition] = position

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        found: list[Record] = []
        for partition, position in self._positions.items():
            entries, self._positions[partition] = self._broker.log(partition).read(
                position, limit - len(found), self._committed
            )
            found += [Record(*partition, e.offset, e.key, e.value, e.timestamp_ms) for e in entries]
            if len(found) >= limit:
                break
        return found

    def read_changes(self, limit: int, timeout_s: float) -> dict[int, list[Change]]:
        found: dict[int, list[Change]] = {number: [] for _, number in self._positions}
        for record in self.read(limit, timeout_s):
            found[record.partition].append((record.key, record.value))
        return found

    def position(self, partition: Partition) -> int:
        return self._positions[partition]

    def close_partition(self, partition: Partition) -> None:
        self._positions.pop(partition, None)

    def close(self) -> None:
        self._positions.clear()


class MemoryAdmin:
    """Requests beside the loop, answered at once."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def partition_counts(self, topics: Sequence[str], timeout_s: float) -> dict[str, int]:
        return {topic: len(self._broker.topics[topic]) for topic in topics if topic in self._broker.topics}

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> dict[str, str]:
        return {topic: self._broker.topic_ids[topic] for topic in topics if topic in self._broker.topic_ids}

    def topic_ids_lately(self, topics: Sequence[str]) -> dict[str, str]:
        return self.topic_ids(topics, 0.0)

    def ends(self, topics: Sequence[str], timeout_s: float) -> dict[Partition, tuple[int, int]]:
        names = [n for n in self._broker.topics for t in topics if n == t or (t.endswith(".") and n.startswith(t))]
        logs = {(name, number): log for name in names for number, log in enumerate(self._broker.topics[name])}
        return {at: (log.stable_end, log.end) for at, log in logs.items()}

    def positions_at(self, partitions: Sequence[Partition], time_ms: int, timeout_s: float) -> dict[Partition, int]:
        found = {}
        for at in partitions:
            log = self._broker.log(at)
            found[at] = next((e.offset for e in log.entries if e.timestamp_ms >= time_ms), log.end)
        return found

    def delete_records(self, positions: Mapping[Partition, int]) -> None:
        self._broker.delete_records(positions)
