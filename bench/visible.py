"""From an event to what the API shows of it: a look-up that finds it, and a stream that tells it.

    python -m bench.visible [--rate 1000] [--seconds 20] [--people 20000] [--layout 4]

A layout is `partitions[/output_partitions[/transactional_ids]]`, as in `bench.latency`.

All roles run, and the API. Of the events, twenty a second are the first of somebody new, who enters a segment with it.
Their latency counts from just before the event is handed to the producer: until a look-up that waits for this event
(`wait_for`) is answered, and until the segment's stream has told the entry.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from confluent_kafka import Message, Producer

from bench.api import Asker, is_ready
from bench.live import ROLES, percentile
from bench.machine import load_average
from bench.workspace import broker
from pipeline.admin import create_topics
from pipeline.api.access import create_token
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import apply
from pipeline.settings import Settings
from pipeline.up.processes import Processes

PORT = 18_092
NEW_PER_S = 20
WARM_UP_S = 60.0  # a broker of a few seconds still compiles itself
LAYOUT = ("partitions", "output_partitions", "transactional_ids")
SEGMENT = "segment: newcomers\nwhen: {performed: {event: Signed Up, within: 30d}}\n"


def _send(address: str, topic: str, rate: float, seconds: float, people: int, pipe: Connection) -> None:
    """Produces at a steady rate. Tells of each newcomer: number, when the event was handed over, its place in raw."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0, "acks": "all", "partitioner": "murmur2_random"})
    step = int(rate // NEW_PER_S)
    begin = time.perf_counter()
    for number in range(int(rate * (seconds + WARM_UP_S))):
        while (wait := begin + number / rate - time.perf_counter()) > 0:
            producer.poll(0)
            time.sleep(min(wait, 0.005))
        newcomer = number % step == 0
        user = f"new-{number}" if newcomer else f"u-{number * 7919 % people}"
        event = {
            "type": "track",
            "event": "Signed Up" if newcomer else "Page Viewed",
            "messageId": f"m-{number}",
            "userId": user,
            "properties": {"path": f"/page/{number % 100}", "price": number % 1000},
        }
        told = None
        if newcomer and number >= rate * WARM_UP_S:
            handed_at = time.perf_counter()

            def told(error: object, message: Message, number: int = number, handed_at: float = handed_at) -> None:
                assert error is None, error
                pipe.send((number, handed_at, f"raw:{message.partition()}:{message.offset()}"))

        producer.produce(topic, json.dumps(event).encode(), user.encode(), on_delivery=told)
    producer.flush()
    pipe.send(None)


async def measure(settings: Settings, token: str, rate: float, seconds: float, people: int) -> dict[str, object]:
    """Latencies in ms until a look-up, and until the stream, has it."""
    head = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    sent: dict[int, float] = {}
    visible: list[float] = []
    heard: dict[int, float] = {}
    loop = asyncio.get_running_loop()

    async def hear() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.write(f"GET /v1/segments/newcomers/stream HTTP/1.1\r\n{head}".encode())
        while True:
            line = await reader.readline()
            if line.startswith(b"data: "):
                heard[int(json.loads(line[6:])["evidence"]["message_id"].removeprefix("m-"))] = time.perf_counter()

    async def ask(number: int, place: str) -> None:
        asker = await free.get()
        asker.answer = future = loop.create_future()
        path = f"/v1/profiles/user_id:new-{number}?wait_for={place}&timeout_ms=10000"
        asker.transport.write(f"GET {path} HTTP/1.1\r\n{head}".encode())
        status = await future
        assert status == 200, status
        visible.append((time.perf_counter() - sent[number]) * 1_000)
        free.put_nowait(asker)

    free: asyncio.Queue[Asker] = asyncio.Queue()
    for _ in range(64):
        free.put_nowait((await loop.create_connection(Asker, "127.0.0.1", PORT))[1])
    hearing = asyncio.create_task(hear())
    await asyncio.sleep(1)
    ours, theirs = multiprocessing.Pipe()
    traffic = multiprocessing.get_context("spawn").Process(
        target=_send,
        args=(settings.bootstrap_servers, settings.topic("raw"), rate, seconds, people, theirs),
        daemon=True,
    )
    traffic.start()
    theirs.close()
    told = asyncio.Event()
    loop.add_reader(ours.fileno(), told.set)
    over = False
    async with asyncio.timeout(seconds + WARM_UP_S + 60), asyncio.TaskGroup() as asking:
        while not over:
            await told.wait()
            told.clear()
            while ours.poll():
                if (found := ours.recv()) is None:
                    over = True
                    break
                number, handed_at, place = found
                sent[number] = handed_at
                asking.create_task(ask(number, place))
    loop.remove_reader(ours.fileno())
    traffic.join()
    await asyncio.sleep(1)
    hearing.cancel()
    streamed = [(heard[number] - at) * 1_000 for number, at in sent.items() if number in heard]
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    return {
        "rate": rate,
        "newcomers": len(sent),
        "seen": len(visible),
        "heard": len(streamed),
        **{f"visible_{name}_ms": round(percentile(visible, share)) for name, share in shares.items()},
        **{f"stream_{name}_ms": round(percentile(streamed, share)) for name, share in shares.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1_000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--layout", default="4")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        values = {
            "bootstrap_servers": kafka.address,
            "state_dir": Path(folder),
            "secret": "bench",
            **dict(zip(LAYOUT, map(int, given.layout.split("/")), strict=False)),
        }
        settings = Settings.model_validate(values)
        create_topics(settings)
        apply(settings, load_text(SEGMENT))
        scopes = ["profiles:read", "streams:read", "segments:read"]
        token = create_token(Path(folder) / "tokens.yaml", "bench", scopes, [], 1_000_000)
        environment = {f"HEADWATER_{name.upper()}": str(value) for name, value in values.items()}
        environment["HEADWATER_API__PORT"] = str(PORT)
        with Processes(ROLES, environment, Path(folder) / "logs"), (Path(folder) / "api.log").open("wb") as log:
            command = [sys.executable, "-m", "pipeline.cli", "run", "api"]
            api = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
            try:
                while not is_ready(PORT):
                    assert api.poll() is None, (Path(folder) / "api.log").read_text()
                    time.sleep(0.1)
                time.sleep(5)
                found = asyncio.run(measure(settings, token, given.rate, given.seconds, given.people))
                print(json.dumps({"load": round(load_average(), 1), **found}), flush=True)
            finally:
                api.terminate()
                api.wait(30)


if __name__ == "__main__":
    main()
