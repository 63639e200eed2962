"""Latency from produce to `segment-changes`, through every stage, on a real broker.

    python -m bench.latency --rates 100 1000 5000 --seconds 20

Each event is a person's first purchase at a chosen moment, so each enters one segment. The latency of an event is the
time from just before it is handed to the producer to the moment a read_committed consumer has its segment change.
"""

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

from confluent_kafka import Producer

from bench.machine import load_average
from pipeline.admin import create_topics
from pipeline.broker import running_kafka
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import apply
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings, load
from pipeline.up.processes import Processes

SEGMENT = "segment: buyers\nwhen: {performed: {event: Order Completed, within: 30d}}"
ROLES = (("ingest",), ("identity",), ("unify",))
WARM_UP_S = 5.0


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def measure(settings: Settings, rate: float, seconds: float, label: str = "m") -> list[float]:
    """Latencies in ms of `rate` events a second over `seconds`, after a warm-up. `label` keeps its people apart."""
    produced: dict[str, float] = {}
    latencies: list[float] = []
    over = threading.Event()

    def read() -> None:
        with TopicReader(settings, ["segment-changes"], from_end=True) as reader:
            started.set()
            while not over.is_set():
                for record in reader.read(1_000, 0.05):
                    now = time.perf_counter()
                    message = json.loads(record.value or b"{}")["evidence"].get("message_id")
                    if message in produced:
                        latencies.append((now - produced.pop(message)) * 1_000)

    started = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    started.wait()
    time.sleep(1)
    properties = {"linger.ms": 0, "acks": "all", "partitioner": "murmur2_random"}
    producer = Producer({**settings.client_properties(), **properties})
    topic = settings.topic("raw")
    begin = time.perf_counter()
    total = int(rate * (seconds + WARM_UP_S))
    for number in range(total):
        due = begin + number / rate
        while (wait := due - time.perf_counter()) > 0:
            producer.poll(min(wait, 0.001))
        message = f"{label}-{number}"
        event = {"type": "track", "event": "Order Completed", "messageId": message, "userId": message}
        if number >= rate * WARM_UP_S:
            produced[message] = time.perf_counter()
        producer.produce(topic, json.dumps(event).encode(), message.encode())
    producer.flush()
    until = time.perf_counter() + 30
    while produced and time.perf_counter() < until:
        time.sleep(0.05)
    over.set()
    reader.join()
    if produced:
        print(f"{len(produced)} events had no segment change within 30 s")
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=float, nargs="+", default=[100, 1_000, 5_000])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--partitions", type=int, default=4)
    given = parser.parse_args()
    with running_kafka(load(), temporary=True) as kafka, tempfile.TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {
                "bootstrap_servers": kafka.bootstrap_servers,
                "prefix": f"latency-{int(time.time())}.",
                "state_dir": Path(folder),
                "secret": "bench",
                "partitions": given.partitions,
            }
        )
        create_topics(settings)
        apply(settings, load_text(SEGMENT))
        environment = {
            "HEADWATER_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "HEADWATER_PREFIX": settings.prefix,
            "HEADWATER_STATE_DIR": folder,
            "HEADWATER_SECRET": "bench",
            "HEADWATER_PARTITIONS": str(given.partitions),
        }
        with Processes(ROLES, environment, Path(folder) / "logs"):
            time.sleep(8)
            print(f"{given.partitions} partitions; latency in ms from produce to segment-changes, read_committed")
            print("| events/s | events | p50 | p95 | p99 | p99.9 | neighbours (load) |")
            print("| --- | --- | --- | --- | --- | --- | --- |")
            for rate in given.rates:
                found = measure(settings, rate, given.seconds)
                shown = " | ".join(f"{percentile(found, share):.0f}" for share in (0.5, 0.95, 0.99, 0.999))
                print(f"| {rate:,.0f} | {len(found):,} | {shown} | {load_average():.1f} |", flush=True)


if __name__ == "__main__":
    main()
