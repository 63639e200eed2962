"""What a worker tells about itself: of each batch, and of its state and its restore once a second.

Nothing here is needed for the work; without metrics and without a reporter it costs nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.runtime import dead_letters
from pipeline.runtime.adapters import Clock
from pipeline.runtime.metrics import WorkerMetrics
from pipeline.runtime.ports import Record
from pipeline.runtime.progress import Progress, Report, RestoringPartition
from pipeline.runtime.restore import Restoration
from pipeline.runtime.task import Task

OBSERVED_EVERY_MS = 1_000
# Ages are taken of so many records of a batch, evenly spread; each stands for its share.
SAMPLES_A_BATCH = 16
# Deadlines that are due are counted up to here, those of all tasks together: everything waits while they are looked at,
# and 40,000 of them, when that many are due, take 20 ms.
MOST_DUE = 1_000

OriginMs = Callable[[Record], int]
"""When what a record tells was received (ms), 0 if it does not tell."""


def written_ms(record: Record) -> int:
    """The origin of a record that carries none of its own: when it was written."""
    return record.timestamp_ms


class Observer:
    """Watches one worker. `began_ms`: its last assignment; `ready_ms`: when all of it was ready, 0 if it is not."""

    def __init__(
        self,
        role: str,
        clock: Clock,
        metrics: WorkerMetrics | None = None,
        report: Report | None = None,
        origin_ms: OriginMs = written_ms,
    ) -> None:
        self.began_ms = 0
        self.ready_ms = 0
        self._role = role
        self._clock = clock
        self._metrics = metrics
        self._report = report
        self._origin_ms = origin_ms
        self._state_ms = 0
        self._restore_ms = 0
        self._first: tuple[int, int] | None = None
        self._restored: dict[int, int] = {}

    # ---------------------------------------------------------------------------------------------- of each batch

    def batch(self, records: Sequence[Record], seconds: float) -> None:
        """These records were committed."""
        metrics = self._metrics
        if metrics is None:
            return
        count, now = len(records), self._clock()
        metrics.records.inc(count)
        metrics.batch_records.observe(count)
        metrics.batch_seconds.observe(seconds)
        metrics.lag_ms.set(max(0, now - records[-1].timestamp_ms))
        step = max(1, count // SAMPLES_A_BATCH)
        sample = records[::step]
        share = count / len(sample)
        for record in sample:
            origin_ms = self._origin_ms(record)
            if origin_ms > 0:
                metrics.end_to_end_seconds.observe(max(0, now - origin_ms) / 1000, share)

    def committed(self, outputs: int, seconds: float) -> None:
        """A transaction was committed."""
        if self._metrics is not None:
            self._metrics.commits.inc()
            self._metrics.outputs.inc(outputs)
            self._metrics.transaction_seconds.observe(seconds)

    def aborted(self) -> None:
        """A batch is done again."""
        if self._metrics is not None:
            self._metrics.aborts.inc()

    def put_aside(self, count: int) -> None:
        """So many records made a step raise."""
        if self._metrics is not None and count:
            self._metrics.dead_letters.labels(self._role, dead_letters.REASON).inc(count)

    # ---------------------------------------------------------------------------------------------- of the restore

    def assigned(self) -> None:
        """A rebalance is over, and nothing is ready yet."""
        self.began_ms, self.ready_ms = self._clock(), 0
        self._restore_ms, self._first = 0, None
        self._restored.clear()
        if self._metrics is not None:
            self._metrics.rebalances.inc()

    def restoring(self, ready: Sequence[int], waiting: Mapping[int, Restoration]) -> None:
        """So much is ready, and so much is still being restored."""
        now = self._clock()
        over = not waiting and bool(ready) and not self.ready_ms
        if not over and 0 <= now - self._restore_ms < OBSERVED_EVERY_MS:
            return
        self._restore_ms = now
        if over:
            self.ready_ms = now
        left = sum(max(0, r.target - r.position) for r in waiting.values() if r.target is not None)
        if self._first is None or left > self._first[1]:
            self._first = (now, left)
        began, before = self._first
        rate = (before - left) * 1000 / (now - began) if now > began else 0.0
        seconds_left = left / rate if rate > 0 else (0.0 if not waiting else None)
        self._tell_metrics(ready, waiting, left, seconds_left)
        if self._report is not None:
            restoring = [RestoringPartition(n, r.start, r.position, r.target) for n, r in sorted(waiting.items())]
            self._report(
                Progress(
                    self._role, "", 0, now, self.began_ms, list(ready), restoring, self.ready_ms, seconds_left, rate
                )
            )

    def _tell_metrics(
        self, ready: Sequence[int], waiting: Mapping[int, Restoration], left: int, seconds_left: float | None
    ) -> None:
        metrics = self._metrics
        if metrics is None:
            return
        metrics.partitions_ready.set(len(ready))
        metrics.partitions_restoring.set(len(waiting))
        metrics.restore_records_left.set(left)
        metrics.restore_seconds_left.set(seconds_left if seconds_left is not None else float("nan"))
        if self.ready_ms:
            metrics.ready_seconds.set((self.ready_ms - self.began_ms) / 1000)

    def restored(self, count: int) -> None:
        """So many changelog records were read back."""
        if self._metrics is not None and count:
            self._metrics.restored_records.inc(count)

    # ------------------------------------------------------------------------------------------------ of the state

    def state(self, tasks: Iterable[Task], lag: Callable[[], int | None], history_left: Mapping[int, int]) -> None:
        """What the tasks that are ready hold. Called in every turn; looks once a second."""
        metrics = self._metrics
        if metrics is None:
            return
        now = self._clock()
        if 0 <= now - self._state_ms < OBSERVED_EVERY_MS:
            return
        self._state_ms = now
        tasks = [task for task in tasks if task.task_state is not None]
        lag_records = lag()
        if lag_records is not None:
            metrics.lag_records.set(lag_records)
        metrics.history_records_left.set(sum(history_left.values()))
        states = [task.task_state for task in tasks if task.task_state is not None]
        metrics.state_cached.set(sum(state.cached for state in states))
        sizes = [task.store.size() for task in tasks if task.store is not None]
        metrics.state_keys.set(sum(keys for keys, _ in sizes))
        metrics.state_bytes.set(sum(size for _, size in sizes))
        most = max(1, MOST_DUE // max(1, len(states)))
        due = [state.due_by(now, most) for state in states]
        metrics.deadlines_due.set(sum(count for count, _ in due))
        metrics.deadline_overdue_ms.set(max((now - first for _, first in due if first), default=0))
        for state in states:
            metrics.state_loads.inc(state.loads)
            metrics.state_hits.inc(state.hits)
            state.loads = state.hits = 0
