"""Sending records from an event loop, and knowing when they are kept.

Delivery reports are taken from librdkafka's queue by the loop itself, every millisecond while any is awaited. A thread
that waits for them would have to be given the interpreter once per record while the loop is busy: measured in
docs/decisions/delivery-reports-on-the-loop.md.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.runtime.errors import NotAcknowledged
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings

_POLL_S = 0.001
_MAX_QUEUED = 200_000
_TIMEOUT_S = 2.0


class _Pending:
    """Records of one request that are on their way."""

    __slots__ = ("failed", "future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int) -> None:
        self.future = future
        self.left = left
        self.failed: KafkaError | None = None

    def delivered(self, error: KafkaError | None, _: Any) -> None:
        self.left -= 1
        if error is not None:
            self.failed = error
        if self.left == 0 and not self.future.done():
            if self.failed is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(NotAcknowledged(self.failed.str()))


class KafkaOutbox:
    """Sends to one topic with `acks=all`, idempotent. To be made and used on a running event loop.

    Once `fatal` says why, nothing is sent any more, and the process is to be started again.
    """

    def __init__(self, settings: Settings, topic: str, ack_timeout_s: float, max_bytes: int) -> None:
        self._producer = Producer(
            {
                **quiet_properties(settings),
                "client.id": "headwater-collector",
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 1,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "message.timeout.ms": int(ack_timeout_s * 1000),
                "queue.buffering.max.messages": _MAX_QUEUED,
                "queue.buffering.max.kbytes": max(2 * max_bytes // 1024, 65_536),
                "reconnect.backoff.max.ms": 1_000,
                "topic.metadata.refresh.interval.ms": 10_000,
                "error_cb": self._heard,
            }
        )
        self._topic = settings.topic(topic)
        self._loop = asyncio.get_running_loop()
        self._awaited = 0
        self._polls = False
        self._failed_s = 0.0
        self.fatal: str | None = None
        self._acknowledged_s = time.monotonic()

    @property
    def is_healthy(self) -> bool:
        """Whether the last word of the broker was an acknowledgement."""
        return self._acknowledged_s >= self._failed_s

    def submit(self, records: Sequence[tuple[bytes | None, bytes]]) -> "asyncio.Future[None]":
        """Send; the future is done when all are acknowledged, and raises NotAcknowledged if one is not."""
        future: asyncio.Future[None] = self._loop.create_future()
        if not records:
            future.set_result(None)
            return future
        if self._awaited + len(records) > _MAX_QUEUED:
            future.set_exception(NotAcknowledged("too much is on its way"))
            return future
        pending = _Pending(future, len(records))
        produce, topic, delivered = self._producer.produce, self._topic, pending.delivered
        sent = 0
        try:
            for key, value in records:
                produce(topic, value, key, on_delivery=delivered)
                sent += 1
        except (BufferError, KafkaException) as error:
            # What was sent may arrive; the caller comes again with all of it, and that part is told as a duplicate.
            future.set_exception(NotAcknowledged(str(error)))
        pending.left -= len(records) - sent
        self._awaited += sent
        future.add_done_callback(self._told)
        if not self._polls:
            self._polls = True
            self._loop.call_soon(self._poll)
        return future

    def _heard(self, error: KafkaError) -> None:
        # An idempotent producer whose sequence is broken sends nothing any more: only a new one does.
        if error.code() == KafkaError._FATAL or error.fatal():
            self.fatal = error.str()

    def _told(self, future: "asyncio.Future[None]") -> None:
        if future.cancelled() or future.exception() is not None:
            self._failed_s = time.monotonic()
        else:
            self._acknowledged_s = time.monotonic()

    def _poll(self) -> None:
        self._producer.poll(0)
        self._awaited = len(self._producer)
        if self._awaited:
            self._loop.call_later(_POLL_S, self._poll)
        else:
            self._polls = False

    def broker_answers(self) -> bool:
        """Whether the topic is there and its broker answers. Blocks: not for the loop's thread."""
        try:
            known = self._producer.list_topics(self._topic, timeout=_TIMEOUT_S).topics[self._topic]
        except KafkaException:
            return False
        return known.error is None and all(each.leader >= 0 for each in known.partitions.values())

    def close(self, timeout_s: float) -> int:
        """Wait until everything is answered; how many records were not."""
        return int(self._producer.flush(timeout_s))
