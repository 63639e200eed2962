"""Sending records from an event loop, and knowing when they are kept.

One thread waits for delivery reports and counts them; the loop is woken once for all requests that became complete
together. Measured beside taking the reports on the loop itself: docs/decisions/delivery-reports-by-a-thread.md.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.runtime.errors import NotAcknowledged
from pipeline.runtime.kafka.errors import CLIENT_ERRORS, refusal, told_by
from pipeline.runtime.kafka.lifeline import LOST, Lifeline
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings

_POLL_S = 0.1
_MAX_QUEUED = 200_000
_TIMEOUT_S = 2.0


class _Pending:
    """Records of one request that are on their way. Counted by the thread, settled by the loop."""

    __slots__ = ("complete", "failed", "future", "left")

    def __init__(self, future: "asyncio.Future[None]", left: int, complete: "Callable[[_Pending], None]") -> None:
        self.future = future
        self.left = left
        self.complete = complete
        self.failed: KafkaError | None = None

    def delivered(self, error: KafkaError | None, message: Message) -> None:
        self.left -= 1
        refused = refusal(error, message)
        if refused is not None:
            self.failed = refused
        if self.left == 0:
            self.complete(self)

    def settle(self) -> bool:
        """Tell who waits; whether all was acknowledged."""
        if not self.future.done():
            if self.failed is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(NotAcknowledged(self.failed.str()))
        return self.failed is None


class KafkaOutbox:
    """Sends to one topic with `acks=all`, idempotent. To be made and used on a running event loop.

    Once `fatal` says why, nothing is sent any more, and the process is to be started again.
    """

    def __init__(self, settings: Settings, topic: str, ack_timeout_s: float, max_bytes: int) -> None:
        self._lifeline = Lifeline()
        self._producer = Producer(
            {
                **quiet_properties(settings),
                **self._lifeline.properties,
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
            }
        )
        self._topic = settings.topic(topic)
        self._loop = asyncio.get_running_loop()
        self._complete: deque[_Pending] = deque()
        self._woken = False
        self._over = False
        self._thread = threading.Thread(target=self._listen, name="delivery reports", daemon=True)
        self._failed_s = 0.0
        self.fatal: str | None = None
        self._acknowledged_s = time.monotonic()
        self._thread.start()

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
        if len(self._producer) + len(records) > _MAX_QUEUED:
            future.set_exception(NotAcknowledged("too much is on its way"))
            return future
        pending = _Pending(future, len(records), self._is_complete)
        produce, topic, delivered = self._producer.produce, self._topic, pending.delivered
        try:
            for key, value in records:
                produce(topic, value, key, on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            # What was sent may arrive; the caller comes again with all of it, and that part is told as a duplicate.
            self._failed_s = time.monotonic()
            future.set_exception(NotAcknowledged(str(error)))
        return future

    def _listen(self) -> None:
        while not self._over:
            try:
                self._producer.poll(_POLL_S)
            except CLIENT_ERRORS as error:
                self._cannot_go_on(error)
            if self._lifeline.is_cut and self.fatal is None:
                self.fatal = LOST

    def _is_complete(self, pending: _Pending) -> None:
        self._complete.append(pending)
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        # First the flag: what becomes complete from here on wakes the loop again.
        self._woken = False
        while self._complete:
            if self._complete.popleft().settle():
                self._acknowledged_s = time.monotonic()
            else:
                self._failed_s = time.monotonic()

    def _cannot_go_on(self, error: KafkaException | SystemError) -> None:
        # An idempotent producer whose sequence is broken sends nothing any more: only a new one does. It tells no
        # callback, but raises it out of whichever call serves its events, and goes on then with the reports of what was
        # on its way.
        if self.fatal is None:
            self.fatal = told_by(error).str()

    def broker_answers(self) -> bool:
        """Whether the topic is there and its broker answers. Blocks: not for the loop's thread."""
        try:
            known = self._producer.list_topics(self._topic, timeout=_TIMEOUT_S).topics[self._topic]
        except KafkaException:
            return False
        return known.error is None and all(each.leader >= 0 for each in known.partitions.values())

    def close(self, timeout_s: float) -> int:
        """Wait until everything is answered; how many records were not. The loop must still run."""
        give_up = time.monotonic() + timeout_s
        while True:
            try:
                left = int(self._producer.flush(max(0.0, give_up - time.monotonic())))
                break
            except CLIENT_ERRORS as error:
                self._cannot_go_on(error)
        self._over = True
        self._thread.join()
        return left
