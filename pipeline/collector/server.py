"""The collector as a process: sockets, signals, readiness, and an end at which nothing accepted is lost."""

import asyncio
import logging
import socket
from collections.abc import Callable

from pipeline import serving, shared_ports, sockets
from pipeline.collector.app import Door, application
from pipeline.collector.bots import known_bots
from pipeline.collector.messages import Parser
from pipeline.collector.metrics import CollectorMetrics
from pipeline.errors import SettingsError
from pipeline.observed import served
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.kafka.build import wall_clock_ms
from pipeline.runtime.kafka.outbox import KafkaOutbox
from pipeline.settings import Settings

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.1
_ASK_BROKER_EVERY_S = 2.0
_KEEP_ALIVE_S = 65


def run(settings: Settings, until: Callable[[], bool]) -> None:
    """Serve until `until()`. Several processes on one machine may share a port.

    Raises:
        SettingsError: no write keys, a topic that ingest does not read, or an address that cannot be listened on.
        WorkerStopped: the producer cannot go on and the process must be started again.
    """
    own = settings.collector
    if not own.write_keys:
        raise SettingsError(
            "The collector has no write keys, so nobody could send.",
            "`collector.write_keys`",
            'name a key and its source, HEADWATER_COLLECTOR__WRITE_KEYS=\'{"KEY": "web"}\';'
            " make a key with: openssl rand -hex 16",
        )
    if settings.topic(own.topic) not in {settings.topic(source) for source in settings.sources}:
        raise SettingsError(
            f"The collector would write to {own.topic}, which ingest does not read.",
            "`collector.topic`",
            f"name one of `sources` ({', '.join(settings.sources)}), or add it there",
        )
    metrics = CollectorMetrics(served(settings))
    # One process uses one core: several of them on a port share what comes in.
    shared_ports.claim(settings, own.host, own.port, "HEADWATER_COLLECTOR__PORT")
    listening = sockets.listen(own.host, own.port, "HEADWATER_COLLECTOR__PORT", shared=True)
    with listening, serving.runner() as runner:
        runner.run(_serve(settings, metrics, listening, until))


async def _serve(
    settings: Settings, metrics: CollectorMetrics, listening: socket.socket, until: Callable[[], bool]
) -> None:
    own = settings.collector
    outbox = KafkaOutbox(settings, own.topic, own.ack_timeout_seconds, own.max_in_flight_bytes)
    answers = False

    def is_ready() -> bool:
        return answers and outbox.is_healthy and not server.should_exit

    metrics.ready.set_function(lambda: float(is_ready()))
    door = Door(own, Parser(settings.secret_bytes(), known_bots()), outbox, metrics, wall_clock_ms, is_ready)
    server = serving.server(
        application(door),
        most_connections=own.max_connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(own.stop_timeout_seconds),
        proxy_headers=bool(own.trusted_proxies),
        forwarded_allow_ips=list(own.trusted_proxies),
    )

    async def watch() -> None:
        while not (until() or outbox.fatal):
            await asyncio.sleep(_LOOK_EVERY_S)
        server.should_exit = True

    async def ask() -> None:
        nonlocal answers
        while True:
            answers = await asyncio.to_thread(outbox.broker_answers)
            await asyncio.sleep(_ASK_BROKER_EVERY_S)

    _log.info("collector listens on %s", sockets.address(listening))
    helpers = [asyncio.create_task(watch()), asyncio.create_task(ask())]
    try:
        # It ends when no connection is left, or the time for it is over: what was answered 2xx is acknowledged.
        await server.serve(sockets=[listening])
    finally:
        for helper in helpers:
            helper.cancel()
        left = await asyncio.to_thread(outbox.close, own.stop_timeout_seconds)
    if left:
        _log.warning("%d events were not acknowledged at the end; their callers were not told they were kept", left)
    if outbox.fatal is not None:
        raise WorkerStopped(f"the producer cannot go on: {outbox.fatal}")
    _log.info("collector has stopped")
