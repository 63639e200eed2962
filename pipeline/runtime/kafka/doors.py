"""Reading and writing topics at the doors: for commands and live views, outside of the engine and its transactions.

Everything here reads `read_committed`: what an aborted transaction wrote never happened.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as UntypedOffsetSpec

from pipeline.errors import BrokerError, TopicMissing
from pipeline.identifiers import partition_of
from pipeline.runtime.kafka.arrivals import take
from pipeline.runtime.kafka.errors import CLIENT_ERRORS, PASSING, refusal, told_by
from pipeline.runtime.kafka.lifeline import Lifeline
from pipeline.runtime.kafka.positions import CommittedPositions
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.runtime.kafka.unsealing import Unsealing
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.wire import values_of

OffsetSpec: Any = UntypedOffsetSpec  # the package ships no types for it
_REQUEST_TIMEOUT_S = 15.0
_MAX_IN_QUEUE = 100_000
_FEW = 1_000
KAFKA_FAILURES: tuple[type[Exception], ...] = (KafkaException, TimeoutError)
"""What the client library raises when a Kafka does not answer, where nobody has made words of it."""


class TopicReader:
    """Follows topics of a workspace without joining a group: nobody else's position is touched.

    Records come with their logical topic names. A partition's own order is kept; partitions are interleaved. Events are
    given as they were before they were sealed; one whose key was destroyed is passed over.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Iterable[str],
        *,
        from_end: bool = False,
        key: bytes | None = None,
        start_at: Mapping[tuple[str, int], int] | None = None,
        only: Mapping[tuple[str, int], int] | None = None,
        fetch_wait_ms: int = 20,
        as_they_stand: bool = False,
        patient: bool = False,
        gapless: bool = False,
    ) -> None:
        """Open the topics at their beginnings, or at their ends; with `key`, only the partitions where it would be.
        `start_at` gives positions by (topic, partition), for those that begin elsewhere; with `only`, nothing is read
        but these partitions, from these positions on. `as_they_stand`: events stay sealed. `patient`: a broker that is
        away is waited for, with nothing to read, where others are told of it. `gapless`: is told where a topic has no
        longer what comes next, where others go on at its beginning.

        Raises:
            BrokerError: a topic does not exist, or the broker does not answer.
        """
        self._settings = settings
        self._patient = patient
        self._values = values_of(settings)
        self._names = {settings.topic(name): name for name in topics}
        opens = "events" in self._names.values() and not as_they_stand
        self._unsealed = Unsealing(settings) if opens else None
        self._lifeline = Lifeline()
        self._properties: dict[str, Any] = {
            **quiet_properties(settings),
            "group.id": f"{settings.prefix}reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error" if gapless else "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": fetch_wait_ms,
            "fetch.error.backoff.ms": 20,
        }
        self._consumer = Consumer({**self._properties, **self._lifeline.properties})
        self._rests = False
        self._reached: dict[tuple[str, int], int] = {}
        self._partitions = self._find_partitions(key)
        if only is not None:
            start_at = only
            self._partitions = [at for at in self._partitions if (self._names[at[0]], at[1]) in only]
        if from_end:
            # The ends of this moment: what comes after the reader was opened is never missed.
            self._reached = self.ends()
        for (topic, number), position in (start_at or {}).items():
            self._reached[settings.topic(topic), number] = position
        self._at_end: set[tuple[str, int]] = set()
        self._begin()

    def _begin(self) -> None:
        starts = {partition: self._reached.get(partition, OFFSET_BEGINNING) for partition in self._partitions}
        self._consumer.assign([TopicPartition(*partition, start) for partition, start in starts.items()])

    def rest(self) -> None:
        """Nothing is to be read for long: the next `read` goes on where this one ended. A client that is not polled
        keeps its statistics for whoever does, one after the other: a hundred megabytes a day."""
        self._consumer.close()
        self._rests = True

    def _begin_anew(self) -> None:
        """Go on with a new client: the one at hand has lost every broker for good, or rests."""
        if not self._rests:
            self._consumer.close()
        self._rests = False
        self._lifeline = Lifeline()
        self._consumer = Consumer({**self._properties, **self._lifeline.properties})
        self._begin()

    def _find_partitions(self, key: bytes | None) -> list[tuple[str, int]]:
        found = []
        for physical in self._names:
            try:
                known = self._consumer.list_topics(physical, timeout=_REQUEST_TIMEOUT_S).topics[physical]
            except KafkaException as error:
                raise BrokerError(
                    f"The Kafka does not answer: {error.args[0].str()}.",
                    str(self._settings.bootstrap_servers),
                    "start it (`headwater up`), or set HEADWATER_BOOTSTRAP_SERVERS",
                ) from None
            if known.error is not None:
                self._consumer.close()
                missing = known.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
                raise (TopicMissing if missing else BrokerError)(
                    f"The topic {physical} cannot be read: {known.error}.",
                    physical,
                    "create the workspace's topics with `headwater topics --create` (a source's is in `sources`), or"
                    " check HEADWATER_PREFIX",
                )
            numbers = sorted(known.partitions)
            found += [(physical, n) for n in numbers if key is None or n == partition_of(key, len(numbers))]
        return found

    def read(self, limit: int = 1000, timeout_s: float = 0.2) -> list[Record]:
        """Up to `limit` records that have come, as soon as one has; an empty list when none came within `timeout_s`."""
        if self._rests or self._lifeline.is_cut:
            self._begin_anew()
        records: list[Record] = []
        give_up = time.monotonic() + timeout_s
        self._keep(take(self._consumer, limit, timeout_s), records)
        # What has come may have been ends of partitions only.
        while not records and (left := give_up - time.monotonic()) > 0:
            self._keep(take(self._consumer, limit, left), records)
        records = self._values.opened(records)
        return records if self._unsealed is None else self._unsealed(records)

    def _keep(self, messages: Iterable[Any], records: list[Record]) -> None:
        """Append what they hold, and keep the positions. Raises BrokerError."""
        for message in messages:
            error = message.error()
            partition = message.topic(), message.partition()
            if error is None:
                records.append(_record(message, self._names))
                self._reached[partition] = message.offset() + 1
                self._at_end.discard(partition)
            elif error.code() == KafkaError._PARTITION_EOF:
                # Only the end-of-partition event passes the control records that end transactions.
                self._reached[partition] = message.offset()
                self._at_end.add(partition)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise BrokerError(
                    "What comes next is not in the topic any more: its retention deleted it before it was read.",
                    f"{partition[0]}, partition {partition[1]}",
                    "start again: it is said what is missing, and the rest is read",
                )
            elif not error.retriable() and not (self._patient and error.code() in PASSING):
                raise BrokerError(f"Reading failed: {error.str()}.", partition[0], "is the broker still there?")

    def ends(self) -> dict[tuple[str, int], int]:
        """The position after the last committed record of every partition, by (real topic name, partition)."""
        return {(topic, number): self._end(topic, number) for topic, number in self._partitions}

    def _end(self, topic: str, number: int) -> int:
        give_up = time.monotonic() + _REQUEST_TIMEOUT_S
        while True:
            try:
                return self._consumer.get_watermark_offsets(TopicPartition(topic, number), _REQUEST_TIMEOUT_S)[1]
            except KafkaException as error:
                # A topic that was made a moment ago: the client has yet to hear who leads its partitions.
                told: KafkaError = error.args[0]
                if told.code() not in PASSING or time.monotonic() > give_up:
                    raise BrokerError(f"The Kafka does not answer: {told.str()}.", topic) from None
                time.sleep(0.05)

    @property
    def partitions(self) -> list[tuple[str, int]]:
        """What is read: (topic, partition)."""
        return [(self._names[topic], number) for topic, number in self._partitions]

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """What comes next, by (topic, partition); a partition from which nothing has come is not there."""
        return {(self._names[topic], number): position for (topic, number), position in self._reached.items()}

    @property
    def at_end(self) -> bool:
        """Whether every partition was read to where it ended when it was last heard of."""
        return len(self._at_end) == len(self._partitions)

    def behind(self) -> int:
        """How many positions lie between what was read and the present ends."""
        return sum(max(0, end - self._reached.get(partition, 0)) for partition, end in self.ends().items())

    def bounds(self) -> dict[tuple[str, int], tuple[int, int]]:
        """The first position and the end of every partition, by (topic, partition)."""
        found = {}
        for topic, number in self._partitions:
            partition = TopicPartition(topic, number)
            found[self._names[topic], number] = self._consumer.get_watermark_offsets(partition, _REQUEST_TIMEOUT_S)
        return found

    def positions_at(self, time_ms: int) -> dict[tuple[str, int], int]:
        """The position of the first record of each partition not older than `time_ms`; the end if there is none."""
        asked = [TopicPartition(topic, number, time_ms) for topic, number in self._partitions]
        ends = self.ends()
        return {
            (self._names[at.topic], at.partition): at.offset if at.offset >= 0 else ends[at.topic, at.partition]
            for at in self._consumer.offsets_for_times(asked, _REQUEST_TIMEOUT_S)
        }

    def read_to_end(self) -> Iterator[Record]:
        """All records up to where the topics end now."""
        ends = self.ends()
        while any(self._reached.get(partition, 0) < end for partition, end in ends.items()):
            yield from self.read(10_000, 0.1)

    def close(self) -> None:
        """Let go of the connection."""
        if self._unsealed is not None:
            self._unsealed.close()
        self._consumer.close()

    def __enter__(self) -> "TopicReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def topic_partitions(settings: Settings, topics: Iterable[str]) -> list[tuple[tuple[str, int], TopicPartition]]:
    """Every partition of the topics: (topic, partition) and what the client calls it."""
    with TopicReader(settings, topics) as reader:
        return [(place, TopicPartition(settings.topic(place[0]), place[1])) for place in reader.partitions]


