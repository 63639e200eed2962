"""A replay with its roles as they are shipped: a history with twenty rules into a second workspace on the same Kafka.

    python -m bench.replay [--events 300000] [--people 20000] [--ahead 16000 1000] [--days 0.25] [--unbounded]

The events and rules are those of the core job, the old workspace is at rest. It is done when the new workspace has
taken in everything; each `--ahead` begins a new one. `--days` is what the history spans. With `--unbounded` each run is
followed by one in which what is on its way may be apart in time as it will: what the bound of a day costs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import machine
from bench.core.job import SPAN_MS, events, rules_as_yaml
from bench.workspace import SECRET, Headwater, broker, start_pinned, stop
from pipeline.identifiers import Keys
from pipeline.records import encode
from pipeline.runtime.kafka.doors import current_values
from pipeline.runtime.kafka.rest import AtRest
from pipeline.settings import Settings
from pipeline.workspace_view import WorkspaceView

_ROLES = {"run identity": "identity", "run unify": "unify", "replay run": "copier"}
_CLI = ["-m", "pipeline.cli"]
_UNBOUNDED = [
    "-c",
    "from pipeline.replay import copier; copier._DAY_MS = 10**15; from pipeline.cli import main; main()",
]


def replay(old: Headwater, name: str, count: int, ahead: int, bounded: bool = True) -> str:
    """Begin a workspace, fill it, and say how fast it was."""
    settings = old.settings
    environment = {
        "HEADWATER_BOOTSTRAP_SERVERS": old.broker.address,
        "HEADWATER_PREFIX": settings.prefix,
        "HEADWATER_STATE_DIR": str(settings.state_dir),
        "HEADWATER_SECRET": SECRET,
        "HEADWATER_PARTITIONS": str(settings.partitions),
    }
    command = [sys.executable, *(_CLI if bounded else _UNBOUNDED), "replay"]
    made, state = old.folder / f"{name}.yaml", old.folder / name
    begin = ["begin", f"{name}.", "--file", str(made), "--state-dir", str(state)]
    subprocess.run([*command, *begin], env={**os.environ, **environment}, check=True, capture_output=True)
    new = Settings.model_validate({**settings.model_dump(), "prefix": f"{name}.", "state_dir": state, "secret": SECRET})
    settings_of = {"HEADWATER_CONFIG": str(made), "HEADWATER_SECRET": SECRET}
    started = time.perf_counter()
    running = start_pinned(
        [*command, "run", "--with-roles", "--ahead", str(ahead)], settings_of, old.folder / f"{name}.log", None
    )
    view, at_rest, cpu_before = WorkspaceView(new), AtRest(new), machine.cpu_seconds(old.broker.pid)
    try:
        began = copied = 0.0
        first = 0
        while True:
            time.sleep(0.1)
            view.look()
            done = view.position.copied if view.position else 0
            now = time.perf_counter()
            if done and not began:
                began, first = now, done
            copied = copied or (now if done >= count else 0.0)
            if copied and at_rest():
                break
            if running.poll() is not None:
                raise SystemExit(f"the replay ended; see {old.folder}")
        rested = time.perf_counter()
        spent = {
            role: machine.cpu_seconds(pid)
            for pid in (running.pid, *machine.descendants(running.pid))
            for words, role in _ROLES.items()
            if words in machine.command_of(pid)
        }
        spent["broker"] = machine.cpu_seconds(old.broker.pid) - cpu_before
        profiles = len(current_values(new, "profiles"))
    finally:
        view.close()
        stop(running)
    told = ", ".join(f"{role} {seconds / count * 1e6:.1f}" for role, seconds in spent.items())
    rate = (count - first) / (rested - began)
    return (
        f"--ahead {ahead:,}{'' if bounded else ', unbounded'}: {rate:,.0f} events/s until the new"
        f" workspace was at rest ({profiles:,} profiles), {rested - started:.1f} s after the start; the first"
        f" was copied {rested - began:.1f} s before, the last {rested - copied:.1f} s;"
        f" CPU µs an event, starts included: {told}; load {machine.load_average():.1f}"
    )


def spread(count: int, people: int, start_ms: int, span_ms: int) -> Iterator[tuple[str, bytes]]:
    """The events of the core job, (identifier, record value) of each, over another span."""
    for number, event in enumerate(events(count, people, start_ms)):
        event.time = start_ms + number * span_ms // count
        event.received = event.time + 40
        yield event.identifiers[0], encode(event)


def main() -> None:
    """Prepare the history, and replay it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--ahead", type=int, nargs="+", default=[16_000])
    parser.add_argument("--days", type=float, default=SPAN_MS / 86_400_000)
    parser.add_argument("--unbounded", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, broker() as kafka:
        old = Headwater.begin(kafka, "old.", given.partitions, Path(folder), rules_as_yaml())
        try:
            old.become_ready()
        finally:
            old.stop()
        keys = Keys(SECRET.encode())
        span_ms = int(given.days * 86_400_000)
        history = spread(given.events, given.people, time.time_ns() // 1_000_000 - span_ms - 600_000, span_ms)
        kafka.fill(old.settings.topic("events"), ((keys.actor(text), value) for text, value in history))
        for number, ahead in enumerate(given.ahead):
            print(replay(old, f"new{number}", given.events, ahead), flush=True)
            if given.unbounded:
                print(replay(old, f"free{number}", given.events, ahead, bounded=False), flush=True)


if __name__ == "__main__":
    main()
