"""Look-ups over HTTP at a steady rate, on a read model of many profiles.

    python -m bench.api --profiles 1000000 --rate 2000 --seconds 20

The profiles are documents like those of the sample shop, written to the topics before `headwater run api` starts. The
asking process keeps to a schedule whatever the answers take, so a slow answer cannot hide the ones behind it: the
latency of a request is counted from the moment at which it should have been sent.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.latency import percentile
from bench.machine import load_average
from bench.workspace import broker
from pipeline.admin import create_topics
from pipeline.api.access import create_token
from pipeline.records import IdentifierPair, IdentityPointer, Membership, ProfileDocument, SegmentMember, Total, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings

SEGMENTS = [f"segment_{number}" for number in range(20)]


def document(number: int) -> ProfileDocument:
    """The profile of a person with two identifiers, ten traits and a few memberships."""
    rng = random.Random(number)
    pairs = [IdentifierPair("user_id", f"u{number}"), IdentifierPair("email", f"person.{number}@mail.example")]
    traits = {f"trait_{place}": rng.choice(("red", "green", "blue")) for place in range(10)}
    held = {name: Membership(1_790_000_000_000, 1, 1) for name in rng.sample(SEGMENTS, 4)}
    totals = {name: Total(rng.randrange(1, 50), 1, 2) for name in ("Page Viewed", "Cart Viewed", "Order Completed")}
    return ProfileDocument(profile_id(number), "person", pairs, 2, traits, totals=totals, segments=held)


def profile_id(number: int) -> str:
    """The made-up id of a person."""
    return f"{number:08x}-0000-5000-8000-000000000000"


def prepare(settings: Settings, profiles: int) -> None:
    """Write what the API reads."""
    create_topics(settings)

    def documents() -> Iterator[tuple[bytes | None, bytes]]:
        for number in range(profiles):
            yield profile_id(number).encode(), encode(document(number))

    def pointers() -> Iterator[tuple[bytes | None, bytes]]:
        for number in range(profiles):
            pointer = encode(IdentityPointer(profile_id(number), 1))
            yield f"user_id:u{number}".encode(), pointer
            yield f"email:person.{number}@mail.example".encode(), pointer

    def members() -> Iterator[tuple[bytes | None, bytes]]:
        for number in range(profiles):
            for name in document(number).segments:
                row = SegmentMember(name, profile_id(number), "person", 1, 1_790_000_000_000, 1)
                yield f"{name}/{profile_id(number)}".encode(), encode(row)

    produce_all(settings, "profiles", documents())
    produce_all(settings, "identities", pointers())
    produce_all(settings, "segment-members", members())


class Asker(asyncio.Protocol):
    """One kept connection: a request at a time."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[int] | None = None
        self._data = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, blank, body = self._data.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) >= length and self.answer is not None:
            self._data = b""
            self.answer.set_result(int(head[9:12]))
            self.answer = None


async def ask(port: int, token: str, profiles: int, rate: float, seconds: float, connections: int) -> dict[str, float]:
    """Ask on schedule; the latencies in ms."""
    loop = asyncio.get_running_loop()
    free: asyncio.Queue[Asker] = asyncio.Queue()
    for _ in range(connections):
        _, asker = await loop.create_connection(Asker, "127.0.0.1", port)
        free.put_nowait(asker)
    latencies: list[float] = []
    statuses: dict[int, int] = {}
    rng = random.Random(1)
    begin = time.perf_counter() + 0.1

    async def one(number: int) -> None:
        who = rng.randrange(profiles)
        path = f"/v1/profiles/email:person.{who}@mail.example" if number % 2 else f"/v1/profiles/user_id:u{who}"
        asker = await free.get()
        asker.answer = future = loop.create_future()
        asker.transport.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        status = await future
        free.put_nowait(asker)
        statuses[status] = statuses.get(status, 0) + 1
        latencies.append((time.perf_counter() - begin - number / rate) * 1_000)

    count = int(rate * seconds)
    # Each is made when it is due: two thousand at a time would be late by what it takes to make them.
    async with asyncio.TaskGroup() as asking:
        for number in range(count):
            if (early := begin + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            asking.create_task(one(number))
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {
        "rate": round(count / (time.perf_counter() - begin)),
        **{f"{name}_ms": round(percentile(latencies, share), 2) for name, share in shares.items()},
        **{f"status_{status}": found for status, found in statuses.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 1_000, 2_000])
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--ask", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        port, token = arguments.ask
        for rate in arguments.rates:
            found = asyncio.run(
                ask(int(port), token, arguments.profiles, rate, arguments.seconds, arguments.connections)
            )
            print(json.dumps({"load": load_average(), **found}), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        settings = Settings.model_validate(
            {"bootstrap_servers": kafka.address, "state_dir": Path(folder), "secret": "bench", "partitions": 4}
        )
        prepare(settings, arguments.profiles)
        token = create_token(Path(folder) / "tokens.yaml", "bench", ["profiles:read"], [], 1_000_000)
        port = 18_090
        environment = {
            **os.environ,
            "HEADWATER_BOOTSTRAP_SERVERS": kafka.address,
            "HEADWATER_STATE_DIR": folder,
            "HEADWATER_SECRET": "bench",
            "HEADWATER_API__PORT": str(port),
        }
        started = time.monotonic()
        command = [sys.executable, "-m", "pipeline.cli", "run", "api"]
        with (Path(folder) / "api.log").open("wb") as log:
            api = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            while not is_ready(port):
                assert api.poll() is None, (Path(folder) / "api.log").read_text()
                time.sleep(0.1)
            print(json.dumps({"ready_after_s": round(time.monotonic() - started, 1), "profiles": arguments.profiles}))
            again = [sys.executable, "-m", "bench.api", "--ask", str(port), token]
            again += ["--profiles", str(arguments.profiles), "--seconds", str(arguments.seconds)]
            again += ["--connections", str(arguments.connections), "--rates", *map(str, arguments.rates)]
            subprocess.run(again, check=True)
            status = Path(f"/proc/{api.pid}/status").read_text()
            print(json.dumps({"memory_mb": int(status.split("VmRSS:")[1].split()[0]) // 1024}))
        finally:
            api.terminate()
            api.wait(30)


def is_ready(port: int) -> bool:
    """Whether the API on this port has read everything."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    main()
