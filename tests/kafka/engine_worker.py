"""A worker of the counting role as a process: `python -m tests.kafka.engine_worker BOOTSTRAP PREFIX SLOT FOLDER`."""

import os
import signal
import sys
import time
import traceback
from pathlib import Path

from prometheus_client import CollectorRegistry

from pipeline.roles import GATHER_S
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.failpoints import failpoints_from
from pipeline.runtime.kafka.build import kafka_adapters, wall_clock_ms
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.metrics import Metrics
from pipeline.runtime.observing import Observer
from pipeline.runtime.ports import Outputs, Record, State
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from tests.rooms.runtime.counting import COUNTING, CountingStage

STOPPED = 3


class LongStage(CountingStage):
    """Every tenth word is long work."""

    def can_wait(self, record: Record) -> bool:
        return len(record.value or b"") % 10 == 1

    def step(self, record: Record, state: State, out: Outputs) -> None:
        if record.topic == "words" and self.can_wait(record):
            time.sleep(0.04)
        super().step(record, state, out)


class LongWorker(Worker):
    """Tells of the batches that a rebalance in their midst has undone."""

    def _meanwhile(self, records: list[Record]) -> bool:
        is_there = super()._meanwhile(records)
        if not is_there:
            print(f"{len(records)} records undone", file=sys.stderr)
        return is_there


def tell(worker: Worker) -> None:
    """Say where the worker stands, for a test that waits in vain."""
    positions = {number: task.positions for number, task in worker.tasks.items()}
    print(f"restoring {worker.restoring()}, positions {positions}, lag {worker.input_lag()}", file=sys.stderr)
    traceback.print_stack()


def main(bootstrap: str, prefix: str, slot: str, folder: str) -> int:
    config = KafkaConfig({"bootstrap.servers": bootstrap}, prefix, slot, session_timeout_ms=6_000, turns=2)
    is_long = bool(os.environ.get("LONG"))
    settings = WorkerSettings(
        # Its turns are late now and then: what is long rests, and rebalances come there, too.
        long_turn_s=0.04 if is_long else 0.0,
        gather_s=GATHER_S,
        batch_records=int(os.environ.get("BATCH", "1500")),
        restore_records=200,
        trim_interval_ms=int(os.environ.get("TRIM_MS", "10000")),
    )
    kind, make = (LongWorker, LongStage) if is_long else (Worker, CountingStage)
    worker = kind(
        COUNTING._replace(patient="words") if is_long else COUNTING,
        lambda partition: make(partition, echo=bool(os.environ.get("ECHO"))),
        kafka_adapters(config, COUNTING, Path(folder)),
        settings,
        failpoints_from(os.environ),
        Observer(COUNTING.name, wall_clock_ms, Metrics(CollectorRegistry()).for_role(COUNTING.name)),
    )
    over: list[int] = []
    signal.signal(signal.SIGUSR1, lambda *_: tell(worker))
    signal.signal(signal.SIGTERM, lambda number, _: over.append(number))
    try:
        worker.run(until=lambda: bool(over))
    except WorkerStopped as stopped:
        print(f"stopped: {stopped}", file=sys.stderr)
        return STOPPED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:5]))
