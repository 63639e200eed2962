"""How long a worker of unify takes to be ready again: with its store, after SIGKILL, and without it.

    python -m bench.restart make    --profiles 1000000      minutes: the shipped role folds an event of every person
    python -m bench.restart measure                          as often as wanted

`make` leaves a Kafka and a state folder in build/bench/restart; `measure` starts them again. Ready is when the worker
says so of all its partitions (the file that `headwater doctor` reads); times are from the start of the process. What a
plain consumer takes to read the same changelog stands beside it. On a busy machine CPU time, told as well, says more.
"""

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from bench import machine
from bench.core.job import rules_as_yaml
from bench.workspace import SECRET, Committed, Headwater, broker
from pipeline.identifiers import Keys
from pipeline.records import Event, encode
from pipeline.runtime.progress import Progress, reports_in

PREFIX = "restart."
CHANGELOG = "unify-changelog"
PARTITIONS = 4
_GIVE_UP_S = 600.0


def people(count: int, now_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """One event of each person, as ingest would write it."""
    keys = Keys(SECRET.encode())
    for number in range(count):
        event = Event(
            f"m{number}",
            "track",
            "Page Viewed",
            [f"user_id:person-{number}"],
            now_ms,
            now_ms,
            properties={"path": "/pricing" if number % 3 else "/", "seconds": number % 60},
            traits={"plan": "pro" if number % 5 else "free", "city": f"city {number % 1000}"},
        )
        yield keys.actor(event.identifiers[0]), encode(event)


def make(folder: Path, profiles: int) -> None:
    """Fill a workspace, and let the shipped roles work through it."""
    shutil.rmtree(folder, ignore_errors=True)
    with broker(folder=folder / "kafka") as running:
        headwater = Headwater.begin(running, PREFIX, PARTITIONS, folder, rules_as_yaml())
        headwater.become_ready()
        topic = headwater.settings.topic("events")
        start = running.ends(topic)
        running.fill(topic, people(profiles, time.time_ns() // 1_000_000))
        ends = running.ends(topic)
        began = time.monotonic()
        headwater.start("unify")
        committed = Committed(running, f"{PREFIX}unify", topic, PARTITIONS, start)
        wanted = sum(ends) - sum(start)
        while (done := committed.records()) < wanted:
            print(f"{done:,} of {wanted:,} events, {time.monotonic() - began:.0f} s", flush=True)
            time.sleep(5)
        print(f"{done:,} events in {time.monotonic() - began:.0f} s", flush=True)
        # Its connection would go on trying when the broker is gone.
        del committed
        time.sleep(2)
        headwater.stop()


def ready(headwater: Headwater, cores: set[int] | None) -> tuple[float, Progress]:
    """Start unify; how long it took to be ready, and its own words about it."""
    folder = headwater.settings.state_dir / "unify"
    began_ms = time.time_ns() // 1_000_000
    process = headwater.start("unify", cores)
    while True:
        for told in reports_in(folder):
            if told.ready_ms >= began_ms:
                return (told.ready_ms - began_ms) / 1000, told
        if process.poll() is not None or time.time_ns() // 1_000_000 - began_ms > _GIVE_UP_S * 1000:
            log = headwater.folder / "unify-0.log"
            sys.exit(f"unify did not become ready:\n{log.read_text(errors='replace')[-2_000:]}")
        time.sleep(0.01)


def plain_read(address: str, topic: str, in_batches: bool) -> tuple[int, int, float]:
    """What a plain consumer reads of a topic: records, bytes, seconds. It looks at key, value and position of each
    record that `poll` gives; `in_batches`, it counts what `consume` gives, and looks at nothing."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "plain",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "queued.min.messages": 100_000,
            "fetch.wait.max.ms": 50,
        }
    )
    partitions = list(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
    began = time.monotonic()
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    records = size = 0
    waiting = len(partitions)
    place: object = None
    while waiting and in_batches:
        # Not longer: it waits until all of them are there.
        for message in consumer.consume(2_000, 0.02):
            if message.error() is None:
                records += 1
                size += len(message)
            else:
                waiting -= 1
    while waiting:
        message = consumer.poll(5.0)
        assert message is not None
        if message.error() is None:
            records += 1
            size += len(message.value() or b"")
            place = message.key(), message.partition(), message.offset()
        else:
            waiting -= 1
    del place
    seconds = time.monotonic() - began
    consumer.close()
    return records, size, seconds


def measure(folder: Path, cores: set[int] | None, broker_cores: set[int] | None) -> None:
    """Start the worker again, in all three ways."""
    print(f"load {machine.load_average():.1f} at the beginning", flush=True)
    with broker(broker_cores, folder / "kafka") as running:
        headwater = Headwater.begin(running, PREFIX, PARTITIONS, folder)
        store = headwater.settings.state_dir / "unify"
        topic = headwater.settings.topic(CHANGELOG)
        rows = []
        for name in ("with its store", "with its store, again"):
            seconds, _ = ready(headwater, cores)
            rows.append((name, seconds, ""))
            if name.endswith("again"):
                # Nothing is to be restarted by it: this end is the point.
                os.killpg(headwater.processes["unify-0"].pid, signal.SIGKILL)
                headwater.processes.pop("unify-0").wait()
            else:
                headwater.stop("unify-0")
        seconds, _ = ready(headwater, cores)
        rows.append(("with its store, after SIGKILL", seconds, ""))
        headwater.stop("unify-0")
        size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
        plain = {}
        for name, in_batches in (("a plain consumer", False), ("one that only counts, in batches", True)):
            cpu_before = time.process_time()
            reads = [plain_read(running.address, topic, in_batches) for _ in range(2)]
            cpu_used = (time.process_time() - cpu_before) / 2
            records, bytes_read, _ = reads[0]
            seconds = min(each for _, _, each in reads)
            plain[name] = records / seconds
            rows.append((name, seconds, f"{plain[name]:,.0f} records/s; {cpu_used:.1f} s of CPU"))
        kept = store.with_name("unify-kept")
        store.rename(kept)
        seconds, told = ready(headwater, cores)
        restoring = (told.ready_ms - told.began_ms) / 1000
        rows.append(
            (
                "without its store",
                seconds,
                f"{records / restoring:,.0f} records/s in the {restoring:.1f} s of restoring",
            )
        )
        pid = headwater.processes["unify-0"].pid
        memory, cpu = machine.resident_bytes(pid) / 1024**2, machine.cpu_seconds(pid)
        headwater.stop("unify-0")
        shutil.rmtree(kept)
        print(f"changelog: {records:,} records, {bytes_read / 1024**2:,.0f} MB; store: {size / 1024**2:,.0f} MB")
        print(f"memory after restoring: {memory:,.0f} MB, CPU until then: {cpu:.1f} s")
        print(f"load at the end {machine.load_average():.1f}\n")
        print("| | s | |\n| --- | ---: | --- |")
        for name, seconds, remark in rows:
            print(f"| {name} | {seconds:.1f} | {remark} |")
        for name, rate in plain.items():
            print(f"\nrestoring reads {records / restoring / rate:.2f} × as fast as {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=["make", "measure"])
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("build") / "bench" / "restart")
    parser.add_argument("--cores", default="", help="cores of the worker, by number")
    parser.add_argument("--broker-cores", default="", help="cores of the broker")
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder, options.profiles)
    else:
        given = [
            {int(core) for core in text.split(",") if core} or None for text in (options.cores, options.broker_cores)
        ]
        measure(options.folder, *given)


if __name__ == "__main__":
    main()