def watermarks(settings: Settings, topics: Iterable[str]) -> dict[tuple[str, int], tuple[int, int]]:
    """The first position and the end (read committed) of every partition, by (topic, partition)."""
    with TopicReader(settings, topics) as reader:
        return reader.bounds()


def positions_at(settings: Settings, topics: Iterable[str], time_ms: int) -> dict[tuple[str, int], int]:
    """The position of the first record of each partition that is not older than `time_ms`, by (topic, partition)."""
    with TopicReader(settings, topics) as reader:
        return reader.positions_at(time_ms)


def _record(message: Any, names: dict[str, str]) -> Record:
    return Record(
        names[message.topic()],
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        message.timestamp()[1],
    )


def current_values(settings: Settings, topic: str, key: bytes | None = None) -> dict[bytes, bytes]:
    """The present content of a compacted topic: the last value of each key, without what was tombstoned.

    With `key`, only the partition in which it would be is read.
    """
    values: dict[bytes, bytes] = {}
    with TopicReader(settings, [topic], key=key) as reader:
        for record in reader.read_to_end():
            assert record.key is not None
            if record.value is None:
                values.pop(record.key, None)
            else:
                values[record.key] = record.value
    return values


def current_value(settings: Settings, topic: str, key: bytes) -> bytes | None:
    """The present value of one key of a compacted topic. All of its partition is read, and nothing else of it kept."""
    value = None
    with TopicReader(settings, [topic], key=key) as reader:
        for record in reader.read_to_end():
            if record.key == key:
                value = record.value
    return value


