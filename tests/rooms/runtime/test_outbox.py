"""What becomes of the collector's producer when it cannot go on. The client is the real one; there is no broker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pipeline.runtime.errors import NotAcknowledged
from pipeline.runtime.kafka.outbox import KafkaOutbox
from pipeline.settings import Settings
from tests.rooms.runtime.fatal import break_for_good
from tests.rooms.runtime.mock_broker import PROPERTIES as MOCK
from tests.rooms.runtime.mock_broker import MockBroker

_WITHIN_S = 10.0


def with_outbox(tmp_path: Path, body: Callable[[KafkaOutbox], Awaitable[None]], kafka: Any = None) -> None:
    given = {"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1", "kafka": kafka or {}}
    settings = Settings.model_validate(given)

    async def run() -> None:
        await body(KafkaOutbox(settings, "raw", 30.0, 1_000_000))

    asyncio.run(run())


def test_a_producer_that_is_broken_for_good_is_told_and_nobody_waits_for_it(tmp_path: Path) -> None:
    async def body(outbox: KafkaOutbox) -> None:
        waiting = outbox.submit([(b"k", b"sent before")])
        break_for_good(outbox._producer)
        until = time.monotonic() + _WITHIN_S
        while outbox.fatal is None and time.monotonic() < until:
            await asyncio.sleep(0.01)
        assert outbox.fatal is not None and "broken by a test" in outbox.fatal
        with pytest.raises(NotAcknowledged):
            await outbox.submit([(b"k", b"sent after")])
        with pytest.raises(NotAcknowledged):
            await asyncio.wait_for(waiting, _WITHIN_S)
        assert not outbox.is_healthy
        assert await asyncio.to_thread(outbox.close, 1.0) == 0

    with_outbox(tmp_path, body)


def test_what_is_only_known_at_the_end_is_told_then(tmp_path: Path) -> None:
    async def body(outbox: KafkaOutbox) -> None:
        outbox._over = True
        await asyncio.to_thread(outbox._thread.join)
        break_for_good(outbox._producer)
        assert await asyncio.to_thread(outbox.close, 1.0) == 0
        assert outbox.fatal is not None

    with_outbox(tmp_path, body)


def test_what_is_only_taken_for_written_is_not_acknowledged(tmp_path: Path) -> None:
    """The broker has come back and does not lead the partition yet; when the second request comes, it does."""

    async def body(outbox: KafkaOutbox) -> None:
        broker = MockBroker(outbox._producer)
        broker.create_topic("headwater.raw")
        await asyncio.wait_for(outbox.submit([(b"k", b"before")]), _WITHIN_S)
        broker.refuse_next_produce(KafkaError.NOT_LEADER_FOR_PARTITION)
        refused = outbox.submit([(b"k", b"refused")])
        await asyncio.sleep(0.05)
        kept = outbox.submit([(b"k", b"kept")])
        with pytest.raises(NotAcknowledged):
            await asyncio.wait_for(refused, _WITHIN_S)
        await asyncio.wait_for(kept, _WITHIN_S)
        await asyncio.wait_for(outbox.submit([(b"k", b"refused")]), _WITHIN_S)
        assert outbox.is_healthy and outbox.fatal is None
        assert await asyncio.to_thread(outbox.close, 1.0) == 0

    with_outbox(tmp_path, body, MOCK)
