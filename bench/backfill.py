"""What a backfill costs a CPU for an event of history, without Kafka: the task's real state over RocksDB, in slices.

    python -m bench.backfill [--events 100000] [--people 10000] [--slice 4000] [--profile]

The core job's events are taken in under no rules; then a marker brings the core job's rules, and all of them are read
again. With `--new one` a single new rule, which is what a person usually adds.
"""

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path

from bench.core.job import SPAN_MS, encoded, rules_as_yaml
from pipeline.activation import ActivationPlan
from pipeline.definitions.loader import load_text
from pipeline.definitions.segments import compile_definitions
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import Event, Marker, decode_events_record, encode
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.overlay import Outbox, TaskState
from pipeline.runtime.ports import Record
from pipeline.runtime.rocksdb import RocksStores
from pipeline.runtime.settings import WorkerSettings
from pipeline.segments import NO_SEGMENTS
from pipeline.unify import UnifyStage

ONE_RULE = """
segment: three_pages
when: {performed: {event: Page Viewed, count: {at_least: 3}, within: 30d}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--slice", type=int, default=4_000)
    parser.add_argument("--new", choices=("core", "one"), default="core")
    parser.add_argument("--profile", action="store_true", help="the functions that take most of it")
    given = parser.parse_args()
    rules = [(one.body, 1) for one in load_text(rules_as_yaml() if given.new == "core" else ONE_RULE)]
    plans = [
        GenerationPlan(0, builtin_rules(), NO_SEGMENTS, ActivationPlan()),
        GenerationPlan(1, builtin_rules(), compile_definitions(rules, generation=1), ActivationPlan()),
    ]
    keys = Keys(b"bench")
    records = [
        Record("events", 0, offset, keys.actor(text), value)
        for offset, (text, value) in enumerate(encoded(given.events, given.people, 1_790_000_000_000 - SPAN_MS))
    ]
    last = decode_events_record(records[-1].value or b"")
    assert isinstance(last, Event)
    settings = WorkerSettings()
    with tempfile.TemporaryDirectory() as folder:
        store = RocksStores(Path(folder)).open(0)
        stage = UnifyStage(0, keys, plans.__getitem__)
        state = TaskState(
            store, stage.encode, stage.decode, settings.cache_objects, settings.cache_bytes, stage.let_go, stage.resting
        )

        def commit(outbox: Outbox) -> None:
            stage.finish(state, outbox)
            changes = state.changes()
            store.write(changes.values, changes.timers_gone, changes.timers_new, StoreMeta())
            state.committed()

        for start in range(0, len(records), 1_500):
            outbox = Outbox()
            for record in records[start : start + 1_500]:
                stage.step(record, state, outbox)
            commit(outbox)
        outbox = Outbox()
        marker = encode(Marker(1, last.received))
        stage.step(Record("events", 0, len(records), None, marker), state, outbox)
        commit(outbox)
        spent: list[float] = []
        profiler = cProfile.Profile()
        if given.profile:
            profiler.enable()
        while (bounds := stage.history(state)) is not None:
            start, end = bounds
            reached = min(end, start + given.slice)
            outbox = Outbox()
            began = time.thread_time()
            stage.fold_history(records[start:reached], reached, state, outbox)
            commit(outbox)
            spent.append((time.thread_time() - began) / (reached - start) * 1e6)
        profiler.disable()
        store.close()
    # Neighbours make everything dearer; the cheapest fifth of the slices tells most of the code itself.
    print(f"{given.events} events, {given.people} people, slices of {given.slice}, {len(rules)} new rules:")
    cheap = sorted(spent)[len(spent) // 5]
    print(f"{cheap:.1f} µs CPU an event (all slices {sum(spent) / len(spent):.1f}): {1e6 / cheap:,.0f} events/s a core")
    if given.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(18)


if __name__ == "__main__":
    main()
