"""The HTTP interface, as an ASGI application: paths, answers, and the promise behind a 2xx.

    1  room in the memory budget, else 429 (the broker works) or 503 (it does not)
    2  the body, unpacked, within bounds and in time
    3  a write key, in the header or in the body, else 401
    4  records
    5  all of them acknowledged by all in-sync replicas, else 503
    6  200

A caller that was not answered 2xx may send the same again: what did arrive is told by its messageId.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.collector.access import Cors, WriteKeys, is_host, kept_ip, key_in_header
from pipeline.collector.answers import ACCEPTED, Refused, busy, nothing_here, unavailable, wrong_method
from pipeline.collector.body import Reader
from pipeline.collector.messages import (
    MAX_BATCH_BYTES,
    MAX_EVENT_BYTES,
    Caller,
    Parsed,
    Parser,
    read_batch,
    write_key_in,
)
from pipeline.collector.metrics import CollectorMetrics
from pipeline.collector.settings import CollectorSettings
from pipeline.runtime.errors import NotAcknowledged

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = dict[bytes, bytes]

SINGLE_PATHS = {
    f"/v1/{word}": kind
    for kind in ("track", "identify", "page", "screen", "group", "alias")
    for word in (kind, kind[0])
}
BATCH_PATHS = ("/v1/batch", "/v1/b", "/v1/import")
_JSON = (b"content-type", b"application/json")
_NO_KEY = "The write key is missing, or unknown: it is the user of Basic authentication, or `writeKey` in the body."
_MAX_USER_AGENT = 512
_MAX_REJECTIONS_TOLD = 20


class Outbox(Protocol):
    """Where records go."""

    @property
    def is_healthy(self) -> bool:
        """Whether the broker acknowledged when it was last asked to."""
        ...

    def submit(self, records: Sequence[tuple[bytes | None, bytes]]) -> Awaitable[None]:
        """Send records; what is returned is done when all are acknowledged, and else raises NotAcknowledged."""
        ...


class Budget:
    """How many bytes of requests are held, and how many may be."""

    def __init__(self, most: int, gauge: Callable[[int], None] = lambda held: None) -> None:
        self.most = most
        self.held = 0
        self.gauge = gauge

    def take(self, size: int) -> bool:
        """Hold so many more, if there is room."""
        if self.held + size > self.most:
            return False
        self.held += size
        return True

    def give(self, size: int) -> None:
        """Hold so many less."""
        self.held -= size


@dataclass(slots=True)
class Door:
    """What the paths share. `now_ms` is the clock that stamps `receivedAt`; `is_ready` is asked by /readyz."""

    settings: CollectorSettings
    parser: Parser
    outbox: Outbox
    metrics: CollectorMetrics
    now_ms: Callable[[], int]
    is_ready: Callable[[], bool]


class Endpoint:
    """One path that takes events. `kind` is the type the path says; None: a batch."""

    def __init__(self, door: Door, shared: "_Shared", path: str, kind: str | None) -> None:
        self._door = door
        self._shared = shared
        self._path = path
        self._kind = kind
        most = MAX_BATCH_BYTES if kind is None else MAX_EVENT_BYTES
        self._answered: dict[int, Counter] = {}
        self._reader = Reader(most, door.settings.read_timeout_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: Headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        budget, held = self._shared.budget, 0

        def reserve(size: int) -> None:
            nonlocal held
            if not budget.take(size):
                raise busy() if self._door.outbox.is_healthy else unavailable()
            held += size

        more = self._shared.cors.headers(origin)
        try:
            status, body = await self._taken_or_late(scope, headers, receive, reserve)
        except Refused as refused:
            status, body = refused.status, refused.body()
            if refused.retry_after_s is not None:
                more.append((b"retry-after", str(refused.retry_after_s).encode()))
            if refused.close:
                more.append((b"connection", b"close"))
        finally:
            budget.give(held)
        counter = self._answered.get(status)
        if counter is None:
            counter = self._answered[status] = self._door.metrics.requests.labels(self._path, str(status))
        counter.inc()
        await _answer(send, status, body, more)

    async def _taken_or_late(
        self, scope: Scope, headers: Headers, receive: Receive, reserve: Callable[[int], None]
    ) -> tuple[int, bytes]:
        try:
            return await self._taken(scope, headers, receive, reserve)
        except asyncio.CancelledError:
            # At a stop, when the time for open requests is over: the caller has a word yet, which is to come again.
            raise unavailable() from None

    async def _taken(
        self, scope: Scope, headers: Headers, receive: Receive, reserve: Callable[[int], None]
    ) -> tuple[int, bytes]:
        door = self._door
        started = time.perf_counter()
        body = await self._reader.read(
            receive, headers.get(b"content-length"), headers.get(b"content-encoding"), reserve
        )
        key: Any = key_in_header(headers.get(b"authorization"))
        batch = read_batch(body) if self._kind is None else None
        source = self._shared.keys.source(key) if key is not None else None
        if source is None:
            source = self._shared.keys.source(batch.write_key if batch is not None else write_key_in(body))
        if source is None:
            raise Refused(401, "unauthorized", _NO_KEY)
        caller = self._caller(scope, headers, source)
        if batch is not None:
            parsed = door.parser.batch(batch, caller)
        else:
            assert self._kind is not None
            parsed = door.parser.single(body, self._kind, caller)
        # What was made of the body waits for the broker beside it.
        reserve(sum(len(value) for _, value in parsed.records))
        try:
            await door.outbox.submit(parsed.records)
        except NotAcknowledged:
            raise unavailable() from None
        door.metrics.ack_seconds.observe(time.perf_counter() - started)
        door.metrics.events.labels(source).inc(len(parsed.records))
        return 200, self._told(parsed, source)

    def _told(self, parsed: Parsed, source: str) -> bytes:
        if not parsed.rejected:
            return ACCEPTED
        for each in parsed.rejected:
            self._door.metrics.rejected.labels(source, each.reason).inc()
        shown = parsed.rejected[:_MAX_REJECTIONS_TOLD]
        return msgspec.json.encode(
            {"success": True, "accepted": len(parsed.records), "rejected": len(parsed.rejected), "first": shown}
        )

    def _caller(self, scope: Scope, headers: Headers, source: str) -> Caller:
        settings = self._door.settings
        # Behind the body, though what it took counts as wrong clock then: the log must not have gone on meanwhile.
        moment = datetime.fromtimestamp(self._door.now_ms() / 1000, UTC)
        client = scope.get("client")
        agent = headers.get(b"user-agent")
        return Caller(
            received=moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            source=source,
            ip=kept_ip(client[0] if client else None, settings.ip),
            user_agent=agent[:_MAX_USER_AGENT].decode("latin-1") if agent else None,
            keeps_ip=settings.ip,
            keeps_user_agent=settings.user_agent == "keep",
        )


@dataclass(slots=True)
class _Shared:
    keys: WriteKeys
    cors: Cors
    budget: Budget


def application(door: Door) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """The application behind `headwater run collector`."""
    settings = door.settings
    budget = Budget(settings.max_in_flight_bytes)
    door.metrics.in_flight_bytes.set_function(lambda: budget.held)
    shared = _Shared(WriteKeys(settings.write_keys), Cors(settings.allowed_origins), budget)

    async def sdk_settings(scope: Scope, receive: Receive, send: Send) -> None:
        key = scope["path_params"]["key"]
        headers: Headers = dict(scope["headers"])
        more = [*shared.cors.headers(headers.get(b"origin")), (b"cache-control", b"no-store")]
        address = _address(settings, scope, headers)
        if shared.keys.source(key) is None or address is None:
            refused = Refused(404, "not_found", "There is no such write key.")
            await _answer(send, 404, refused.body(), more)
            return
        await _answer(send, 200, msgspec.json.encode(_sdk_settings(key, *address)), more)

    async def metrics_of_sdk(scope: Scope, receive: Receive, send: Send) -> None:
        # The browser SDK measures itself and tells its maker. Nobody here reads it; it must not be an error either.
        headers: Headers = dict(scope["headers"])
        await _answer(send, 204, b"", shared.cors.headers(headers.get(b"origin")))

    async def lives(scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send, 200, b'{"status":"alive"}', [])

    async def ready(scope: Scope, receive: Receive, send: Send) -> None:
        if door.is_ready():
            await _answer(send, 200, b'{"status":"ready"}', [])
        else:
            await _answer(send, 503, b'{"status":"not ready"}', [(b"retry-after", b"3")])

    routes = [_route(path, Endpoint(door, shared, path, kind), "POST") for path, kind in SINGLE_PATHS.items()]
    routes += [_route(path, Endpoint(door, shared, path, None), "POST") for path in BATCH_PATHS]
    routes += [
        _route("/v1/projects/{key}/settings", sdk_settings, "GET"),
        _route("/v1/m", metrics_of_sdk, "POST"),
        _route("/livez", lives, "GET"),
        _route("/readyz", ready, "GET"),
    ]

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refused = nothing_here() if error.status_code == 404 else wrong_method((error.headers or {}).get("Allow", ""))
        door.metrics.requests.labels("other", str(refused.status)).inc()
        answer = Response(refused.body(), refused.status, error.headers, "application/json")
        answer.raw_headers += shared.cors.headers(dict(request.scope["headers"]).get(b"origin"))
        return answer

    others = Starlette(routes=routes, exception_handlers={404: refuse, 405: refuse})
    # A redirection would lead to http:// behind a proxy that speaks TLS, with the write key.
    others.router.redirect_slashes = False
    takes_events = {route.path: route.endpoint for route in routes if isinstance(route.endpoint, Endpoint)}

    async def collector(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") == "OPTIONS":
            # On every path: else a page would be told of CORS, and never that the path is not there.
            asked: Headers = dict(scope["headers"])
            wanted = asked.get(b"access-control-request-headers")
            await _answer(send, 204, b"", shared.cors.preflight(asked.get(b"origin"), wanted))
            return
        # What nearly every call asks for is found at once: the framework compares path by path.
        path = scope.get("path", "")
        # The SDK for Java asks for /v1/import/, and for //v1/import/ where its host was given with a slash.
        endpoint = takes_events.get(path) or takes_events.get(f"/{path.strip('/')}")
        if endpoint is not None and scope.get("method") == "POST":
            await endpoint(scope, receive, send)
        else:
            await others(scope, receive, send)

    return collector


class _Plain:
    """Lets Starlette route to an ASGI application: a function it would wrap."""

    def __init__(self, application: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


def _route(path: str, application: Any, method: str) -> Route:
    plain = application if isinstance(application, Endpoint) else _Plain(application)
    return Route(path, plain, methods=[method, "OPTIONS"])


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    if status != 204:
        headers = [_JSON, (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _address(settings: CollectorSettings, scope: Scope, headers: Headers) -> tuple[str, str] | None:
    """Scheme and host under which the caller reaches us; None if the Host header is none."""
    if settings.public_url is not None:
        scheme, _, host = settings.public_url.partition("://")
        return scheme, host
    host = headers.get(b"host", b"").decode("latin-1")
    return (str(scope["scheme"]), host) if is_host(host) else None


def _sdk_settings(key: str, scheme: str, host: str) -> dict[str, Any]:
    """What the browser SDK is told at its start: send to us, with everything allowed."""
    return {
        "integrations": {
            "Segment.io": {
                "apiKey": key,
                "apiHost": f"{host}/v1",
                "protocol": scheme,
                "unbundledIntegrations": [],
                "addBundledMetadata": True,
                "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
            }
        },
        "plan": {
            "track": {"__default": {"enabled": True, "integrations": {}}},
            "identify": {"__default": {"enabled": True}},
            "group": {"__default": {"enabled": True}},
        },
        "edgeFunction": {},
        "analyticsNextEnabled": True,
        "middlewareSettings": {},
        "enabledMiddleware": {},
        "metrics": {"sampleRate": 0},
        "legacyVideoPluginsEnabled": False,
        "remotePlugins": [],
    }
