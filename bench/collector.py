"""What one core of the collector takes, beside the bare framework that reads the body and answers 200.

    python -m bench.collector --seconds 8
    python -m bench.collector --only bare collector --seconds 5

Every contender is a process of its own on core 0; the Kafka and the callers share the other cores. First as many
callers as it takes to keep it busy; then, on all cores, half of the rate found, at fixed moments, whatever the answers
(so a slow answer delays no other call), for the latency. Bodies are those of the browser SDK.

    bare               Starlette on uvicorn, one route, reads the body, answers 200
    bare granian       the same application on granian
    collector          `headwater run collector`
    reports on loop    the same, with delivery reports taken by the event loop instead of a thread
"""

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import machine
from bench.workspace import SECRET, Broker, broker
from pipeline.admin import create_topics
from pipeline.settings import Settings, load

KEY = "key-of-the-benchmark"
CONTENDERS = ("bare", "bare granian", "collector", "reports on loop")
CALLERS = 64
BATCH_EVENTS = 100
WARM_UP_S = 2.0


def event(number: int) -> dict[str, Any]:
    """A page view as the browser SDK sends it."""
    return {
        "timestamp": "2026-03-01T09:00:00.000Z",
        "integrations": {},
        "anonymousId": f"6f1c3a52-77b1-4c5e-9d0c-{number % 100_000:012d}",
        "userId": f"user-{number % 100_000}" if number % 3 else None,
        "type": "page",
        "properties": {
            "path": "/pricing/teams",
            "referrer": "https://www.example.org/search?q=platform",
            "search": "?utm_source=news&utm_medium=mail",
            "title": "Pricing for teams",
            "url": "https://shop.example.org/pricing/teams?utm_source=news&utm_medium=mail",
        },
        "context": {
            "page": {"path": "/pricing/teams", "title": "Pricing for teams"},
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari",
            "locale": "en-GB",
            "library": {"name": "analytics.js", "version": "npm:next-1.84.3"},
            "campaign": {"source": "news", "medium": "mail"},
            "timezone": "Europe/Berlin",
        },
        "messageId": f"ajs-next-1790000000000-{number:012d}",
        "writeKey": KEY,
        "sentAt": "2026-03-01T09:00:00.120Z",
    }


def single(number: int) -> bytes:
    """The request of one event."""
    return _request("/v1/p", json.dumps(event(number)).encode(), "text/plain")


def batch(number: int) -> bytes:
    """The request of a batch."""
    first = number * BATCH_EVENTS
    body = {"batch": [event(first + each) for each in range(BATCH_EVENTS)], "sentAt": "2026-03-01T09:00:00.120Z"}
    return _request("/v1/batch", json.dumps(body | {"writeKey": KEY}).encode(), "application/json")


def _request(path: str, body: bytes, content_type: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


class Caller(asyncio.Protocol):
    """A connection with one call at a time."""

    def __init__(self, answered: Callable[["Caller", bytes], None]) -> None:
        self._answered = answered
        self._received = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        head, found, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0) if found else 0
        if not found or len(body) < length:
            self._received = received
            return
        self._received = b""
        self._answered(self, head[9:12])


class Load:
    """Calls of one kind at one port."""

    def __init__(self, port: int, request: Callable[[int], bytes]) -> None:
        self._port = port
        # Made before: the callers must not be what is measured.
        self._requests = [request(number) for number in range(4_000 if request is single else 300)]
        self.sent = 0
        self.refused = 0

    def _next(self) -> bytes:
        self.sent += 1
        return self._requests[self.sent % len(self._requests)]

    async def full(self, seconds: float) -> int:
        """As much as is taken, by CALLERS at once; returns how many calls were answered 200."""
        taken, over = 0, False

        def answered(caller: Caller, status: bytes) -> None:
            nonlocal taken
            if status == b"200":
                taken += 1
            else:
                self.refused += 1
            if not over:
                caller.transport.write(self._next())

        callers = await self._connected(CALLERS, answered)
        for caller in callers:
            caller.transport.write(self._next())
        await asyncio.sleep(seconds)
        over = True
        count = taken
        await asyncio.sleep(0.3)
        for caller in callers:
            caller.transport.close()
        return count

    async def steady(self, rate: float, seconds: float) -> list[float]:
        """`rate` calls a second at fixed moments; the latency of each, in ms, from the moment it was due."""
        idle: list[Caller] = []
        due: dict[Caller, float] = {}
        latencies: list[float] = []

        def answered(caller: Caller, status: bytes) -> None:
            latencies.append((time.perf_counter() - due.pop(caller)) * 1_000)
            self.refused += status != b"200"
            idle.append(caller)

        idle += await self._connected(400, answered)
        started = time.perf_counter()
        waiting: list[float] = []
        for number in range(int(rate * seconds)):
            moment = started + number / rate
            while (pause := moment - time.perf_counter()) > 0:
                await asyncio.sleep(min(pause, 0.001))
            waiting.append(moment)
            while waiting and idle:
                caller = idle.pop()
                due[caller] = waiting.pop(0)
                caller.transport.write(self._next())
            if not idle:
                await asyncio.sleep(0.0005)
        await asyncio.sleep(1)
        for caller in idle:
            caller.transport.close()
        return sorted(latencies)

    async def _connected(self, count: int, answered: Callable[[Caller, bytes], None]) -> list[Caller]:
        loop = asyncio.get_running_loop()
        pairs = [await loop.create_connection(lambda: Caller(answered), "127.0.0.1", self._port) for _ in range(count)]
        return [caller for _, caller in pairs]


