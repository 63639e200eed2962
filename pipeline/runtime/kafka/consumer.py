"""The consumers: a static member of the group, and the reader that brings changelogs back."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from pipeline.runtime.adapters import Change, Committed, Listener, Membership, Partition
from pipeline.runtime.errors import Fatal, Retriable
from pipeline.runtime.kafka.arrivals import records_of, take, take_records
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.errors import PASSING, passing_or_fatal
from pipeline.runtime.kafka.lifeline import LOST, Lifeline
from pipeline.runtime.ports import Record

_METADATA_FORMAT = b"CGMDv2:"
_SEEK_ATTEMPTS = 200
_SEEK_PAUSE_S = 0.01
_BEGINNING_ATTEMPTS = 200
_BEGINNING_PAUSE_S = 0.05
_BEGINNING_TIMEOUT_S = 2.0


def generation_of(metadata: bytes) -> int:
    """The generation in librdkafka's opaque group metadata: bytes 7 to 11, little-endian. Fatal if its format moved."""
    if metadata[:7] != _METADATA_FORMAT:
        raise Fatal(
            f"librdkafka's group metadata begins with {metadata[:7]!r} and not with {_METADATA_FORMAT!r}: this version "
            f"of confluent-kafka is not supported"
        )
    return int.from_bytes(metadata[7:11], "little", signed=True)


