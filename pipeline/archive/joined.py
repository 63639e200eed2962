"""The archive and the topic as one log: what reads history reads where the topic's retention has ended.

backfill    `unify`, of events: what neither has any more is passed over, and said in the log; an archive that cannot be
            read is waited for, beside the live events (`patient`)
replay      the copier, of events: it refuses to pass over anything (`whole`)
export      of one person, by their keys, of events and changes
"""

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from pipeline.archive.files import Archive, Part
from pipeline.errors import PositionError
from pipeline.runtime.adapters import Change, LogReader
from pipeline.runtime.errors import Retriable
from pipeline.runtime.ports import Record

Partition = tuple[str, int]
_BOUNDS_TIMEOUT_S = 5.0
_AGAIN_S = 10.0
_log = logging.getLogger(__name__)


class JoinedLogReader:
    """A `LogReader` of the topic, before which the archive's records come. They have the topic's offsets, so nothing
    comes twice, and nothing is left out that either of them has.

    `whole`: what neither has is an error. `keys`: of the archive only records with these keys; the topic gives all.
    `patient`, a clock (s): an archive that cannot be read just now is Retriable, for whoever has other things to do
    meanwhile, and asked again a little later.
    """

    def __init__(
        self,
        topic: LogReader,
        archive: Archive,
        *,
        whole: bool = False,
        keys: Collection[bytes] | None = None,
        patient: Callable[[], float] | None = None,
    ) -> None:
        self._topic = topic
        self._archive = archive
        self._whole = whole
        self._keys = keys
        self._patient = patient
        self._again_s = 0.0
        self._before: dict[Partition, Iterator[Record]] = {}
        self._positions: dict[Partition, int] = {}
        self._lows: dict[Partition, int] = {}
        # Files are listed once for each partition: a list of an object store costs a request, and bounds are asked for
        # again and again.
        self._firsts: dict[Partition, int | None] = {}

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        low, high = self._topic.bounds(partition, timeout_s)
        first = self._first(partition)
        return low if first is None else min(low, first), high

    def _first(self, partition: Partition) -> int | None:
        if partition not in self._firsts:
            parts = self._parts(partition)
            self._firsts[partition] = parts[0].first if parts else None
        return self._firsts[partition]

    def open(self, partition: Partition, position: int) -> None:
        """Read on from a position. Raises PositionError, with `whole`: something from there on is gone."""
        if self._first(partition) is None:
            self._topic.open(partition, position)
            return
        low, _ = self._topic.bounds(partition, _BOUNDS_TIMEOUT_S)
        if position >= low:
            self._topic.open(partition, position)
            return
        self._begin_in_archive(partition, position, low)

    def _begin_in_archive(self, partition: Partition, position: int, low: int) -> None:
        self._refuse(partition, gaps(self._parts(partition), position, low))
        self._before[partition] = self._archive.records(*partition, start=position, keys=self._keys)
        self._positions[partition], self._lows[partition] = position, low

    def _parts(self, partition: Partition) -> list[Part]:
        with self._asking():
            return self._archive.parts(*partition)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Around every call of the archive, and of nothing else: for whoever is `patient`, what it raises becomes
        Retriable."""
        if self._patient is None:
            yield
            return
        if self._patient() < self._again_s:
            raise Retriable("the archive could not be read a moment ago")
        try:
            yield
        except Exception as error:
            self._again_s = self._patient() + _AGAIN_S
            _log.error("the archive cannot be read, and is asked again: %s", error)
            raise Retriable(f"the archive cannot be read: {error}") from error

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        found: list[Record] = []
        try:
            self._read_archive(found, limit)
            if len(found) < limit:
                found += self._topic.read(limit - len(found), 0.0 if found else timeout_s)
        except Retriable:
            # Positions are behind what was found: it is not given again.
            if not found:
                raise
        return found

    def _read_archive(self, found: list[Record], limit: int) -> None:
        # Each partition gets its share: a reader that puts them into one order waits for all of them.
        for left, partition in zip(range(len(self._before), 0, -1), list(self._before), strict=True):
            share = min(max(1, (limit - len(found)) // left), limit - len(found))
            if not self._take(partition, share, found):
                self._go_over(partition)

    def _take(self, partition: Partition, share: int, found: list[Record]) -> bool:
        """Add up to `share` records of a partition; whether there may be more of them before the topic's."""
        records, low = self._before[partition], self._lows[partition]
        try:
            with self._asking():
                for _ in range(share):
                    record = next(records, None)
                    if record is None or record.offset >= low:
                        return False
                    self._positions[partition] = record.offset + 1
                    found.append(record)
        except Retriable:
            # An iterator that has raised is at its end.
            start = self._positions[partition]
            self._before[partition] = self._archive.records(*partition, start=start, keys=self._keys)
            raise
        return True

    def _go_over(self, partition: Partition) -> None:
        """From here on the topic has it, or had when it was last asked: its beginning moves while the archive is
        read."""
        position, low = self._positions[partition], self._topic.bounds(partition, _BOUNDS_TIMEOUT_S)[0]
        with self._asking():
            end = self._archive.end(*partition) or 0
        if low > self._lows[partition] and position < end:
            self._begin_in_archive(partition, position, low)
            return
        if end < low:
            self._refuse(partition, [(max(end, position), low)])
        self._topic.open(partition, max(position, low))
        del self._before[partition], self._positions[partition]

    def _refuse(self, partition: Partition, gaps: list[tuple[int, int]]) -> None:
        for first, end in gaps:
            what = f"The positions {first} to {end} are neither in the archive nor in the topic any more."
            if self._whole:
                raise PositionError(
                    what,
                    f"{partition[0]}, partition {partition[1]}",
                    "let the archive run always; a replay without an archive begins where the topic does",
                )
            _log.error("%s/%d: %s", *partition, what)

    def position(self, partition: Partition) -> int:
        found = self._positions.get(partition)
        return self._topic.position(partition) if found is None else found

    def read_changes(self, limit: int, timeout_s: float) -> dict[int, list[Change]]:
        """Of the topic alone: changelogs are not archived."""
        return self._topic.read_changes(limit, timeout_s)

    def close_partition(self, partition: Partition) -> None:
        if partition in self._before:
            del self._before[partition], self._positions[partition]
        else:
            self._topic.close_partition(partition)

    def close(self) -> None:
        self._topic.close()


def gaps(parts: list[Part], position: int, low: int) -> list[tuple[int, int]]:
    """What lies between a position and another (the beginning of the topic), and is in no file."""
    found = []
    for part in parts:
        if position < min(part.first, low):
            found.append((position, min(part.first, low)))
        position = max(position, part.next)
    return [*found, (position, low)] if position < low else found
