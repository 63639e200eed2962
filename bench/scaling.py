"""How the cost of an event grows: with segments, profiles, event sizes, partitions; and what a second worker costs.

    python -m bench.scaling [segments] [profiles] [sizes] [workers] [disk]     all by default
    python -m bench.scaling profiles disk --profiles 50000 2000000

`segments`, `profiles` and `sizes` run the unify stage over RocksDB in this process, with the caches a worker has, and
report CPU time; every cost stands beside that of a fixed piece of work, measured in the same moments (`×`), because
neighbours on the machine make both dearer. `workers` runs one and two workers of the shipped role on a Kafka, over
several partition counts, and reports the CPU time of all of them together; `disk` runs one, over ever more profiles,
and reports its rate too: of the last two thirds of the events, the first are for it to warm up with.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bench import machine
from bench.core.job import SPAN_MS, encoded, rules_as_yaml
from bench.segments import touched_rules
from bench.unify import Bench, core_plan
from bench.workspace import SECRET, Committed, Headwater, broker
from pipeline.activation import ActivationPlan
from pipeline.definitions.segments import compile_definitions
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import Event, encode
from pipeline.runtime.ports import Record

START_MS = 1_790_000_000_000
BATCH = 1_500
KEYS = Keys(SECRET.encode())


def record(offset: int, event: Event) -> Record:
    """An event as unify consumes it."""
    return Record("events", 0, offset, KEYS.actor(event.identifiers[0]), encode(event))


def view(number: int, person: int, padding: int = 0) -> Event:
    """A page view."""
    properties: dict[str, Any] = {"path": "/pricing" if number % 2 else "/", "seconds": number % 60}
    if padding:
        properties["text"] = "x" * padding
    at = START_MS + number
    return Event(f"m{number}", "track", "Page Viewed", [f"user_id:u-{person}"], at, at, properties=properties)


def cost(name: str, plan: GenerationPlan, records: Iterable[Record], count: int) -> None:
    """Feed records; print what the last half of them cost."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), plan, BATCH)
        fed = iter(records)
        bench.run(list(islice(fed, count // 2)))
        bench.seconds.clear()
        bench.parts["reference"].clear()
        bench.run(list(fed))
        bench.store.close()
        shown(name, bench)


def shown(name: str, bench: Bench) -> None:
    """Print the cost of an event, and of the fixed piece of work."""
    relative = statistics.median(a / b for a, b in zip(bench.seconds, bench.parts["reference"], strict=True))
    micros = statistics.median(bench.seconds) / BATCH * 1e6
    memory = machine.resident_bytes(os.getpid()) / 1e6
    print(f"{name:28} {micros:7.1f} µs an event, {relative:6.1f} ×; memory {memory:,.0f} MB", flush=True)


def segments(given: argparse.Namespace) -> None:
    """10 to 1,000 segments, of which an event touches five; then with half of the others absences, of which every
    profile is a member: what it is a member of is written again with it."""
    chance = random.Random(3)
    people = [chance.randrange(500) for _ in range(given.events)]
    for absences in (False, True):
        for count in (10, 100, 1_000):
            rules = [*touched_rules(), *(_untouched(number, absences) for number in range(count - 5))]
            compiled = compile_definitions([({"segment": f"s{n}", "when": rule}, 1) for n, rule in enumerate(rules)])
            plan = GenerationPlan(0, builtin_rules(), compiled, ActivationPlan())
            fed = (record(number, view(number, person)) for number, person in enumerate(people))
            cost(f"{count:,} segments{', half absences' if absences else ''}", plan, fed, given.events)


def _untouched(number: int, absences: bool) -> dict[str, Any]:
    where = {"properties.path": f"/products/{number}"}
    rule = {"performed": {"event": "Page Viewed", "where": where, "within": f"{1 + number % 30}d"}}
    return {"not": rule} if absences and number % 2 else rule


def sizes(given: argparse.Namespace) -> None:
    """Events of 0.2 to 10 kB."""
    for padding in (0, 1_000, 10_000):
        fed = (record(number, view(number, number * 7_919 % 5_000, padding)) for number in range(given.events))
        cost(f"{padding + 200:,} bytes an event", core_plan(), fed, given.events)


def profiles(given: argparse.Namespace) -> None:
    """Events of random people among ever more, who have all been seen before. One process: memory may only grow."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), core_plan(), BATCH)
        chance = random.Random(5)
        number = there = 0
        for most in given.profiles:
            while there < most:
                until = min(most, there + 50_000)
                bench.run([record(number + person, view(number + person, person)) for person in range(there, until)])
                number, there = number + until - there, until
            bench.seconds.clear()
            bench.parts["reference"].clear()
            made = (record(number + n, view(number + n, chance.randrange(most))) for n in range(given.events))
            bench.run(list(made))
            number += given.events
            shown(f"{most:,} profiles", bench)
        bench.store.close()


def workers(given: argparse.Namespace) -> None:
    """The same events by one worker and by two, and with more partitions."""
    start_ms = time.time_ns() // 1_000_000 - SPAN_MS
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        for partitions, slots in ((4, 1), (4, 2), (1, 1), (16, 1), (64, 1)):
            name = f"scale-{partitions}-{slots}."
            workspace = Headwater.begin(kafka, name, partitions, Path(folder) / name, rules_as_yaml())
            try:
                workspace.become_ready()
                topic = workspace.settings.topic("events")
                start = kafka.ends(topic)
                fed = encoded(given.events, 5_000, start_ms)
                kafka.fill(topic, ((KEYS.actor(text), value) for text, value in fed))
                committed = Committed(kafka, f"{name}unify", topic, partitions, start)
                pids = [workspace.start("unify", slot=str(slot)).pid for slot in range(slots)]
                broker_before = machine.cpu_seconds(kafka.pid)
                _until(committed, given.events)
                spent = sum(machine.cpu_seconds(pid) for pid in pids)
                of_broker = machine.cpu_seconds(kafka.pid) - broker_before
            finally:
                workspace.stop()
            kafka.delete(kafka.topics(name))
            print(
                f"{partitions} partitions, {slots} workers: {spent / given.events * 1e6:6.1f} µs CPU an event, start"
                f" included; broker {of_broker / given.events * 1e6:.1f} µs",
                flush=True,
            )


def disk(given: argparse.Namespace) -> None:
    """The same as `profiles`, by the shipped role: its topics, its changelog and its disk."""
    chance = random.Random(5)
    number = there = 0
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        workspace = Headwater.begin(kafka, "disk.", 4, Path(folder) / "disk", rules_as_yaml())
        try:
            workspace.become_ready()
            topic = workspace.settings.topic("events")
            committed = Committed(kafka, "disk.unify", topic, 4, kafka.ends(topic))

            def fill(people: Sequence[int]) -> int:
                views = (view(number + place, person) for place, person in enumerate(people))
                kafka.fill(topic, ((KEYS.actor(event.identifiers[0]), encode(event)) for event in views))
                return number + len(people)

            for most in given.profiles:
                # Partitions are not read evenly: all have been seen before the events that count are written.
                number, there = fill(range(there, most)), most
                pid = workspace.start("unify").pid
                _until(committed, number)
                memory = machine.resident_bytes(pid)
                workspace.stop("unify-0")
                number = fill([chance.randrange(most) for _ in range(given.events)])
                pid = workspace.start("unify").pid
                _until(committed, number - given.events * 2 // 3)
                began, before, records = time.perf_counter(), machine.cpu_seconds(pid), committed.records()
                _until(committed, number)
                seconds, spent, done = time.perf_counter() - began, machine.cpu_seconds(pid) - before, number - records
                memory = max(memory, machine.resident_bytes(pid))
                print(
                    f"{most:,} profiles by the role: {done / seconds:,.0f} events/s, {spent / done * 1e6:.1f} µs CPU an"
                    f" event; memory {memory / 1e6:,.0f} MB",
                    flush=True,
                )
                workspace.stop("unify-0")
        finally:
            workspace.stop()


def _until(committed: Committed, records: int) -> None:
    while committed.records() < records:
        time.sleep(0.1)


PARTS = {"segments": segments, "sizes": sizes, "profiles": profiles, "workers": workers, "disk": disk}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--profiles", type=int, nargs="+", default=[50_000, 500_000, 2_000_000])
    given = parser.parse_args()
    for name in given.parts or PARTS:
        PARTS[name](given)


if __name__ == "__main__":
    main()
