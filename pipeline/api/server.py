"""The role `api`: the read model, the application, and the server that serves it."""

import asyncio
import logging
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline import serving, shared_ports, sockets
from pipeline.api.access import TokensFollowed
from pipeline.api.app import build_app
from pipeline.api.audit import Audit
from pipeline.api.follower import Follower
from pipeline.api.metrics import ApiMetrics
from pipeline.api.pulse import Pulse, RealKafka
from pipeline.api.service import Service
from pipeline.api.streams import Hub
from pipeline.definitions.log import KafkaPlans
from pipeline.observed import served
from pipeline.runtime import garbage
from pipeline.settings import Settings

_MOST_WAITING = 1_000
_KEEP_ALIVE_S = 75
_LOOK_EVERY_S = 0.2
_STOP_WITHIN_S = 5
_THREADS = 32
# The follower's thread and the event loop share the interpreter: a request waits this long for its turn at most.
_SWITCH_S = 0.0005

_log = logging.getLogger(__name__)


def tokens_file(settings: Settings) -> Path:
    """Where the tokens are kept."""
    return settings.api.tokens or settings.state_dir / "tokens.yaml"


def run(settings: Settings, until: Callable[[], bool]) -> None:
    """Serve until `until()`. Each process on a machine has a slot of its own.

    Raises:
        SettingsError: there are no tokens. InputError: the address cannot be listened on.
        StateError: another process has the slot's tables. BrokerError: Kafka does not answer.
    """
    sys.setswitchinterval(_SWITCH_S)
    garbage.hold()
    tokens = TokensFollowed(tokens_file(settings))
    shared_ports.claim(settings, settings.api.host, settings.api.port, "HEADWATER_API__PORT")
    listening = sockets.listen(settings.api.host, settings.api.port, "HEADWATER_API__PORT", shared=True)
    with listening, serving.runner() as runner:
        runner.run(_serve(settings, tokens, listening, until))


async def _serve(
    settings: Settings, tokens: TokensFollowed, listening: socket.socket, until: Callable[[], bool]
) -> None:
    own = settings.api
    plans = KafkaPlans(settings)
    follower = Follower(settings)
    audit = Audit(settings.state_dir / "api" / f"audit-{settings.slot}.jsonl")
    service = Service(settings, follower, plans, tokens.access, audit, Hub(own.max_streams, _MOST_WAITING))
    kafka = RealKafka(settings)
    pulse = service.pulse = Pulse(settings, lambda: service.names_in_force("destination"), kafka)
    ApiMetrics(served(settings), service)
    # Whatever waits for Kafka has a thread: a few slow questions keep nobody else from asking.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS, "asks"))
    service.begin()
    pulse.start()
    server = serving.server(
        build_app(service),
        own.max_connections,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )

    async def watch() -> None:
        while not until() and follower.failure is None:
            await asyncio.sleep(_LOOK_EVERY_S)
            tokens.look()
            await service.follow_definitions()
        server.should_exit = True
        service.end_streams()

    watching = asyncio.create_task(watch())
    _log.info("api in slot %s at %s", settings.slot, sockets.address(listening))
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
        await asyncio.to_thread(follower.close)
        await asyncio.to_thread(pulse.close)
        kafka.close()
        audit.close()
        plans.close()
    if follower.failure is not None:
        raise follower.failure
