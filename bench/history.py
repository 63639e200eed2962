"""A rule added to a running system with a long history, through the shipped roles on a real broker.

    python -m bench.history all FOLDER         everything below, one after the other; FOLDER is made
    python -m bench.history prepare FOLDER --events 1000000 --people 50000   and leave it running: it holds the broker
    python -m bench.history measure FOLDER     the rate of a backfill with and without live events, and their latency
    python -m bench.history kills FOLDER       identity and unify killed ten times in mid-backfill

A rule that was there from the start has the same members as each new one, because all of the history lies within both
windows: the two are compared, and with a plain count. The rate is that of the events read again, while any are left.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from bench import hops
from bench.core.job import SPAN_MS, encoded, events
from bench.latency import WARM_UP_S, percentile
from bench.machine import cpu_seconds, load_average
from bench.workspace import SECRET, Broker, Headwater, broker, start_pinned, stop
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import Readiness, apply
from pipeline.identifiers import Keys
from pipeline.runtime.kafka.doors import current_values
from pipeline.runtime.kafka.rest import AtRest
from pipeline.settings import Settings

PREFIX = "history."
METRICS_PORT = 19_461
BUYERS = "segment: buyers\nwhen: {performed: {event: Order Completed, within: 30d}}\n"
RULE = "segment: NAME\nwhen: {performed: {event: Page Viewed, count: {at_least: 9}, within: DAYSd}}\n"
ALWAYS = RULE.replace("NAME", "always").replace("DAYS", "30")


def prepare(folder: Path, count: int, people: int, partitions: int) -> None:
    """Fill a workspace with a history that unify has taken in, and hold its broker."""
    start_ms = int(time.time() * 1000) - SPAN_MS - 600_000
    with broker() as kafka:
        headwater = Headwater.begin(kafka, PREFIX, partitions, folder, BUYERS + "---\n" + ALWAYS)
        headwater.become_ready()
        keys = Keys(SECRET.encode())
        kafka.fill(PREFIX + "events", ((keys.actor(text), value) for text, value in encoded(count, people, start_ms)))
        began = time.monotonic()
        headwater.start("unify")
        _rest(headwater.settings, 3_600)
        print(f"{count:,} events are in, {time.monotonic() - began:.0f} s", flush=True)
        headwater.stop()
        facts = {"address": kafka.address, "pid": kafka.pid, "events": count, "people": people, "start_ms": start_ms}
        (folder / "prepared.json").write_text(json.dumps({**facts, "partitions": partitions}))
        print("prepared", flush=True)
        while True:
            time.sleep(60)


def _rest(settings: Settings, within_s: float) -> None:
    at_rest, until = AtRest(settings), time.monotonic() + within_s
    while not at_rest():
        if time.monotonic() > until:
            raise SystemExit("it does not come to rest")
        time.sleep(0.1)


class Running:
    """The prepared workspace with its roles."""

    def __init__(self, folder: Path) -> None:
        self.facts = json.loads((folder / "prepared.json").read_text())
        self.folder = folder
        self.headwater = Headwater.begin(
            Broker(self.facts["address"], self.facts["pid"]), PREFIX, self.facts["partitions"], folder
        )
        self.settings = self.headwater.settings

    def start(self, *roles: str) -> None:
        """Start these roles; unify shows its metrics."""
        for role in roles:
            environment = {
                "HEADWATER_BOOTSTRAP_SERVERS": self.facts["address"],
                "HEADWATER_PREFIX": PREFIX,
                "HEADWATER_STATE_DIR": str(self.settings.state_dir),
                "HEADWATER_SECRET": SECRET,
                "HEADWATER_PARTITIONS": str(self.facts["partitions"]),
            }
            if role == "unify":
                environment["HEADWATER_METRICS_PORT"] = str(METRICS_PORT)
            command = [sys.executable, "-m", "pipeline.cli", "run", role, "--end-with", str(os.getpid())]
            self.headwater.processes[role] = start_pinned(command, environment, self.folder / f"{role}.log", None)

    def left(self) -> int | None:
        """Offsets of history still to be read; None while unify does not say."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{METRICS_PORT}/metrics", timeout=1) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("headwater_history_records_left{"):
                        return int(float(line.rpartition(" ")[2]))
        except OSError:
            pass
        return None

    def apply(self, name: str, days: int) -> int:
        """Add a rule; its generation."""
        written = load_text(RULE.replace("NAME", name).replace("DAYS", str(days)))
        generation = apply(self.settings, written).generation
        assert generation is not None
        return generation.number

    def members(self, segment: str) -> set[str]:
        """The members by the published table."""
        rows = current_values(self.settings, "segment-members")
        return {key.decode().partition("/")[2] for key in rows if key.startswith(segment.encode() + b"/")}

    def counted(self) -> set[str]:
        """The members by a plain count."""
        facts, keys, visits = self.facts, Keys(SECRET.encode()), dict[str, int]()
        for event in events(facts["events"], facts["people"], facts["start_ms"]):
            if event.event == "Page Viewed":
                visits[event.identifiers[0]] = visits.get(event.identifiers[0], 0) + 1
        return {keys.profile_id(person) for person, count in visits.items() if count >= 9}


