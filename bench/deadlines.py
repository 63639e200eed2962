"""Deadlines that fall due together: how fast they drain, how exact they are, and what live events feel of it.

    python -m bench.deadlines --profiles 1000000 --rate 500

Every profile enters a segment whose window ends within one second for all of them. Live events of other people run at
`--rate` before and while they drain: each is somebody's first purchase, who enters another segment. `at` of every exit
is compared with its deadline. Who watches is one process of its own, as a subscriber would be: it reads every exit too.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench import hops, machine
from bench.latency import Roles, rows, what_it_took
from bench.workspace import SECRET, Broker, Headwater, broker
from pipeline.identifiers import Keys
from pipeline.records import Event, encode
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings

SPREAD_MS = 1_000
BUYERS = "segment: buyers\nwhen: {performed: {event: Order Completed, within: 30d}}"


class _Change(msgspec.Struct):
    profile_id: str
    segment: str
    change: str
    at: int


_of_change = msgspec.json.Decoder(_Change).decode


class Exits:
    """The exits of the segment: how many there are, how many with another `at` than their deadline, and when the last
    was handed over to Kafka, s."""

    def __init__(self, profiles: int, base_ms: int, window_ms: int) -> None:
        self.given = (profiles, base_ms, window_ms)
        self.count = self.inexact = 0
        self.last_s = 0.0
        self._deadlines: dict[str, int] = {}

    def begin(self) -> None:
        """In the process that watches: know every deadline. It is much, and made where it is needed."""
        keys, window_ms = Keys(SECRET.encode()), self.given[2]
        self._deadlines = {keys.profile_id(f"user_id:d{n}"): at + window_ms for n, at in event_times(*self.given)}

    def takes(self, change: bytes, made: float) -> bool:
        """Count an exit. Everything of this segment is nothing to the live events."""
        seen = _of_change(change)
        if seen.segment != "due":
            return False
        if seen.change == "exited":
            self.count += 1
            self.inexact += seen.at != self._deadlines[seen.profile_id]
            self.last_s = made
        return True

    def __getstate__(self) -> tuple[tuple[int, int, int], int, int, float]:
        return self.given, self.count, self.inexact, self.last_s

    def __setstate__(self, kept: tuple[tuple[int, int, int], int, int, float]) -> None:
        self.given, self.count, self.inexact, self.last_s = kept
        self._deadlines = {}


def event_times(profiles: int, base_ms: int, _window_ms: int) -> Iterator[tuple[int, int]]:
    """Each profile's number, and the time of its only event, ms."""
    return ((n, base_ms - SPREAD_MS + n * SPREAD_MS // profiles) for n in range(profiles))


class Live:
    """Purchases of new people at a pace."""

    def __init__(self, settings: Settings, rate: float, label: str, seconds: float) -> None:
        self._sent = list(hops.all_new(int(rate * seconds), 0, label))
        self._sender = hops.Sender(str(settings.bootstrap_servers), settings.topic("raw"), self._sent, rate)
        self.times: list[float] = []

    def end(self) -> None:
        """Wait until all are sent."""
        self.times, _ = self._sender.end()

    def ways(
        self, seen: tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]], from_s: float, to_s: float
    ) -> list[hops.Hops]:
        """The ways of those that were sent between these times."""
        chosen = [(event, at) for event, at in zip(self._sent, self.times, strict=True) if from_s <= at < to_s]
        found, without = hops.ways([event for event, _ in chosen], [at for _, at in chosen], *seen)
        if without:
            print(f"**{len(without)} events without an answer**")
        return found


def _fill(workspace: Headwater, exits: Exits, until_s: float) -> int:
    """Make everybody a member, until a time; how many there are."""
    keys = Keys(SECRET.encode())
    profiles, base_ms, _ = exits.given

    def events() -> Iterator[tuple[bytes, bytes]]:
        for n, at in event_times(*exits.given):
            event = Event(f"d-{n}", "track", "Seen", [f"user_id:d{n}"], at, base_ms)
            yield keys.actor(event.identifiers[0]), encode(event)

    entered = 0
    with TopicReader(workspace.settings, ["segment-changes"]) as reader:
        produce_all(workspace.settings, "events", events())
        while entered < profiles and time.time() < until_s:
            entered += len(reader.read(10_000, 0.5))
    return entered


def measure(kafka: Broker, folder: Path, given: argparse.Namespace, environment: dict[str, str]) -> list[str]:
    """Load, measure, let them fall due and measure again, in a workspace of its own. Lines to be shown."""
    window_s = given.load_seconds
    due = f"segment: due\nwhen: {{performed: {{event: Seen, within: {window_s}s}}}}"
    rules = f"{due}\n---\n{BUYERS}"
    workspace = Headwater.begin(kafka, f"deadlines-{int(time.time())}.", given.partitions, folder, rules)
    roles = Roles(workspace, kafka, environment)
    try:
        time.sleep(8)
        base_ms = int(time.time() * 1_000)
        due_s = base_ms / 1_000 + window_s
        exits = Exits(given.profiles, base_ms, window_s * 1_000)
        entered = _fill(workspace, exits, due_s - given.seconds - 15)
        if not entered:
            sys.exit("nobody entered in time: give --load-seconds")
        notes = [f"{entered:,} profiles had entered {time.time() - base_ms / 1_000:.0f} s after the start"]
        watcher = hops.Watcher(kafka.address, workspace.settings.prefix, exits)
        before = Live(workspace.settings, given.rate, "before", given.seconds + 5)
        time.sleep(5)
        cpu, counted, began = roles.cpu(), roles.counted(), time.time()
        time.sleep(given.seconds)
        told = what_it_took(counted, roles.counted(), cpu, roles.cpu(), time.time() - began)
        notes.append("before: " + "; ".join(told))
        before.end()
        while time.time() < due_s - 7:
            time.sleep(0.2)
        during = Live(workspace.settings, given.rate, "during", due_s + given.seconds - time.time())
        while time.time() < due_s:
            time.sleep(0.01)
        cpu, counted, began = roles.cpu(), roles.counted(), time.time()
        while exits.count < entered and time.time() < due_s + 600:
            time.sleep(0.5)
            exits = watcher.aside()
        told = what_it_took(counted, roles.counted(), cpu, roles.cpu(), time.time() - began)
        notes.append("while they drained: " + "; ".join(told))
        during.end()
        time.sleep(2)
        seen = watcher.end()
    finally:
        workspace.stop()
    drained_s = exits.last_s - due_s
    return [
        f"{exits.count:,} exits, the last {drained_s:.1f} s after the last deadline; {exits.inexact} inexact `at`",
        f"| live, {given.rate:,.0f} events/s | events | hop | p50 | p95 | p99 | p99.9 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows("before", before.ways(seen, before.times[int(5 * given.rate)], due_s)),
        *rows("while they drain", during.ways(seen, due_s, exits.last_s)),
        *notes,
        f"load {machine.load_average():.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--load-seconds", type=int, default=600, help="time to load the profiles before they fall due")
    parser.add_argument("--seconds", type=float, default=20, help="of live events, before and while they drain")
    parser.add_argument("--broker", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the broker")
    parser.add_argument("--role", nargs="*", default=[], metavar="NAME=VALUE", help="environment of the roles")
    given = parser.parse_args()
    properties, environment = (dict(each.split("=", 1) for each in pairs) for pairs in (given.broker, given.role))
    with tempfile.TemporaryDirectory() as folder, broker(properties=properties) as kafka:
        print("\n".join(measure(kafka, Path(folder), given, environment)))


if __name__ == "__main__":
    main()
