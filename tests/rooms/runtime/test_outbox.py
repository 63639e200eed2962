"""What becomes of the collector's producer when it cannot go on. The client is the real one; there is no broker."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pipeline.runtime.errors import NotAcknowledged
from pipeline.runtime.kafka.outbox import KafkaOutbox
from pipeline.settings import Settings
from tests.rooms.runtime.fatal import break_for_good

_WITHIN_S = 10.0


def with_outbox(tmp_path: Path, body: Callable[[KafkaOutbox], Awaitable[None]]) -> None:
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})

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
