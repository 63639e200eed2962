"""The collector without sockets and without a broker: one call in, one answer out."""

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

import msgspec
from prometheus_client import CollectorRegistry

from pipeline.collector.app import Door, application
from pipeline.collector.bots import known_bots
from pipeline.collector.messages import Parser
from pipeline.collector.metrics import CollectorMetrics
from pipeline.collector.settings import CollectorSettings
from pipeline.runtime.errors import NotAcknowledged

KEY = "a-key-of-the-tests"
NOW_MS = 1_790_000_000_123


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class MemoryOutbox:
    """Keeps what is sent. `fails` and `waits_for` are the broker's moods."""

    def __init__(self) -> None:
        self.records: list[tuple[bytes | None, bytes]] = []
        self.fails = False
        self.waits_for: asyncio.Event | None = None
        self.is_healthy = True

    def submit(self, records: Sequence[tuple[bytes | None, bytes]]) -> Awaitable[None]:
        return self._submit(list(records))

    async def _submit(self, records: list[tuple[bytes | None, bytes]]) -> None:
        if self.waits_for is not None:
            await self.waits_for.wait()
        if self.fails:
            raise NotAcknowledged("the broker is away")
        self.records += records

    @property
    def events(self) -> list[Any]:
        return [msgspec.json.decode(value) for _, value in self.records]


class Site:
    """A collector with a key, and a way to call it."""

    def __init__(self, **given: Any) -> None:
        values = {"write_keys": {KEY: "web"}} | given
        self.settings = CollectorSettings.model_validate(values)
        self.outbox = MemoryOutbox()
        self.registry = CollectorRegistry()
        self.ready = True
        self.now_ms = NOW_MS
        door = Door(
            self.settings,
            Parser(b"secret", known_bots()),
            self.outbox,
            CollectorMetrics(self.registry),
            lambda: self.now_ms,
            lambda: self.ready,
        )
        self.app = application(door)

    def post(self, path: str, body: Any = b"", key: str | None = KEY, **more: Any) -> Answer:
        """POST to the end of its answer; a body that is no bytes is sent as JSON."""
        return asyncio.run(self.call("POST", path, body, key, **more))

    async def call(
        self,
        method: str,
        path: str,
        body: Any = b"",
        key: str | None = KEY,
        headers: dict[str, str] | None = None,
        client: str = "203.0.113.77",
        chunk: int = 0,
        silent: bool = False,
        pause_s: float = 0.0,
    ) -> Answer:
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"host": "events.shop.example", "content-length": str(len(raw)), **(headers or {})}
        if key is not None:
            sent.setdefault("authorization", "Basic " + base64.b64encode(f"{key}:".encode()).decode())
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
            "client": (client, 4711),
            "server": ("127.0.0.1", 80),
        }
        size = chunk or max(1, len(raw))
        parts = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
        messages = iter(
            {"type": "http.request", "body": part, "more_body": number < len(parts)}
            for number, part in enumerate(parts, 1)
        )
        told: list[Any] = []

        async def receive() -> Any:
            if silent:
                await asyncio.sleep(3_600)
            await asyncio.sleep(pause_s)
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            told.append(message)

        await self.app(scope, receive, send)
        start = told[0]
        answer_headers = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], answer_headers, b"".join(each.get("body", b"") for each in told[1:]))
