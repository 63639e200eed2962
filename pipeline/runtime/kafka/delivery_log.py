"""One destination's deliveries on a real Kafka."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from pipeline.deliver.ports import DeadLetterRecord, Listener
from pipeline.errors import BrokerError
from pipeline.runtime.kafka.arrivals import take
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.errors import CLIENT_ERRORS, PASSING, refusal, told_by
from pipeline.runtime.kafka.lifeline import LOST, Lifeline
from pipeline.runtime.ports import Record
from pipeline.topology import DELIVERIES

_REQUEST_S = 15.0
_GIVE_UP_S = 60.0
_DEAD_LETTERS = "dead-letters"
_PROGRESS = "privacy-progress"
_BY_KEY = -1

_log = logging.getLogger(__name__)


class KafkaDeliveryLog:
    """A static member of the group of one destination."""

    def __init__(self, config: KafkaConfig, destination: str, source: str = "raw") -> None:
        """`source`: the logical name of the topic that takes what is said of deliveries."""
        self._values = config.values
        self._source = source
        self._topic = DELIVERIES.name + destination
        self._real = config.topic_name(self._topic)
        self._topic_name = config.topic_name
        self._lifeline = Lifeline()
        self._consumer = Consumer(
            {
                **config.consumer(f"deliver-{destination}"),
                **self._lifeline.properties,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                # What is not yet delivered waits in the topic, not in every destination's memory.
                "queued.min.messages": 2_000,
                "queued.max.messages.kbytes": 4_096,
                "on_commit": self._committed,
            }
        )
        self._producer = Producer(
            {
                **config.properties,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": config.max_message_bytes,
                "partitioner": "murmur2_random",
            }
        )
        self._assigned: list[TopicPartition] = []
        self._paused = False

    def subscribe(self, listener: Listener) -> None:
        def on_assign(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            positions = self._positions(partitions)
            self._assigned = [TopicPartition(self._real, number) for number in positions]
            consumer.assign([TopicPartition(self._real, number, at) for number, (at, _) in positions.items()])
            if self._paused and self._assigned:
                consumer.pause(self._assigned)
            listener.assigned(positions)

        def on_revoke(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            self._assigned = []
            listener.revoked([each.partition for each in partitions])
            consumer.unassign()

        def on_lost(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            self._assigned = []
            listener.lost([each.partition for each in partitions])
            consumer.unassign()

        self._consumer.subscribe([self._real], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)

    def _positions(self, partitions: list[TopicPartition]) -> dict[int, tuple[int, str]]:
        """Where to begin in each partition: the group's position, or where the topic begins."""
        found = {}
        for told in self._patiently(lambda: self._consumer.committed(partitions, _REQUEST_S)):
            low, _ = self._patiently(lambda told=told: self._consumer.get_watermark_offsets(told, _REQUEST_S))
            if told.offset < 0:
                found[told.partition] = low, ""
                continue
            if told.offset < low:
                _log.error(
                    "%s/%d: deliveries %d to %d were deleted by the topic's retention before they were delivered; "
                    "give the topic a longer retention.ms, or mend the destination earlier",
                    self._real,
                    told.partition,
                    told.offset,
                    low,
                )
            found[told.partition] = max(told.offset, low), told.metadata or "" if told.offset >= low else ""
        return found

    def _patiently(self, call: Any) -> Any:
        give_up = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                return call()
            except KafkaException as error:
                told: KafkaError = error.args[0]
                if told.code() not in PASSING or time.monotonic() > give_up:
                    raise BrokerError(f"The Kafka does not answer: {told.str()}.", self._real) from None
                time.sleep(0.1)

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        messages: Any = take(self._consumer, limit, timeout_s)
        if self._lifeline.is_cut:
            raise BrokerError(f"Reading deliveries failed: {LOST}.", self._real, "start the role again")
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(
                    Record(
                        self._topic,
                        message.partition(),
                        message.offset(),
                        message.key(),
                        message.value(),
                        message.timestamp()[1],
                    )
                )
            elif error.code() not in PASSING | {KafkaError.UNKNOWN_TOPIC_OR_PART}:
                raise BrokerError(
                    f"Reading deliveries failed: {error.str()}.",
                    self._real,
                    "another worker may run in the same slot: give each its own --slot"
                    if error.code() == KafkaError._FATAL
                    else "see that the broker is well; then start the role again",
                )
        return self._values.opened(records)

    def pause(self) -> None:
        self._paused = True
        if self._assigned:
            self._consumer.pause(self._assigned)

    def resume(self) -> None:
        self._paused = False
        if self._assigned:
            self._consumer.resume(self._assigned)

    def commit(self, positions: Mapping[int, tuple[int, str]], wait: bool = False) -> None:
        if not positions:
            return
        offsets = [TopicPartition(self._real, number, at, note) for number, (at, note) in positions.items()]
        try:
            if wait:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            self._committed(error.args[0], offsets)

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if error is not None and error.code() != KafkaError._NO_OFFSET:
            _log.warning("%s: the progress was not kept (%s); a restart would repeat more", self._real, error.str())

    def put_aside(self, letters: Sequence[DeadLetterRecord]) -> None:
        self._write(_DEAD_LETTERS, letters, "Dead letters")

    def tell_progress(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        self._write(_PROGRESS, [(0, key, value) for key, value in records], "What was erased")

    def tell_outcomes(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        self._write(self._source, [(_BY_KEY, key, value) for key, value in records], "What became of deliveries")

    def _write(self, topic: str, records: Sequence[DeadLetterRecord], what: str) -> None:
        refused: list[KafkaError] = []

        def told(error: KafkaError | None, message: Message) -> None:
            why = refusal(error, message)
            if why is not None:
                refused.append(why)

        name = self._topic_name(topic)
        left = 0
        try:
            for partition, key, value in records:
                written = self._values.written(topic, value)
                while True:
                    try:
                        self._producer.produce(name, written, key, partition, on_delivery=told)
                        break
                    except BufferError:
                        self._producer.poll(0.05)
            left = self._producer.flush(_GIVE_UP_S)
        except CLIENT_ERRORS as error:
            # A record that is refused at once; or what is fatal, which any call raises that serves the client's events.
            refused.insert(0, told_by(error))
        if left or refused:
            why = refused[0].str() if refused else f"{left} were not acknowledged in {_GIVE_UP_S:.0f} s"
            raise BrokerError(f"{what} could not be written: {why}.", name, "see that the broker is well")

    def close(self) -> None:
        self._consumer.close()
        # All that matters was waited for; a producer that is broken for good says so here once more.
        with suppress(*CLIENT_ERRORS):
            self._producer.flush(_REQUEST_S)