def backfill(running: Running, name: str, days: int) -> str:
    """Add a rule and watch its history being read; what came of it."""
    readiness = Readiness(running.settings)
    worker = running.headwater.processes["unify"].pid
    began, spent_s = time.monotonic(), cpu_seconds(worker)
    generation = running.apply(name, days)
    seen: list[tuple[float, int]] = []
    ready = threading.Event()
    waiter = threading.Thread(target=lambda: (readiness.wait(generation, 600), ready.set()))
    waiter.start()
    while not ready.is_set():
        left = running.left()
        if left:
            seen.append((time.monotonic(), left))
        time.sleep(0.1)
    ready_s, spent_s = time.monotonic() - began, cpu_seconds(worker) - spent_s
    readiness.close()
    reading_s = seen[-1][0] - seen[0][0] if len(seen) > 1 else ready_s
    read = seen[0][1] - seen[-1][1] if len(seen) > 1 else running.facts["events"]
    return (
        f"{read / max(reading_s, 0.1):,.0f} events/s of history (over {read:,} of them), in force {ready_s:.1f} s after"
        f" the apply; {spent_s / running.facts['events'] * 1e6:.1f} µs of the worker's CPU for each event of history,"
        f" live ones included; load {load_average():.1f}"
    )


def measure(folder: Path, rate: float, seconds: float) -> None:
    """Backfills without and with live events, and the latency of these before and during one."""
    running = Running(folder)
    running.start("identity", "unify", "ingest")
    try:
        _rest(running.settings, 120)
        print("alone:", backfill(running, "alone", 29), flush=True)
        before = latencies(running, rate, seconds, f"before-{time.time():.0f}")
        _say(f"live at {rate:g}/s before", before)
        during: list[float] = []
        name = f"during-{time.time():.0f}"
        live = threading.Thread(target=lambda: during.extend(latencies(running, rate, seconds, name)))
        live.start()
        time.sleep(WARM_UP_S + 2)
        print("beside live events:", backfill(running, "beside", 28), flush=True)
        live.join()
        _say(f"live at {rate:g}/s during", during)
        _rest(running.settings, 120)
        _compare(running, "alone", "beside")
    finally:
        running.headwater.stop()


def latencies(running: Running, rate: float, seconds: float, label: str) -> list[float]:
    """Of events that each make a member, `rate` a second: ms from produce to the segment change being readable."""
    address = str(running.settings.bootstrap_servers)
    sent = list(hops.all_new(int(rate * (seconds + WARM_UP_S)), 0, label))
    watcher = hops.Watcher(address, PREFIX)
    times, _ = hops.Sender(address, running.settings.topic("raw"), sent, rate).end()
    seen = -1
    while (now := watcher.seen()) != seen:
        seen = now
        time.sleep(1)
    _, changed = watcher.end()
    first = int(rate * WARM_UP_S)
    pairs = list(zip(sent, times, strict=True))[first:]
    return [(changed[one.message_id][1] - at) * 1_000 for one, at in pairs if one.message_id in changed]


def _say(what: str, found: list[float]) -> None:
    shown = ", ".join(f"p{share:g} {percentile(found, share / 100):.0f}" for share in (50, 95, 99))
    print(f"{what}: {len(found):,} events, ms from produce to segment-changes {shown}", flush=True)


def _compare(running: Running, *segments: str) -> None:
    always, counted = running.members("always"), running.counted()
    print(f"always: {len(always):,} members; {'equal to' if always == counted else 'NOT'} a plain count")
    for segment in segments:
        found = running.members(segment)
        same = ", ".join(
            f"{'equal to' if found == other else f'DIFFERENT in {len(found ^ other)} from'} {name}"
            for name, other in (("always", always), ("a plain count", counted))
        )
        print(f"{segment}: {len(found):,} members, {same}", flush=True)


def kills(folder: Path, times: int, seed: int) -> None:
    """Kill identity and unify while history is being read, again and again."""
    running = Running(folder)
    chance = random.Random(seed)
    running.start("identity", "unify")
    name, days = f"killed{seed}", 27 - seed
    try:
        _rest(running.settings, 300)
        readiness = Readiness(running.settings)
        generation = running.apply(name, days)
        for number, left in enumerate(_reading(running, times), 1):
            time.sleep(chance.uniform(0, 0.4))
            for role in ("unify", "identity"):
                running.headwater.processes[role].kill()
                running.headwater.processes[role].wait()
            print(f"killed {number} with {left:,} left", flush=True)
            running.start("identity", "unify")
        assert readiness.wait(generation, 300), "not in force"
        _rest(running.settings, 300)
        _compare(running, name)
    finally:
        for process in running.headwater.processes.values():
            stop(process)


def everything(folder: Path, arguments: list[str], given: argparse.Namespace) -> None:
    """Prepare in a process of its own, measure, kill, and take everything down."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "bench.history", "prepare", str(folder), *arguments]
    holder = subprocess.Popen(command)
    try:
        while not (folder / "prepared.json").exists():
            if holder.poll() is not None:
                raise SystemExit("it could not be prepared")
            time.sleep(0.5)
        measure(folder, given.rate, given.seconds)
        kills(folder, given.kills, given.seed)
    finally:
        stop(holder)


def _reading(running: Running, times: int) -> Iterator[int]:
    """The history left, each time that unify is seen to read on it."""
    for _ in range(times):
        until = time.monotonic() + 120
        while not (left := running.left()):
            if time.monotonic() > until:
                print("nothing is left to be read: fewer kills than asked for")
                return
            time.sleep(0.02)
        yield left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("all", "prepare", "measure", "kills"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--people", type=int, default=50_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if given.what == "all":
        sizes = ["--events", given.events, "--people", given.people, "--partitions", given.partitions]
        everything(given.folder, [str(one) for one in sizes], given)
    elif given.what == "prepare":
        prepare(given.folder, given.events, given.people, given.partitions)
    elif given.what == "measure":
        measure(given.folder, given.rate, given.seconds)
    else:
        kills(given.folder, given.kills, given.seed)


if __name__ == "__main__":
    main()
