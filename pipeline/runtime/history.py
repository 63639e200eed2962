"""Reading an input topic again for stages that need its past, beside the live stream.

A stage says between which positions (`ReadsHistory.history`); that is part of its state, so progress commits with what
was folded, and a crash or an abort resumes from it. The reader is made when it is first needed, and given up when
there is nothing left to read.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from pipeline.runtime import dead_letters
from pipeline.runtime.adapters import LogReader
from pipeline.runtime.errors import Retriable
from pipeline.runtime.overlay import Outbox
from pipeline.runtime.ports import ReadsHistory, Record
from pipeline.runtime.task import Task

_BOUNDS_TIMEOUT_S = 1.0


class Slice(NamedTuple):
    """The next records of a task's history, and the position at which they end."""

    task: Task
    records: list[Record]
    reached: int


def fold_slices(slices: Sequence[Slice], outbox: Outbox, role: str, put_aside: str) -> None:
    """Let the stages take their slices in. With `put_aside`, the reason, their records become dead letters instead."""
    for task, records, reached in slices:
        if put_aside:
            for record in records:
                outbox.log(dead_letters.TOPIC, record.key, dead_letters.dead_letter(record, role, put_aside))
        cast(ReadsHistory, task.stage).fold_history([] if put_aside else records, reached, task.state, outbox)
        task.stage.finish(task.state, outbox)
        task.encode_changes(True)


class _Reading:
    """How far one partition's history was read: `next` is the first position not given out yet."""

    __slots__ = ("next", "waiting")

    def __init__(self, position: int) -> None:
        self.next = position
        self.waiting: deque[Record] = deque()


class Pace:
    """How much is alive: records of the inputs in this second and in the one before."""

    __slots__ = ("_before", "_records", "_second")

    def __init__(self) -> None:
        self._second = self._records = self._before = 0

    def note(self, records: int, now_ms: int) -> None:
        """So many records came."""
        self._turn(now_ms)
        self._records += records

    def is_quiet(self, partitions: int, now_ms: int) -> bool:
        """Whether next to nothing has come for a second: ingest says that it is caught up once a second in each."""
        self._turn(now_ms)
        return max(self._records, self._before) <= 3 * partitions

    def _turn(self, now_ms: int) -> None:
        second = now_ms // 1_000
        if second != self._second:
            self._before = self._records if second == self._second + 1 else 0
            self._second, self._records = second, 0


class HistoryReader:
    """Reads history for the tasks of one worker. `left`: offsets still to be read by partition, as last seen."""

    def __init__(self, topic: str, make_reader: Callable[[], LogReader]) -> None:
        self.left: dict[int, int] = {}
        self._topic = topic
        self._make_reader = make_reader
        self._reader: LogReader | None = None
        self._readings: dict[int, _Reading] = {}

    def slices(self, tasks: Iterable[tuple[int, Task]], limit: int, timeout_s: float) -> list[Slice]:
        """The next slice of every task that has history to read, of about `limit` records in all. Who takes one folds
        it and commits, or calls `clear`."""
        wanted: dict[int, tuple[Task, int, int]] = {}
        for number, task in tasks:
            bounds = cast(ReadsHistory, task.stage).history(task.state)
            if bounds is not None:
                wanted[number] = (task, *bounds)
        self.left = {number: end - start for number, (_, start, end) in wanted.items()}
        if not wanted:
            self.clear()
            return []
        readings = self._readings
        if any(number not in wanted or reading.next != wanted[number][1] for number, reading in readings.items()):
            # What is still on its way from the old place must not be taken for what comes from the new one.
            self.clear()
        reader = self._reader
        if reader is None:
            reader = self._reader = self._make_reader()
        for number, (_, start, _) in wanted.items():
            if number not in self._readings:
                self._open(reader, number, start)
        at_hand = sum(len(reading.waiting) for reading in self._readings.values())
        if at_hand < limit:
            self._read(reader, limit - at_hand, timeout_s if not at_hand else 0.0)
        return list(self._cut(reader, wanted, limit))

    def _open(self, reader: LogReader, number: int, start: int) -> None:
        try:
            low, _ = reader.bounds((self._topic, number), _BOUNDS_TIMEOUT_S)
            reader.open((self._topic, number), max(start, low))
        except Retriable:
            return
        self._readings[number] = _Reading(start)

    def _read(self, reader: LogReader, limit: int, timeout_s: float) -> None:
        try:
            records = reader.read(limit, timeout_s)
        except Retriable:
            return
        for record in records:
            self._readings[record.partition].waiting.append(record)

    def _cut(self, reader: LogReader, wanted: Mapping[int, tuple[Task, int, int]], limit: int) -> Iterator[Slice]:
        for number, reading in self._readings.items():
            task, start, end = wanted[number]
            records: list[Record] = []
            waiting = reading.waiting
            while waiting and limit > 0 and waiting[0].offset < end:
                records.append(waiting.popleft())
                limit -= 1
            # Without a record that comes next, how far the reader has come; that passes control records too.
            reached = min(waiting[0].offset if waiting else reader.position((self._topic, number)), end)
            if reached > start:
                reading.next = reached
                yield Slice(task, records, reached)

    def clear(self) -> None:
        """Give everything up: what was read was not committed, there is nothing to read, or it went elsewhere."""
        self._readings.clear()
        self.left = {}
        if self._reader is not None:
            reader, self._reader = self._reader, None
            reader.close()
