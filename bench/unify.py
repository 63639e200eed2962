"""What unify costs a CPU for an event of the core job, without Kafka: the task's real state over RocksDB, in batches.

    python -m bench.unify [--events 200000] [--people 20000] [--batch 1500] [--profile]

`first` are the first events of a person, `steady` the last third of the run. Kafka is replaced by a list; consuming
and producing are measured by `bench.core`.
"""

import argparse
import cProfile
import gc
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
from pipeline.records import decode_events_record, encode
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.garbage import collecting_between
from pipeline.runtime.overlay import Outbox, TaskState
from pipeline.runtime.ports import Record
from pipeline.runtime.rocksdb import RocksStores
from pipeline.runtime.settings import WorkerSettings
from pipeline.unify import UnifyStage


def core_plan() -> GenerationPlan:
    """The plan of the core job's rules."""
    documents = [(written.body, 1) for written in load_text(rules_as_yaml())]
    return GenerationPlan(0, builtin_rules(), compile_definitions(documents), ActivationPlan())


class Bench:
    """A unify task over a store, fed in batches as the worker does it."""

    def __init__(self, folder: Path, plan: GenerationPlan, batch: int) -> None:
        settings = WorkerSettings()
        self.store = RocksStores(folder).open(0)
        self.stage = UnifyStage(0, Keys(b"bench"), lambda _: plan)
        self.state = TaskState(
            self.store,
            self.stage.encode,
            self.stage.decode,
            settings.cache_objects,
            settings.cache_bytes,
            self.stage.let_go,
            self.stage.resting,
        )
        self.batch = batch
        self.bytes: dict[str, int] = {}
        self.seconds: list[float] = []
        self.parts: dict[str, list[float]] = {
            "step": [],
            "documents": [],
            "encode": [],
            "store": [],
            "garbage": [],
            "reference": [],
        }
        self.gc_seconds = 0.0
        gc.callbacks.append(self._collected)
        self._over = collecting_between(lambda: False)

    def _collected(self, phase: str, _: object) -> None:
        now = time.thread_time()
        if phase == "start":
            self._gc_began = now
        else:
            self.gc_seconds += now - self._gc_began

    def _reference(self, record: Record) -> float:
        """The CPU time of a fixed piece of work (decoding and encoding an event), scaled to a batch: how fast this
        machine is at this moment, beside whatever its neighbours do."""
        began = time.thread_time()
        for _ in range(400):
            encode(decode_events_record(record.value or b""))
        return (time.thread_time() - began) / 400 * self.batch

    def run(self, records: list[Record]) -> None:
        """Take all records; the CPU time of each batch goes into `seconds`."""
        for start in range(0, len(records), self.batch):
            outbox = Outbox()
            marks = [time.thread_time()]
            batch = records[start : start + self.batch]
            self.stage.step_many(batch, range(len(batch)), self.state, outbox)
            outbox.at(self.batch)
            marks.append(time.thread_time())
            self.stage.finish(self.state, outbox)
            produced = [*outbox.take_logged(), *outbox.take_upserts()]
            marks.append(time.thread_time())
            changes = self.state.changes()
            marks.append(time.thread_time())
            self.store.write(changes.values, changes.timers_gone, changes.timers_new, StoreMeta())
            self.state.committed()
            marks.append(time.thread_time())
            self._over()
            marks.append(time.thread_time())
            for part, one, next_one in zip(self.parts.values(), marks, marks[1:], strict=False):
                part.append(next_one - one)
            self.seconds.append(marks[-1] - marks[0])
            self.parts["reference"].append(self._reference(records[start]))
            for topic, value, _, _ in produced:
                self.bytes[topic] = self.bytes.get(topic, 0) + len(value or b"")
            self.bytes["changelog"] = self.bytes.get("changelog", 0) + sum(len(v or b"") for _, v in changes.values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--people", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=1_500)
    parser.add_argument("--profile", action="store_true", help="the functions that take most of the steady part")
    given = parser.parse_args()
    keys = Keys(b"bench")
    start_ms = 1_790_000_000_000
    records = [
        Record("events", 0, offset, keys.actor(text), value)
        for offset, (text, value) in enumerate(encoded(given.events, given.people, start_ms - SPAN_MS))
    ]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), core_plan(), given.batch)
        steady = given.events * 2 // 3
        bench.run(records[:steady])
        of_first = max(1, len(bench.seconds) // 20)
        first = sum(bench.seconds[:of_first]) / (of_first * given.batch) * 1e6
        bench.seconds, bench.gc_seconds = [], 0.0
        for part in bench.parts.values():
            part.clear()
        profiler = cProfile.Profile()
        if given.profile:
            profiler.enable()
        bench.run(records[steady:])
        profiler.disable()
        seconds = sum(bench.seconds)
        bench.store.close()
    counted = given.events - steady

    def shown(values: list[float]) -> str:
        # Neighbours make everything dearer; the cheapest fifth of the batches tells most of the code itself.
        return f"{sorted(values)[len(values) // 5] / given.batch * 1e6:.1f}"

    relative = [one / reference for one, reference in zip(bench.seconds, bench.parts["reference"], strict=True)]
    print(
        f"{sorted(relative)[len(relative) // 2]:.2f} × the reference; first {first:.1f} µs an event, "
        f"steady {seconds / counted * 1e6:.1f}, cheapest fifth {shown(bench.seconds)}: "
        + ", ".join(f"{name} {shown(values)}" for name, values in bench.parts.items())
        + f"; collecting {bench.gc_seconds / counted * 1e6:.1f}; bytes written an event: "
        + ", ".join(f"{topic} {size / given.events:.0f}" for topic, size in sorted(bench.bytes.items()))
    )
    if given.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    main()
