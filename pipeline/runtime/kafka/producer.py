"""The transactional producer of a slot, and the admin requests beside the loop.

A commit is answered before the broker has written its markers, and until it has, the next transaction of the same id
is refused; librdkafka then waits 20 ms, whatever its settings. A slot may have two ids, so that its transactions take
turns: one begins while the markers of the one before it are still being written. Nothing else changes. There is one
open transaction at a time; records stand in the log in the order of the transactions; a reader sees none of the
second before the markers of the first; and whoever takes over the slot fences both ids before it asks for positions.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

from confluent_kafka import (
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as UntypedOffsetSpec

from pipeline.identifiers import partition_of
from pipeline.runtime.adapters import NO_NOTES, Membership, Outgoing, Partition
from pipeline.runtime.errors import Abortable, Fatal, Retriable, RuntimeFault
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.errors import CLIENT_ERRORS, fault_of, passing_or_fatal, refusal
from pipeline.runtime.kafka.lifeline import LOST

log = logging.getLogger(__name__)
OffsetSpec: Any = UntypedOffsetSpec  # the package ships no types for it
_FULL_PAUSE_S = 0.01
_METADATA_WITHIN_S = 5.0
_HEARD_WITHIN_S = 2.0
_ABORT_CALL_S = 0.5
# Brokers forget a producer that has not written to a partition for a day (`producer.id.expiration.ms`).
_FORGETS_AFTER_S = 3_600.0
# Hashing a key in Python costs more than producing a record.
_MOST_PARTITIONS_KNOWN = 50_000
_NOT_TOLD = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._UNSUPPORTED_FEATURE,
    }
)


class _Names(dict[str, str]):
    """Logical to real topic names, filled as they are asked for."""

    def __init__(self, config: KafkaConfig) -> None:
        super().__init__()
        self._config = config

    def __missing__(self, topic: str) -> str:
        name = self[topic] = self._config.topic_name(topic)
        return name


class KafkaProducer:
    """The transactional producer of a slot: a client for each of its ids, of which one has a transaction."""

    def __init__(self, config: KafkaConfig, role: str) -> None:
        self._names = _Names(config)
        self._properties = dict(config.properties)
        self._values = config.values
        self._clients = [Producer(config.producer(name)) for name in config.transactional_ids(role)]
        self._waiting = list(self._clients)
        self._turn = 0
        self._producer = self._clients[0]
        self._highest: dict[Partition, int] = {}
        self._counts: dict[str, int] = {}
        self._partitions: dict[str, dict[bytes, int]] = {}
        # Of each client, by topic, the partitions to which it has written.
        self._met: list[dict[str, set[int]]] = [{} for _ in self._clients]
        self._met_here = self._met[0]
        self._forgets_at = 0.0
        self._unknown = ""

    def init(self, timeout_s: float) -> None:
        # A client that has succeeded must not be asked again, when another one has to be.
        while self._waiting:
            with self._answering("init transactions", self._waiting[0]):
                self._waiting[0].init_transactions(timeout_s)
            del self._waiting[0]

    def begin(self) -> None:
        self._highest = {}
        self._unknown = ""
        if time.monotonic() > self._forgets_at:
            self._forgets_at = time.monotonic() + _FORGETS_AFTER_S
            self._forget()
        self._producer, self._met_here = self._clients[self._turn], self._met[self._turn]
        self._turn = (self._turn + 1) % len(self._clients)
        with _told("begin"):
            self._producer.begin_transaction()

    def send(self, records: Iterable[Outgoing]) -> None:
        produce, names = self._producer.produce, self._names
        written = self._values.written if self._values.writes_avro else None
        at = ""
        partitions: set[int] = set()
        for topic, value, key, chosen in records:
            if written is not None:
                value = written(topic, value)
            partition = chosen if isinstance(chosen, int) else self._partition_by(topic, chosen)
            if topic != at:
                at, partitions = topic, self._met_here.setdefault(topic, set())
            if partition not in partitions:
                partitions.add(partition)
                self._send_told(topic, value, key, partition, self._told_of_first)
                continue
            try:
                produce(names[topic], value, key, partition)
            except BufferError:
                self._wait_and_produce(topic, value, key, partition)
            except KafkaException as error:
                raise self._refused(error, topic) from error

    def send_changelog(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        if not records:
            return
        self.send((topic, value, key, partition) for key, value in records[:-1])
        highest = self._highest

        # Of an idempotent producer, the last record of a partition has the highest offset: one report is enough.
        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if error is None and offset is not None and offset >= 0:
                highest[(topic, partition)] = offset
            self._told_of_first(error, message)

        key, value = records[-1]
        self._send_told(topic, value, key, partition, delivered)

    def _send_told(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, told: Callable[..., None]
    ) -> None:
        """Hand over a record whose report is wanted."""
        try:
            self._producer.produce(self._names[topic], value, key, partition, on_delivery=told)
        except BufferError:
            self._wait_and_produce(topic, value, key, partition, on_delivery=told)
        except KafkaException as error:
            raise self._refused(error, topic) from error

    def _told_of_first(self, error: KafkaError | None, message: Message) -> None:
        """Of the first record in a partition: it may only be taken for written (`errors.refusal`). What comes later
        may not: the broker lets no sequence that it has seen the beginning of have a gap."""
        if error is None and refusal(error, message) is not None:
            self._unknown = message.topic() or ""

    def _forget(self) -> None:
        for met in self._met:
            met.clear()

    def _partition_by(self, topic: str, key: bytes) -> int:
        if self._counts.get(topic) == 1:
            return 0
        known = self._partitions.setdefault(topic, {})
        partition = known.get(key)
        if partition is None:
            # Whoever comes often is soon known again.
            if len(known) >= _MOST_PARTITIONS_KNOWN:
                known.clear()
            partition = known[key] = self._ask_partition(topic, key)
        return partition

    def _ask_partition(self, topic: str, key: bytes) -> int:
        count = self._counts.get(topic)
        if count is None:
            name = self._names[topic]
            try:
                known = self._producer.list_topics(name, timeout=_METADATA_WITHIN_S).topics[name]
            except KafkaException as error:
                fault = passing_or_fatal(error, f"asking for the partitions of {topic}")
                raise Abortable(str(fault)) if isinstance(fault, Retriable) else fault from error
            if not known.partitions:
                raise Abortable(f"the partitions of {topic} are not known")
            count = self._counts[topic] = len(known.partitions)
        return partition_of(key, count)

    def _wait_and_produce(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, **report: Any
    ) -> None:
        while True:
            try:
                self._producer.poll(_FULL_PAUSE_S)
                self._producer.produce(self._names[topic], value, key, partition, **report)
                return
            except BufferError:
                continue
            except CLIENT_ERRORS as error:
                raise self._refused(error, topic) from error

    def _refused(self, error: KafkaException | SystemError, topic: str) -> RuntimeFault:
        what = f"producing to {topic}"
        return self._failed(what) or fault_of(error, what)

    def _failed(self, what: str) -> RuntimeFault | None:
        """Why the transaction has failed already, if it has: of a record that the broker has refused only calls that
        end transactions tell. Asked to begin another one, the client says it too, or that one is under way."""
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            return None if error.args[0].code() == KafkaError._STATE else fault_of(error, what)
        return None

    @contextmanager
    def _answering(self, what: str, client: Producer) -> Iterator[None]:
        """A call that is repeated until it is answered, as long as it can be."""
        try:
            with _told(what):
                yield
        except Retriable as unanswered:
            raise self._unless_lost(unanswered, client) from unanswered

    def _unless_lost(self, fault: RuntimeFault, client: Producer) -> RuntimeFault:
        """Fatal, if the client has lost every broker for good: it hears of none while another one does. (Statistics
        would tell it too, but only to who polls, and a producer may rest for days.)"""
        if not isinstance(fault, Retriable) or _hears(client):
            return fault
        # Asked once more: the broker may have come back in between.
        is_lost = _hears(AdminClient(self._properties)) and not _hears(client)
        return Fatal(f"{fault}: {LOST}") if is_lost else fault

    def flush(self, timeout_s: float) -> dict[Partition, int]:
        with _told("flush"):
            left = self._producer.flush(timeout_s)
        if left:
            # What follows a refused record in its partition is not sent any more, however long it is waited for.
            fault = self._failed("flush") or Retriable(f"{left} records are not in the log yet")
            raise self._unless_lost(fault, self._producer)
        if self._unknown:
            raise Abortable(f"flush: it is not known whether a record was written to {self._unknown}")
        return self._highest

    def send_offsets(
        self,
        positions: Mapping[Partition, int],
        membership: Membership,
        timeout_s: float,
        notes: Mapping[Partition, str] = NO_NOTES,
    ) -> None:
        offsets = [
            TopicPartition(self._names[topic], number, at, notes.get((topic, number), ""))
            for (topic, number), at in positions.items()
        ]
        with _told("sending the offsets"):
            self._producer.send_offsets_to_transaction(offsets, membership.token, timeout_s)

    def commit(self, timeout_s: float) -> None:
        with self._answering("commit", self._producer):
            self._producer.commit_transaction(timeout_s)

    def abort(self, timeout_s: float) -> None:
        with self._answering("abort", self._producer):
            self._abort(timeout_s)

    def _abort(self, timeout_s: float) -> None:
        """By several calls: each lets go of what waits to be sent, once, as it begins. What the broker refuses after
        that, as it came behind a refused record, the client queues again until the transaction has ended, and does not
        end it before the queue is empty (docs/decisions/an-abort-is-asked-for-again.md)."""
        self._forget()
        until = time.monotonic() + timeout_s
        while True:
            left_s = max(0.0, until - time.monotonic())
            try:
                self._producer.abort_transaction(min(left_s, _ABORT_CALL_S))
                return
            except KafkaException as error:
                if left_s <= _ABORT_CALL_S or error.args[0].code() != KafkaError._TIMED_OUT:
                    raise

    def close(self) -> None:
        for client in self._clients:
            client.purge()
            # One that was fenced says so once more.
            with suppress(*CLIENT_ERRORS):
                client.flush(0)


class KafkaAdmin:
    """Requests beside the loop."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._admin = AdminClient(dict(config.properties))
        self._asked: dict[str, Future[Any]] = {}
        self._lately: dict[str, str] = {}

    def partition_counts(self, topics: Sequence[str], timeout_s: float) -> dict[str, int]:
        try:
            known = self._admin.list_topics(timeout=timeout_s).topics
        except KafkaException as error:
            raise passing_or_fatal(error, "asking for the topics") from error
        real = {topic: known.get(self._config.topic_name(topic)) for topic in topics}
        return {topic: len(found.partitions) for topic, found in real.items() if found is not None and not found.error}

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> dict[str, str]:
        asked = self._ask(topics, timeout_s)
        told = {topic: _id_of(future, timeout_s) for topic, future in asked.items()}
        return {topic: id for topic, id in told.items() if id is not None}

    def topic_ids_lately(self, topics: Sequence[str]) -> dict[str, str]:
        if all(future.done() for future in self._asked.values()):
            for topic, future in self._asked.items():
                id = _id_of(future, 0.0) if future.exception() is None else None
                if id is not None:
                    self._lately[topic] = id
            self._asked = self._ask(topics, _METADATA_WITHIN_S)
        return self._lately

    def _ask(self, topics: Sequence[str], timeout_s: float) -> dict[str, "Future[Any]"]:
        names = {self._config.topic_name(topic): topic for topic in topics}
        asked = self._admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
        return {names[name]: future for name, future in asked.items()}

    def ends(self, topics: Sequence[str], timeout_s: float) -> dict[Partition, tuple[int, int]]:
        try:
            known = self._admin.list_topics(timeout=timeout_s).topics
            wanted = {name: topic for topic in topics for name, topic in self._named(topic, known)}
            spec = OffsetSpec.latest()
            partitions = {TopicPartition(name, number): spec for name in wanted for number in known[name].partitions}
            if not partitions:
                return {}
            # The end first: what passes it meanwhile cannot look like an open transaction.
            high = self._offsets(partitions, IsolationLevel.READ_UNCOMMITTED, timeout_s)
            stable = self._offsets(partitions, IsolationLevel.READ_COMMITTED, timeout_s)
        except (KafkaException, TimeoutError) as error:
            raise self._anew(error, "asking for the ends of outputs") from error
        return {(wanted[name], number): (min(stable[name, number], at), at) for (name, number), at in high.items()}

    def positions_at(self, partitions: Sequence[Partition], time_ms: int, timeout_s: float) -> dict[Partition, int]:
        real = {(self._config.topic_name(topic), number): (topic, number) for topic, number in partitions}
        wanted = {TopicPartition(*at): OffsetSpec.for_timestamp(time_ms) for at in real}
        try:
            found = self._offsets(wanted, IsolationLevel.READ_UNCOMMITTED, timeout_s) if wanted else {}
            late = {TopicPartition(*at): OffsetSpec.latest() for at, offset in found.items() if offset < 0}
            if late:
                found |= self._offsets(late, IsolationLevel.READ_UNCOMMITTED, timeout_s)
        except (KafkaException, TimeoutError) as error:
            raise self._anew(error, "asking for positions by time") from error
        return {real[at]: offset for at, offset in found.items()}

    def _named(self, topic: str, known: Mapping[str, Any]) -> list[tuple[str, str]]:
        """(real name, logical name) of what this stands for and is there."""
        name = self._config.topic_name(topic)
        if not topic.endswith("."):
            return [(name, topic)] if name in known else []
        return [(each, topic + each.removeprefix(name)) for each in known if each.startswith(name)]

    def _offsets(
        self, wanted: Mapping[TopicPartition, Any], level: IsolationLevel, timeout_s: float
    ) -> dict[tuple[str, int], int]:
        futures = self._admin.list_offsets(dict(wanted), isolation_level=level, request_timeout=timeout_s)
        return {(at.topic, at.partition): future.result(timeout_s + 1.0).offset for at, future in futures.items()}

    def _anew(self, error: Exception, what: str) -> Retriable:
        """An admin client goes on asking with the leader epochs it once learned, and is refused for ever after a
        broker's restart: the next question is a new one's."""
        self._admin, self._asked = AdminClient(dict(self._config.properties)), {}
        return Retriable(f"{what}: {error}")

    def delete_records(self, positions: Mapping[Partition, int]) -> None:
        wanted = [TopicPartition(self._config.topic_name(topic), n, at) for (topic, n), at in positions.items()]
        for partition, future in self._admin.delete_records(wanted).items():
            future.add_done_callback(lambda done, partition=partition: _note(done, partition))  # type: ignore[misc]


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What a call of the client raises is one of the runtime's errors."""
    try:
        yield
    except CLIENT_ERRORS as error:
        raise fault_of(error, what) from error


def _hears(client: Producer | AdminClient) -> bool:
    """Whether a broker answers to this client."""
    try:
        client.list_topics(timeout=_HEARD_WITHIN_S)
    except KafkaException:
        return False
    return True


def _id_of(asked: "Future[Any]", timeout_s: float) -> str | None:
    """The id of a topic; None of one that is not there, or that this user may not describe."""
    try:
        return str(asked.result(timeout_s + 1.0).topic_id)
    except KafkaException as error:
        told: KafkaError = error.args[0]
        if told.code() in _NOT_TOLD:
            return None
        raise passing_or_fatal(error, "asking for the ids of topics") from error
    except TimeoutError as error:
        raise Retriable("the ids of the topics are not known") from error


def _note(done: "Future[Any]", partition: TopicPartition) -> None:
    error = done.exception()
    if error is not None:
        # The next trim asks again; records that stay cost only space.
        log.warning("records below %s of %s were not deleted: %s", partition.offset, partition.topic, error)
