"""Sealed events, opened as they are read: for whoever reads the history and is no stage."""

from collections.abc import Callable

from pipeline.runtime.adapters import Change, LogReader
from pipeline.runtime.ports import Record

Partition = tuple[str, int]


class OpeningReader:
    """A `LogReader` that gives events as they were before they were sealed; without a value, where their key was
    destroyed; and as they stand there, where nobody sealed them. `opened` gives what a value was, or None; it raises
    ValueError for the last."""

    def __init__(self, reader: LogReader, opened: Callable[[bytes], bytes | None]) -> None:
        self._reader = reader
        self._opened = opened

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        return [
            record._replace(value=self._open(record.value))
            if record.value is not None and record.topic == "events"
            else record
            for record in self._reader.read(limit, timeout_s)
        ]

    def _open(self, value: bytes) -> bytes | None:
        try:
            return self._opened(value)
        except ValueError:
            return value  # it was put aside when it was new, and is wherever it comes to

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        return self._reader.bounds(partition, timeout_s)

    def open(self, partition: Partition, position: int) -> None:
        self._reader.open(partition, position)

    def position(self, partition: Partition) -> int:
        return self._reader.position(partition)

    def read_changes(self, limit: int, timeout_s: float) -> dict[int, list[Change]]:
        return self._reader.read_changes(limit, timeout_s)

    def close_partition(self, partition: Partition) -> None:
        self._reader.close_partition(partition)

    def close(self) -> None:
        self._reader.close()
