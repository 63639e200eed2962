"""What sealing the history costs: the whole job with and without, by turns in one run.

    python -m bench.sealing [--events 80000] [--people 8000] [--turns 4]

Each turn is a workspace of its own, filled beforehand, with the rules of the core job: sealed, open, open, sealed, and
so on, so that what the machine does meanwhile falls on both. The rate is that of the events from when ingest has read
the first of them, with unify waiting, until unify has committed the last; the bytes are those of the segments of
`events`.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from bench import machine
from bench.core.job import rules_as_yaml
from bench.whole import raw_records
from bench.workspace import Broker, Committed, Headwater, broker

ROLES = ("ingest", "identity", "unify")
_WITHIN_S = 200
_READY_S = 5


def turn(
    kafka: Broker, data: Path, name: str, sealed: bool, given: argparse.Namespace, folder: Path
) -> dict[str, float]:
    """One turn: events/s, CPU µs an event by role, bytes an event in the history."""
    partitions = given.partitions
    workspace = Headwater.begin(kafka, f"{name}.", partitions, folder, rules_as_yaml())
    try:
        workspace.become_ready()
        events, raw = workspace.settings.topic("events"), workspace.settings.topic("raw")
        start = kafka.ends(events)
        size = _bytes(data, events)
        kafka.fill(raw, raw_records(given.events, given.people))
        environment = {"HEADWATER_SEAL_EVENTS": str(sealed).lower()}
        pids = {"unify": workspace.start("unify", environment=environment).pid}
        time.sleep(_READY_S)
        pids["ingest"] = workspace.start("ingest", environment=environment).pid
        pids["identity"] = workspace.processes["identity-0"].pid
        done = Committed(kafka, f"{name}.unify", events, partitions, start)
        read = Committed(kafka, f"{name}.ingest", raw, partitions, [0] * partitions)
        _wait(lambda: read.records() > 0)
        before = {role: machine.cpu_seconds(pid) for role, pid in pids.items()}
        first, began = read.records(), time.perf_counter()
        _wait(lambda: read.records() >= given.events)
        ends = sum(kafka.ends(events)) - sum(start)
        _wait(lambda: done.records() >= ends - partitions)
        seconds = time.perf_counter() - began
        counted = given.events - first
        found = {role: (machine.cpu_seconds(pid) - before[role]) / counted * 1e6 for role, pid in pids.items()}
        found |= {"events/s": counted / seconds, "bytes": (_bytes(data, events) - size) / given.events}
    finally:
        workspace.stop()
    kafka.delete(kafka.topics(f"{name}."))
    return found


def _bytes(data: Path, topic: str) -> int:
    return sum(file.stat().st_size for file in data.glob(f"*/data/{topic}-*/*.log"))


def _wait(until: object) -> None:
    assert callable(until)
    give_up = time.monotonic() + _WITHIN_S
    while not until():
        if time.monotonic() > give_up:
            raise RuntimeError(f"no end within {_WITHIN_S} s")
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=80_000)
    parser.add_argument("--people", type=int, default=8_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--turns", type=int, default=4)
    given = parser.parse_args()
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as folder, broker(folder=Path(folder) / "kafka") as kafka:
        for number in range(given.turns):
            sealed = number % 4 in (0, 3)
            data, own = Path(folder) / "kafka", Path(folder) / f"turn-{number}"
            one = turn(kafka, data, f"sealing{number}", sealed, given, own)
            found[sealed].append(one)
            cpu = ", ".join(f"{role} {one[role]:.0f}" for role in ROLES)
            print(
                f"{'sealed' if sealed else 'open  '} {one['events/s']:8,.0f} events/s; CPU µs an event: {cpu}; "
                f"{one['bytes']:.0f} bytes an event (load {machine.load_average():.1f})",
                flush=True,
            )
    for what in ("events/s", *ROLES, "bytes"):
        sealed, plain = (statistics.median(one[what] for one in found[kind]) for kind in (True, False))
        print(f"{what:9} sealed {sealed:8,.0f}, open {plain:8,.0f}: {sealed / plain:.2f}×")


if __name__ == "__main__":
    main()