def produce_all(
    settings: Settings,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None] | tuple[bytes | None, bytes | None, int]],
    progress: Callable[[int], None] = lambda acknowledged: None,
    partition: int = -1,
) -> int:
    """Produce (key, value) pairs to a topic; returns how many were acknowledged by all in-sync replicas. Without a
    `partition`, murmur2 of the key chooses it.

    A third part is the timestamp of the record in ms; without one, or with 0, it is now.

    Raises:
        BrokerError: a record was refused or could not be delivered. What was acknowledged before stays.
    """
    # A record has the timestamp as a third part, or none.
    placed = ((topic, partition, one[0], one[1], one[2] if len(one) > 2 else 0) for one in records)
    return produce_to(settings, placed, progress)


def produce_to(
    settings: Settings,
    records: Iterable[tuple[str, int, bytes | None, bytes | None, int]],
    progress: Callable[[int], None] = lambda acknowledged: None,
) -> int:
    """`produce_all` into several topics, with one client for all of them: (topic, partition, key, value, timestamp).
    A partition of -1 is chosen by the key, a timestamp of 0 is now."""
    producer = Producer(
        {
            **quiet_properties(settings),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": _MAX_IN_QUEUE * 2,
        }
    )
    acknowledged = 0
    failure: KafkaError | None = None

    def delivered(error: KafkaError | None, message: Message) -> None:
        nonlocal acknowledged, failure
        refused = refusal(error, message)
        if refused is None:
            acknowledged += 1
        else:
            failure = failure or refused

    physical, written = "", values_of(settings).written
    reported = 0
    try:
        for topic, partition, key, value, timestamp_ms in records:
            physical, value = settings.topic(topic), written(topic, value)
            while len(producer) > _MAX_IN_QUEUE:
                producer.poll(0.05)
                progress(acknowledged)
            while failure is None:
                try:
                    producer.produce(physical, value, key, partition, timestamp=timestamp_ms, on_delivery=delivered)
                    break
                except BufferError:
                    # Large records fill the queue before there are many.
                    producer.poll(0.05)
                    progress(acknowledged)
            if acknowledged - reported >= 1000:
                reported = acknowledged
                progress(acknowledged)
            producer.poll(0)
            if failure is not None:
                break
        while len(producer) and failure is None:
            producer.poll(0.1)
            progress(acknowledged)
    except CLIENT_ERRORS as error:
        # A record that is refused at once; or what is fatal, which any call raises that serves the client's events.
        failure = failure or told_by(error)
    progress(acknowledged)
    if failure is not None:
        raise BrokerError(
            f"A record could not be produced: {failure.str()}.",
            f"{physical}, after {acknowledged} acknowledged records",
            "mend the cause and produce the file again: records that have arrived are recognised as duplicates",
        )
    return acknowledged


