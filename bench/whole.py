"""The whole job — ingest, identity, unify — beside the limit: the same records copied over the same hops.

    python -m bench.whole [--events 300000] [--people 20000] [--runs 3]

`raw` is filled beforehand. Ours: the three roles as they are shipped, with the twenty rules of the core job; it is done
when unify has committed every event. The limit: two processes of confluent-kafka in the roles of ingest and unify, that
copy `raw` to `events` and `events` to `profiles` in transactions of 1,500 records, and do nothing else.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from bench import machine
from bench.core.job import SPAN_MS, events, rules_as_yaml
from bench.workspace import Broker, Committed, Headwater, broker, start_pinned, stop

BATCH = 1_500
ROLES = ("ingest", "unify", "identity")


def raw_records(count: int, people: int) -> Iterator[tuple[bytes | None, bytes]]:
    """The events of the core job as applications send them; one in ten of another browser of the same person."""
    for number, event in enumerate(events(count, people, time.time_ns() // 1_000_000 - SPAN_MS)):
        user = event.identifiers[0].partition(":")[2]
        sent = {
            "type": event.type,
            "messageId": event.message_id,
            "userId": user,
            "anonymousId": f"b-{user}-{number % 10 // 9}",
            "properties": event.properties,
            "traits": event.traits,
            "context": event.context,
        }
        if event.type == "track":
            sent["event"] = event.event
        yield user.encode(), json.dumps(sent, separators=(",", ":")).encode()


def ours(kafka: Broker, name: str, given: argparse.Namespace, folder: Path) -> tuple[float, dict[str, float]]:
    """(events/s, CPU µs an event by role) of the three roles."""
    workspace = Headwater.begin(kafka, f"{name}.", given.partitions, folder, rules_as_yaml())
    try:
        workspace.become_ready()
        topic, raw = workspace.settings.topic("events"), workspace.settings.topic("raw")
        start = kafka.ends(topic)
        kafka.fill(raw, raw_records(given.events, given.people))
        committed = Committed(kafka, f"{name}.unify", topic, given.partitions, start)
        before = machine.cpu_seconds(workspace.processes["identity-0"].pid)
        began = time.perf_counter()
        pids = {role: workspace.start(role).pid for role in ("ingest", "unify")}
        pids["identity"] = workspace.processes["identity-0"].pid
        # Transactions of ingest leave their ends in the log too: it is the records that count.
        read = Committed(kafka, f"{name}.ingest", raw, given.partitions, [0] * given.partitions)
        _wait(lambda: read.records() >= given.events)
        ends = sum(kafka.ends(topic)) - sum(start)
        _wait(lambda: committed.records() >= ends - given.partitions)
        seconds = time.perf_counter() - began
        cpu = {role: machine.cpu_seconds(pid) - (before if role == "identity" else 0) for role, pid in pids.items()}
    finally:
        workspace.stop()
    kafka.delete(kafka.topics(f"{name}."))
    return given.events / seconds, {role: spent / given.events * 1e6 for role, spent in cpu.items()}


def limit(kafka: Broker, name: str, given: argparse.Namespace, folder: Path) -> tuple[float, dict[str, float]]:
    """The same of the two copiers."""
    topics = [f"{name}.{hop}" for hop in ("raw", "events", "profiles")]
    for topic in topics:
        kafka.create(topic, given.partitions)
    kafka.fill(topics[0], raw_records(given.events, given.people))
    began = time.perf_counter()
    processes = {}
    for source, target in pairwise(topics):
        command = [sys.executable, "-m", "bench.whole", "--copy", source, target]
        environment = {"BENCH_BOOTSTRAP": kafka.address, "BENCH_PARTITIONS": str(given.partitions)}
        processes[target] = start_pinned(command, environment, folder / f"{target}.log", None)
    try:
        first = Committed(kafka, f"{topics[0]}-copy", topics[0], given.partitions, [0] * given.partitions)
        last = Committed(kafka, f"{topics[1]}-copy", topics[1], given.partitions, [0] * given.partitions)
        _wait(lambda: first.records() >= given.events)
        ends = sum(kafka.ends(topics[1]))
        _wait(lambda: last.records() >= ends - given.partitions)
        seconds = time.perf_counter() - began
        cpu = {hop: machine.cpu_seconds(process.pid) for hop, process in processes.items()}
    finally:
        for process in processes.values():
            stop(process)
    kafka.delete(topics)
    spent = sum(cpu.values()) / given.events * 1e6
    return given.events / seconds, {"both copiers": spent}


def copy(source: str, target: str) -> None:
    """Copy a topic for ever, in transactions."""
    address, partitions = os.environ["BENCH_BOOTSTRAP"], int(os.environ["BENCH_PARTITIONS"])
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"{source}-copy",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "queued.min.messages": 100_000,
        }
    )
    consumer.assign([TopicPartition(source, number, 0) for number in range(partitions)])
    producer = Producer(
        {
            "bootstrap.servers": address,
            "transactional.id": f"{source}-copy",
            "linger.ms": 0,
            "retry.backoff.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions(30)
    while True:
        messages = [one for one in consumer.consume(BATCH, 0.05) if one.error() is None]
        if not messages:
            continue
        producer.begin_transaction()
        reached: dict[int, int] = {}
        for message in messages:
            number = message.partition() or 0
            producer.produce(target, message.value(), message.key(), number)
            reached[number] = (message.offset() or 0) + 1
        producer.flush(30)
        offsets = [TopicPartition(source, number, at) for number, at in reached.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)


def _wait(until: object) -> None:
    assert callable(until)
    give_up = time.monotonic() + 900
    while not until():
        if time.monotonic() > give_up:
            raise RuntimeError("no end within 15 minutes")
        time.sleep(0.25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--copy", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.copy:
        copy(*given.copy)
    rates: dict[str, list[float]] = {"the limit": [], "headwater": []}
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        for number in range(given.runs):
            for name, job in (("the limit", limit), ("headwater", ours)):
                rate, cpu = job(kafka, f"whole{number}-{name[-5:]}", given, Path(folder) / f"{number}-{name[-5:]}")
                rates[name].append(rate)
                spent = ", ".join(f"{role} {micros:.1f}" for role, micros in cpu.items())
                print(
                    f"run {number} {name:10} {rate:9,.0f} events/s; CPU µs an event: {spent} "
                    f"(load {machine.load_average():.1f})",
                    flush=True,
                )
    of_limit = statistics.median(rates["headwater"]) / statistics.median(rates["the limit"])
    print(f"whole job: {of_limit:.2f} × the copying limit (median of {given.runs})")


if __name__ == "__main__":
    main()
