"""Many idle streams on one process of the API, and how soon the few that have news hear of it.

    python -m bench.streams --streams 10000

The first ten listen to a segment each, the others to one in which nothing happens. Changes are written to
`segment-changes` as unify writes them; the latency of one is the time from just before it is handed to the producer to
the moment its stream has it. Beside them somebody looks profiles up.
"""

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Producer

from bench.api import Asker, is_ready
from bench.latency import percentile
from bench.machine import load_average
from bench.workspace import broker
from pipeline.admin import create_topics
from pipeline.api.access import create_token
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import apply
from pipeline.records import Cause, SegmentChange, encode
from pipeline.settings import Settings

PORT = 18_091
NEWS = 10
SEGMENTS = [*(f"segment_{number}" for number in range(NEWS)), "quiet"]


def change(segment: str, sequence: int) -> bytes:
    """A record of `segment-changes`."""
    now = time.time_ns() // 1_000_000
    made = SegmentChange(
        f"p{sequence}", "person", segment, 1, "entered", now, now, sequence, "event", Cause("m", 0, 1), False, []
    )
    return encode(made)


async def measure(settings: Settings, token: str, streams: int, seconds: float) -> dict[str, object]:
    """Open the streams, wait, send changes to ten of them."""
    head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    opened: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for number in range(streams):
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        segment = f"segment_{number}" if number < NEWS else "quiet"
        writer.write(f"GET /v1/segments/{segment}/stream HTTP/1.1\r\n{head}".encode())
        opened.append((reader, writer))
        if number % 100 == 99:
            await asyncio.gather(*(one.readuntil(b": segment\n\n") for one, _ in opened[-100:]))
    producer = Producer({**settings.client_properties(), "linger.ms": 0, "partitioner": "murmur2_random"})
    sent: dict[int, float] = {}
    latencies: list[float] = []

    async def hear(reader: asyncio.StreamReader) -> None:
        while True:
            line = await reader.readline()
            if line.startswith(b"data: "):
                latencies.append((time.perf_counter() - sent.pop(json.loads(line[6:])["sequence"])) * 1_000)

    async def look_up() -> list[float]:
        _, asker = await asyncio.get_running_loop().create_connection(Asker, "127.0.0.1", PORT)
        took = []
        for _ in range(int(seconds * 50)):
            asker.answer = future = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            asker.transport.write(f"GET /v1/segments HTTP/1.1\r\n{head}".encode())
            await future
            took.append((time.perf_counter() - began) * 1_000)
            await asyncio.sleep(0.02)
        return took

    hearing = [asyncio.create_task(hear(reader)) for reader, _ in opened[:NEWS]]
    looking = asyncio.create_task(look_up())
    for sequence in range(int(seconds * 50)):
        sent[sequence] = time.perf_counter()
        producer.produce(
            settings.topic("segment-changes"), change(f"segment_{sequence % NEWS}", sequence), f"p{sequence}"
        )
        producer.poll(0)
        await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    took = await looking
    for task in hearing:
        task.cancel()
    for _, writer in opened:
        writer.close()
    return {
        "streams": streams,
        "heard": len(latencies),
        "sent": int(seconds * 50),
        "stream_p50_ms": round(percentile(latencies, 0.5), 1),
        "stream_p99_ms": round(percentile(latencies, 0.99), 1),
        "look_up_p99_ms": round(percentile(took, 0.99), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 100_000), most))
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        settings = Settings.model_validate(
            {"bootstrap_servers": kafka.address, "state_dir": Path(folder), "secret": "bench", "partitions": 4}
        )
        create_topics(settings)
        apply(settings, load_text("---\n".join(f"segment: {name}\nwhen: {{all: []}}\n" for name in SEGMENTS)))
        scopes = ["streams:read", "segments:read"]
        token = create_token(Path(folder) / "tokens.yaml", "bench", scopes, [], 1_000_000)
        environment = {
            **os.environ,
            "HEADWATER_BOOTSTRAP_SERVERS": kafka.address,
            "HEADWATER_STATE_DIR": folder,
            "HEADWATER_SECRET": "bench",
            "HEADWATER_API__PORT": str(PORT),
        }
        with (Path(folder) / "api.log").open("wb") as log:
            api = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", "run", "api"], env=environment, stdout=log, stderr=log
            )
        try:
            while not is_ready(PORT):
                assert api.poll() is None, (Path(folder) / "api.log").read_text()
                time.sleep(0.1)
            for streams in (10, arguments.streams):
                found = asyncio.run(measure(settings, token, streams, arguments.seconds))
                status = Path(f"/proc/{api.pid}/status").read_text()
                memory = int(status.split("VmHWM:")[1].split()[0]) // 1024
                print(json.dumps({"load": round(load_average(), 1), "memory_mb": memory, **found}), flush=True)
        finally:
            api.terminate()
            api.wait(30)


if __name__ == "__main__":
    main()
