"""The log as an apply writes it: definitions, and the marks of a new generation, in one transaction.

Every apply of a workspace has the same transactional id. So a second one that starts fences the first, and what it
then reads is all that was ever applied; and what an apply wrote is there as a whole or not at all.
"""

import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.errors import BrokerError, TopicsError
from pipeline.runtime.errors import Abortable, Retriable, RuntimeFault
from pipeline.runtime.kafka.errors import CLIENT_ERRORS, fault_of, refusal
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings
from pipeline.wire import values_of

_CALL_S = 5.0
_GIVE_UP_S = 60.0
_PAUSE_S = 0.1
_READABLE_WITHIN_S = 10.0
_BUSY = "another `headwater apply` took over, or the broker is not well; see what is in force, and apply again"
_TAKEN_OVER = "another process does the same and took over, or the broker is not well; started again, it goes on"


class ApplyTransaction:
    """One apply. Opening it ends every former one of the workspace, whatever state it was in.

    Raises BrokerError when the broker does not do what is asked of it.
    """

    def __init__(self, settings: Settings, writer: str = "apply") -> None:
        """`writer` names the transactional id: each kind of writer ends former ones of its own kind only."""
        self._settings = settings
        is_apply = writer == "apply"
        self._stopped = "The apply stopped" if is_apply else f"Writing as {settings.prefix}{writer} stopped"
        self._unwritten = "The definitions could not be written" if is_apply else self._stopped
        self._what_to_do = _BUSY if is_apply else _TAKEN_OVER
        self._producer = Producer(
            {
                **quiet_properties(settings),
                "transactional.id": f"{settings.prefix}{writer}",
                "transaction.timeout.ms": 30_000,
                "linger.ms": 0,
                "compression.type": "lz4",
                "message.max.bytes": 8 * 1024 * 1024,
                "partitioner": "murmur2_random",
            }
        )
        self._reader = Consumer(
            {
                **quiet_properties(settings),
                "group.id": f"{settings.prefix}{writer}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        self._call("beginning", lambda: self._producer.init_transactions(_CALL_S))

    def partitions(self, topic: str) -> int:
        """The partition count of a topic. TopicsError if it is not there."""
        name = self._settings.topic(topic)
        try:
            found = AdminClient(quiet_properties(self._settings)).list_topics(name, timeout=15).topics[name]
        except KafkaException as error:
            raise BrokerError(f"The Kafka does not answer: {error.args[0].str()}.") from None
        if found.error is not None or not found.partitions:
            raise TopicsError(
                f"The topic {name} does not exist.", name, "create the workspace's topics: headwater topics --create"
            )
        return len(found.partitions)

    def write(self, records: Iterable[tuple[str, int, bytes | None, bytes | None]]) -> None:
        """Write (topic, partition, key, value) records, all or none, in order within each partition. When it returns, a
        reader of committed records sees them."""
        self._call("opening a transaction", self._producer.begin_transaction)
        last: dict[tuple[str, int], int] = {}
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            why = refusal(error, message)
            if why is not None:
                refused.append(why)
            else:
                last[message.topic() or "", message.partition() or 0] = message.offset() or 0

        try:
            written = values_of(self._settings).written
            for topic, partition, key, value in records:
                self._producer.produce(
                    self._settings.topic(topic),
                    written(topic, value),
                    key,
                    partition,
                    on_delivery=delivered,
                )
            if self._producer.flush(_GIVE_UP_S) or refused:
                told = refused[0].str() if refused else "no answer in a minute"
                raise BrokerError(f"{self._unwritten}: {told}.", "", self._what_to_do)
        except (BrokerError, BufferError, *CLIENT_ERRORS) as error:
            self._abort()
            if isinstance(error, BrokerError):
                raise
            why = error if isinstance(error, BufferError) else fault_of(error, "writing")
            raise BrokerError(f"{self._unwritten}: {why}.", "", self._what_to_do) from error
        try:
            self._call("committing", lambda: self._producer.commit_transaction(_CALL_S))
        except Abortable as error:
            self._abort()
            raise BrokerError(f"{self._unwritten}: {error}.", "", self._what_to_do) from None
        self._until_readable(last)

    def _until_readable(self, last: dict[tuple[str, int], int]) -> None:
        """A commit is answered before its markers are written, and until then nobody reads what was committed."""
        give_up = time.monotonic() + _READABLE_WITHIN_S
        for (topic, partition), offset in last.items():
            while time.monotonic() < give_up:
                try:
                    bounds = self._reader.get_watermark_offsets(TopicPartition(topic, partition), _CALL_S)
                except KafkaException:
                    bounds = None
                if bounds is not None and bounds[1] > offset:
                    break
                time.sleep(_PAUSE_S / 10)

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(_CALL_S)
        except CLIENT_ERRORS:
            pass  # fenced, or out of reach: the broker aborts it by itself, and nobody reads it before that

    def _call(self, what: str, call: Callable[[], None]) -> None:
        """Repeat the very same call while it may yet succeed: a commit without an answer may have happened."""
        give_up = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                call()
                return
            except CLIENT_ERRORS as error:
                fault: RuntimeFault = fault_of(error, what)
                if isinstance(fault, Abortable):
                    raise fault from None
                if not isinstance(fault, Retriable) or time.monotonic() > give_up:
                    raise BrokerError(f"{self._stopped} while {fault}.", "", self._what_to_do) from None
                time.sleep(_PAUSE_S)

    def close(self) -> None:
        """Let go of the connections. What was written is told by then: a producer that was fenced says so once more."""
        self._reader.close()
        with warnings.catch_warnings(), suppress(*CLIENT_ERRORS):
            warnings.simplefilter("ignore", RuntimeWarning)
            self._producer.close()