class GroupPositions:
    """Tells how far groups are. Keeps its connection, so it can be asked every second."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        properties = {**quiet_properties(settings), "client.id": "headwater-positions"}
        self._admin = AdminClient(properties)
        self._committed = CommittedPositions(properties)

    def __call__(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
        """Name of a group (without the prefix) and its topics → (committed, end), summed over the partitions.

        A partition nobody has committed yet counts as committed at its beginning. Positions count the control records
        of transactions too, so a group at rest may stay a few behind the end.
        """
        metadata = self._admin.list_topics(timeout=_REQUEST_TIMEOUT_S).topics
        found = {}
        for group, topics in groups.items():
            names = [name for name in map(self._settings.topic, topics) if name in metadata]
            partitions = [TopicPartition(name, number) for name in names for number in metadata[name].partitions]
            if partitions:
                found[group] = self._position(self._settings.prefix + group, partitions)
        return found

    def now(self, groups: Mapping[str, Sequence[str]]) -> dict[str, tuple[int, int]]:
        """The same for who looks again in a moment: empty while the broker does not say (a leader is being elected)."""
        try:
            return self(groups)
        except (KafkaException, TimeoutError):
            return {}

    def notes(self) -> dict[str, list[str]]:
        """What each group (without the prefix) kept beside its positions, as of when it was last asked."""
        return {name.removeprefix(self._settings.prefix): notes for name, notes in self._committed.notes.items()}

    def _position(self, group: str, partitions: list[TopicPartition]) -> tuple[int, int]:
        committed = self._committed(group, partitions, _REQUEST_TIMEOUT_S)
        starts = list_offsets(self._admin, partitions, latest=False)
        ends = list_offsets(self._admin, partitions, latest=True)
        return sum(max(at, starts[partition]) for partition, at in committed.items()), sum(ends.values())


PartitionPositions = dict[tuple[str, int], int]
"""(topic, partition) → position."""


def committed_positions(settings: Settings, groups: Mapping[str, str]) -> PartitionPositions:
    """How far groups (named without the prefix) have come with the topic each reads, by its partitions."""
    properties = {**quiet_properties(settings), "client.id": "headwater-positions"}
    committed = CommittedPositions(properties)
    metadata = AdminClient(properties).list_topics(timeout=_REQUEST_TIMEOUT_S).topics
    found: PartitionPositions = {}
    for group, topic in groups.items():
        physical = settings.topic(topic)
        if physical in metadata:
            partitions = [TopicPartition(physical, number) for number in metadata[physical].partitions]
            told = committed(settings.prefix + group, partitions, _REQUEST_TIMEOUT_S)
            found |= {(topic, number): at for (_, number), at in told.items()}
    return found


def waiting(settings: Settings, groups: Mapping[str, str]) -> dict[str, int]:
    """How many records wait for groups (named without the prefix) in the topic each reads. Where few positions are left
    the records are counted, for what is left may be the ends of transactions only, which nobody is given."""
    topics = {group: [topic] for group, topic in groups.items()}
    counts = {group: max(0, end - reached) for group, (reached, end) in GroupPositions(settings)(topics).items()}
    few = {group: groups[group] for group, count in counts.items() if 0 < count <= _FEW}
    committed = committed_positions(settings, few)
    for group, topic in few.items():
        places = {at: max(0, position) for at, position in committed.items() if at[0] == topic}
        with TopicReader(settings, [topic], only=places) as reader:
            counts[group] = sum(1 for _ in reader.read_to_end())
    return counts


def list_offsets(
    admin: AdminClient, partitions: Sequence[TopicPartition], *, latest: bool
) -> dict[tuple[str, int], int]:
    """The ends (or the beginnings) of partitions, by (real topic name, partition)."""
    spec = OffsetSpec.latest() if latest else OffsetSpec.earliest()
    futures = admin.list_offsets(dict.fromkeys(partitions, spec))
    return {(at.topic, at.partition): future.result(_REQUEST_TIMEOUT_S).offset for at, future in futures.items()}
