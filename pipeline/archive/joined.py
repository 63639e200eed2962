"""The archive and the topic as one log: what a backfill reads where the topic's retention has ended."""

from collections.abc import Iterator

from pipeline.archive.files import Archive
from pipeline.runtime.adapters import Change, LogReader
from pipeline.runtime.ports import Record

Partition = tuple[str, int]
_BOUNDS_TIMEOUT_S = 5.0


class JoinedLogReader:
    """A `LogReader` of the topic, before which the archive's records come. They have the topic's offsets, so nothing
    comes twice, and nothing is left out that either of them has."""

    def __init__(self, topic: LogReader, archive: Archive) -> None:
        self._topic = topic
        self._archive = archive
        self._before: dict[Partition, Iterator[Record]] = {}
        self._positions: dict[Partition, int] = {}
        self._begins: dict[Partition, int] = {}

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        low, high = self._topic.bounds(partition, timeout_s)
        self._begins[partition] = low
        parts = self._archive.parts(*partition)
        return min(low, parts[0].first) if parts else low, high

    def open(self, partition: Partition, position: int) -> None:
        low = self._begins.get(partition, 0)
        if position >= low:
            self._topic.open(partition, position)
            return
        self._before[partition] = self._archive.records(*partition, start=position)
        self._positions[partition] = position

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        found: list[Record] = []
        for partition in list(self._before):
            while len(found) < limit:
                record = next(self._before[partition], None)
                if record is None:
                    self._go_over(partition)
                    break
                self._positions[partition] = record.offset + 1
                found.append(record)
        return found or self._topic.read(limit, timeout_s)

    def _go_over(self, partition: Partition) -> None:
        """The archive ends here; the topic goes on. Its beginning is asked for anew, for it moves while the archive is
        read. What lies between the two is gone."""
        low, _ = self._topic.bounds(partition, _BOUNDS_TIMEOUT_S)
        self._topic.open(partition, max(self._positions[partition], low))
        del self._before[partition], self._positions[partition]

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