class KafkaConsumer:
    """A static member of a role's group."""

    def __init__(self, config: KafkaConfig, role: str) -> None:
        self._config = config
        self._lifeline = Lifeline()
        self._consumer = Consumer({**config.consumer(role), **self._lifeline.properties})
        self._names: dict[str, str] = {}
        self._listener: Listener | None = None
        self._held: set[Partition] = set()
        self._flowing: set[Partition] = set()
        # When they were assigned. What the client has seen of a partition may be from before it was away from it.
        self._ends: dict[Partition, int] = {}
        if generation_of(self._consumer.consumer_group_metadata()) != -1:
            raise Fatal("librdkafka's group metadata shows a generation before the group was joined")

    def subscribe(self, topics: Sequence[str], listener: Listener) -> None:
        self._listener = listener
        self._names = {self._config.topic_name(topic): topic for topic in topics}
        self._consumer.subscribe(
            list(self._names), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def consume(self, limit: int, timeout_s: float) -> list[Record]:
        others: list[Message] = []
        try:
            records = take_records(self._consumer, limit, timeout_s, self._names, self._config.values.opened, others)
        except KafkaException as error:
            raise passing_or_fatal(error, "consuming") from error
        if self._lifeline.is_cut:
            raise Fatal(f"consuming: {LOST}")
        for message in others:
            self._check(message)
        return records

    def _check(self, message: Message) -> None:
        error = message.error()
        if error is None or (error.code() in PASSING and not error.fatal()):
            return
        partition = self._logical(message.topic(), message.partition())
        if error.code() == KafkaError._AUTO_OFFSET_RESET and partition in self._held:
            return
        where = f" of {partition[0]}/{partition[1]}" if partition[0] else ""
        raise Fatal(f"consuming{where}: {error.str()} ({error.name()})")

    def _logical(self, topic: str | None, partition: int | None) -> Partition:
        return self._names.get(topic or "", topic or ""), partition if partition is not None else -1

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        # Never a logical offset here: librdkafka repeats its look-up after 500 ms if a seek came in between, and the
        # late answer overrides the seek. From the end, that would skip records without a sound.
        wanted = [TopicPartition(p.topic, p.partition, self._beginning(p)) for p in partitions]
        consumer.assign(wanted)
        if wanted:
            consumer.pause(wanted)
        logical = [self._logical(p.topic, p.partition) for p in partitions]
        self._held = set(logical)
        self._flowing = set()
        self._listener.assigned(sorted(logical))

    def _beginning(self, partition: TopicPartition) -> int:
        for _ in range(_BEGINNING_ATTEMPTS):
            try:
                low, self._ends[self._logical(partition.topic, partition.partition)] = _bounds(
                    self._consumer, partition, _BEGINNING_TIMEOUT_S
                )
                return low
            except Retriable as unanswered:
                last = unanswered
                time.sleep(_BEGINNING_PAUSE_S)
        raise Fatal(f"the broker does not tell where {partition.topic}/{partition.partition} begins: {last}")

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        self._held, self._flowing = set(), set()
        self._listener.revoked([self._logical(p.topic, p.partition) for p in partitions])
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        self._held, self._flowing = set(), set()
        self._listener.lost([self._logical(p.topic, p.partition) for p in partitions])
        consumer.unassign()

    def start(self, positions: Mapping[Partition, int]) -> None:
        mine = {p: position for p, position in positions.items() if p in self._held or p in self._flowing}
        if not mine:
            return
        for partition, position in mine.items():
            self._seek(partition, position)
        held = [self._real(p) for p in mine if p in self._held]
        if held:
            self._consumer.resume(held)
        self._held -= set(mine)
        self._flowing |= set(mine)

    def _seek(self, partition: Partition, position: int) -> None:
        for _ in range(_SEEK_ATTEMPTS):
            try:
                self._consumer.seek(self._real(partition, position))
                return
            except KafkaException as error:
                # Right after an assignment the fetcher may not have started yet.
                last = error
                time.sleep(_SEEK_PAUSE_S)
        raise passing_or_fatal(last, f"seeking {partition[0]}/{partition[1]} to {position}")

    def hold(self, partitions: Iterable[Partition]) -> None:
        mine = [p for p in partitions if p in self._flowing]
        self._consumer.pause([self._real(p) for p in mine])
        self._held |= set(mine)
        self._flowing -= set(mine)

    def _real(self, partition: Partition, position: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self._config.topic_name(partition[0]), partition[1], position)

    def committed(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, Committed | None]:
        try:
            answer = self._consumer.committed([self._real(p) for p in partitions], timeout_s)
        except KafkaException as error:
            raise passing_or_fatal(error, "asking for the committed positions") from error
        found: dict[Partition, Committed | None] = {}
        for partition, told in zip(partitions, answer, strict=True):
            if told.error is not None:
                raise passing_or_fatal(told.error, "asking for the committed positions")
            found[partition] = Committed(told.offset, told.metadata or "") if told.offset >= 0 else None
        return found

    def membership(self) -> Membership:
        token = self._consumer.consumer_group_metadata()
        return Membership(token, generation_of(token))

    def lag(self, partition: Partition) -> int | None:
        end = self.end(partition)
        try:
            (at,) = self._consumer.position([self._real(partition)])
        except KafkaException:
            return None
        if end is None or at.offset < 0:
            return None
        return max(0, end - at.offset)

    def end(self, partition: Partition) -> int | None:
        try:
            _, end = self._consumer.get_watermark_offsets(self._real(partition), cached=True)
        except KafkaException:
            return None
        end = max(end, self._ends.get(partition, -1))
        return end if end >= 0 else None

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        return _bounds(self._consumer, self._real(partition), timeout_s)

    def close(self) -> None:
        self._consumer.close()


class KafkaLogReader:
    """Reads partitions back, outside of any group: what is committed, or everything.

    It has a client to read with while a partition is open. One that nobody reads with would keep its statistics for
    whoever does, one after the other: hundreds of megabytes a day.
    """

    def __init__(self, config: KafkaConfig, role: str, committed: bool = True) -> None:
        self._config = config
        self._properties = config.reader(role, committed=committed)
        self._lifeline = Lifeline()
        self._replay: Consumer | None = None
        # Only an uncommitted view shows the true end: under read_committed it is the last stable offset.
        self._watermarks = Consumer(config.reader(role, committed=False))
        self._names: dict[str, str] = {}
        self._positions: dict[Partition, int] = {}

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        return _bounds(self._watermarks, self._real(partition), timeout_s)

    def open(self, partition: Partition, position: int) -> None:
        self._positions[partition] = position
        self._names[self._config.topic_name(partition[0])] = partition[0]
        if self._replay is None:
            self._lifeline = Lifeline()
            self._replay = Consumer({**self._properties, **self._lifeline.properties})
        self._replay.incremental_assign([self._real(partition, position)])

    def read_changes(self, limit: int, timeout_s: float) -> dict[int, list[Change]]:
        # A restore reads millions of records: no object is made of any of them.
        messages = self._consume(limit, timeout_s)
        partitions = {number: topic for topic, number in self._positions}
        found: dict[int, list[Change]] = {number: [] for number in partitions}
        last: dict[int, Message] = {}
        for message in messages:
            if message.error() is not None:
                self._check(message)
                continue
            number: Any = message.partition()
            changes = found.get(number)
            # One that was closed a moment ago may still have had some on their way.
            if changes is not None:
                changes.append((message.key(), message.value()))
                last[number] = message
        for number, message in last.items():
            partition = (partitions[number], number)
            self._positions[partition] = max(self._positions[partition], (message.offset() or 0) + 1)
        return found

    def _consume(self, limit: int, timeout_s: float) -> list[Message]:
        if self._replay is None:
            return []
        if self._lifeline.is_cut:
            raise Fatal(f"reading a changelog: {LOST}")
        try:
            return take(self._replay, limit, timeout_s)
        except KafkaException as error:
            raise passing_or_fatal(error, "reading a changelog") from error

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        messages = self._consume(limit, timeout_s)
        records = records_of(messages, self._names)
        for record in records:
            self._positions[(record.topic, record.partition)] = record.offset + 1
        if len(records) != len(messages):
            for message in messages:
                self._check(message)
        return self._config.values.opened(records)

    def _check(self, message: Message) -> None:
        error = message.error()
        if error is None or (error.code() in PASSING and not error.fatal()):
            return
        partition = (self._names.get(message.topic() or "", ""), message.partition() or 0)
        if error.code() == KafkaError._PARTITION_EOF:
            # The only thing that passes trailing control and aborted records.
            self._positions[partition] = max(self._positions[partition], message.offset() or 0)
            return
        raise Fatal(f"reading {partition[0]}/{partition[1]}: {error.str()} ({error.name()})")

    def position(self, partition: Partition) -> int:
        return self._positions[partition]

    def close_partition(self, partition: Partition) -> None:
        if self._positions.pop(partition, None) is None or self._replay is None:
            return
        if self._positions:
            self._replay.incremental_unassign([self._real(partition)])
        else:
            self._replay.close()
            self._replay = None

    def _real(self, partition: Partition, position: int = OFFSET_INVALID) -> TopicPartition:
        return TopicPartition(self._config.topic_name(partition[0]), partition[1], position)

    def close(self) -> None:
        if self._replay is not None:
            self._replay.close()
        self._watermarks.close()


def _bounds(consumer: Any, partition: TopicPartition, timeout_s: float) -> tuple[int, int]:
    try:
        bounds = consumer.get_watermark_offsets(partition, timeout_s, cached=False)
    except KafkaException as error:
        raise passing_or_fatal(error, f"asking for the ends of {partition.topic}") from error
    low, high = bounds
    return low, high
