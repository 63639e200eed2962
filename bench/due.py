"""What a profile that falls due costs a CPU, without Kafka: ticks and their continuations over RocksDB.

    python -m bench.due [--profiles 50000] [--rules 1] [--profile]

Every profile has one event and leaves a segment (or `--rules` of them) within one second. `longest` is how long a live
event that comes at the worst moment waits for the tick before it. `bench.deadlines` measures the same on a broker.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

from bench.unify import Bench
from pipeline.activation import ActivationPlan
from pipeline.definitions.loader import load_text
from pipeline.definitions.segments import compile_definitions
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import Event, Tick, encode
from pipeline.runtime.ports import Record

WINDOW_MS = 3_600_000
SPREAD_MS = 1_000


class Ticks(Bench):
    """The bench of unify, fed with ticks too: they are no piece of work to compare with."""

    def cold(self) -> None:
        """Lose every object in memory: whoever falls due has not been heard of for long."""
        self.stage.forget()
        self.state.drop()

    def _reference(self, record: Record) -> float:
        return super()._reference(record) if record.topic == "events" else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profiles", type=int, default=50_000)
    parser.add_argument("--rules", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="the functions that take most of it")
    given = parser.parse_args()
    keys = Keys(b"bench")
    start_ms = 1_790_000_000_000
    text = "\n---\n".join(
        f"segment: due{n}\nwhen: {{performed: {{event: Seen, within: {WINDOW_MS // 1000}s}}}}"
        for n in range(given.rules)
    )
    documents = [(written.body, 1) for written in load_text(text)]
    plan = GenerationPlan(0, builtin_rules(), compile_definitions(documents), ActivationPlan())
    records = []
    for n in range(given.profiles):
        at = start_ms + n * SPREAD_MS // given.profiles
        event = Event(f"d-{n}", "track", "Seen", [f"user_id:d{n}"], at, start_ms + SPREAD_MS)
        records.append(Record("events", 0, n, keys.actor(event.identifiers[0]), encode(event)))
    with tempfile.TemporaryDirectory() as folder:
        bench = Ticks(Path(folder), plan, 1_500)
        bench.run(records)
        bench.cold()
        bench.batch = 1
        bench.seconds = []
        before = dict(bench.bytes)
        profiler = cProfile.Profile()
        if given.profile:
            profiler.enable()
        tick = Record("links", 0, 0, None, encode(Tick(clock=start_ms + WINDOW_MS + 2 * SPREAD_MS)))
        wall, cpu, ticks = time.perf_counter(), time.process_time(), 0
        while bench.state.first_wake() is not None:
            bench.run([tick])
            ticks += 1
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        profiler.disable()
    spent = sum(bench.seconds)
    written = sum(bench.bytes.values()) - sum(before.values())
    print(
        f"{given.profiles:,} profiles in {ticks} ticks: {spent / given.profiles * 1e6:.0f} µs of CPU each "
        f"({cpu / given.profiles * 1e6:.0f} with RocksDB's threads), "
        f"{given.profiles / spent:,.0f}/s and core; longest tick {max(bench.seconds) * 1e3:.0f} ms; "
        f"{written / given.profiles:.0f} bytes written each; {wall:.0f} s of wall time"
    )
    if given.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