# ------------------------------------------------------------------------------------------------------ contenders


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers 200."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"16")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"success":true}'})


class _Bare:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await bare(scope, receive, send)


def bare_application() -> Any:
    """Starlette with one route for each path."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    return Starlette(routes=[Route(path, _Bare(), methods=["POST"]) for path in ("/v1/p", "/v1/batch")])


def serve(name: str, port: int) -> None:
    """Run one contender in this process."""
    if name == "bare":
        import uvicorn

        uvicorn.run(
            bare_application(), port=port, http="httptools", loop="uvloop", ws="none", lifespan="off", access_log=False
        )
    elif name == "bare granian":
        from granian import Granian

        Granian(
            "bench.collector:bare_application", factory=True, port=port, interface="asgi", log_enabled=False
        ).serve()
    else:
        from pipeline.collector import server

        if name == "reports on loop":
            server.KafkaOutbox = outbox_on_the_loop()  # type: ignore[misc]
        server.run(load(), until=lambda: False)


def outbox_on_the_loop() -> Any:
    """The outbox without a thread: the loop looks for delivery reports every millisecond while any is awaited."""
    from pipeline.runtime.kafka import outbox

    class OnTheLoop(outbox.KafkaOutbox):
        _looks = False

        def _listen(self) -> None:
            return None

        def submit(self, records: Any) -> Any:
            future = super().submit(records)
            if not self._looks:
                self._looks = True
                self._loop.call_soon(self._look)
            return future

        def _is_complete(self, pending: Any) -> None:
            pending.settle()

        def _look(self) -> None:
            self._looks = self._producer.poll(0) > 0 or len(self._producer) > 0
            if self._looks:
                self._loop.call_later(0.001, self._look)

    return OnTheLoop


# -------------------------------------------------------------------------------------------------------- measuring


def measure(name: str, kafka: Broker, seconds: float, folder: Path) -> Iterator[dict[str, Any]]:
    """The figures of one contender: single events, then batches."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = Settings.model_validate(
        {"bootstrap_servers": kafka.address, "prefix": f"{name.replace(' ', '-')}.", "secret": SECRET}
    )
    create_topics(settings)
    environment = {
        **os.environ,
        "HEADWATER_BOOTSTRAP_SERVERS": kafka.address,
        "HEADWATER_PREFIX": settings.prefix,
        "HEADWATER_SECRET": SECRET,
        "HEADWATER_STATE_DIR": str(folder),
        "HEADWATER_COLLECTOR__PORT": str(port),
        "HEADWATER_COLLECTOR__WRITE_KEYS": json.dumps({KEY: "web"}),
    }
    command = [sys.executable, "-m", "bench.collector", "--serve", name, "--port", str(port)]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait_for(port, log)
        everywhere = set(range(os.cpu_count() or 1))
        _pin({0}, *_all(process.pid))
        for kind, request, events in (("single", single, 1), ("batch", batch, BATCH_EVENTS)):
            calls = Load(port, request)
            asyncio.run(calls.full(WARM_UP_S))
            before, started = _cpu_s(process.pid), time.perf_counter()
            taken = asyncio.run(calls.full(seconds))
            busy = _cpu_s(process.pid) - before
            passed = time.perf_counter() - started
            rate = taken / seconds
            # At half of it there is room on every core: pinned, one would queue behind the Kafka and not behind us.
            _pin(everywhere, *_all(process.pid), kafka.pid, os.getpid())
            latencies = asyncio.run(calls.steady(rate / 2, seconds))
            _pin({0}, *_all(process.pid))
            _pin(everywhere - {0} or everywhere, kafka.pid, os.getpid())
            yield {
                "contender": name,
                "kind": kind,
                "requests_per_s": round(rate),
                "events_per_s": round(rate * events),
                "cpu_share": round(busy / passed, 2),
                "events_per_cpu_s": round(taken * events / busy),
                "p50_ms": round(latencies[len(latencies) // 2], 2),
                "p99_ms": round(latencies[int(len(latencies) * 0.99)], 2),
                "refused": calls.refused,
                "memory_mb": round(sum(map(machine.resident_bytes, _all(process.pid))) / 1e6),
                "load": round(machine.load_average(), 1),
            }
    finally:
        process.terminate()
        process.wait(30)


def _pin(cores: set[int], *pids: int) -> None:
    for pid in pids:
        machine.pin(pid, cores)


def _all(pid: int) -> list[int]:
    return [pid, *machine.descendants(pid)]


def _cpu_s(pid: int) -> float:
    return sum(map(machine.cpu_seconds, _all(pid)))


def _wait_for(port: int, log: Path) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            time.sleep(1)
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the contender did not start:\n{log.read_text(errors='replace')[-2_000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.port)
        return
    import uvloop

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    others = set(range(1, os.cpu_count() or 2)) or {0}
    os.sched_setaffinity(0, others)
    with tempfile.TemporaryDirectory() as folder, broker(others) as kafka:
        for name in given.only:
            for figures in measure(name, kafka, given.seconds, Path(folder)):
                print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
