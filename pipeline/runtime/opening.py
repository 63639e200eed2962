"""Sealed events, opened as they are read: for whoever reads the history and is no stage."""

import logging
from collections.abc import Callable

from pipeline.errors import StateError
from pipeline.runtime.adapters import Change, LogReader
from pipeline.runtime.ports import Record

Partition = tuple[str, int]

_log = logging.getLogger(__name__)
# What somebody wrote into the history who had no business there is few records. Where so many one after the other
# cannot be opened, and none in between can, it is the keys that are wrong.
_MOST_UNOPENED = 100


class OpeningReader:
    """A `LogReader` that gives events as they were before they were sealed; without a value, where their key was
    destroyed; and as they stand there, where nobody sealed them. `opened` gives what a value was, or None; it raises
    ValueError for the last. `read` raises StateError where nothing can be opened."""

    def __init__(self, reader: LogReader, opened: Callable[[bytes], bytes | None]) -> None:
        self._reader = reader
        self._opened = opened
        self._unopened = 0

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        return [
            record._replace(value=self._open(record, record.value))
            if record.value is not None and record.topic == "events"
            else record
            for record in self._reader.read(limit, timeout_s)
        ]

    def _open(self, record: Record, value: bytes) -> bytes | None:
        try:
            opened = self._opened(value)
        except ValueError as error:
            # It was put aside when it was new, and is wherever it comes to.
            self._unopened += 1
            place = f"{record.topic}/{record.partition}@{record.offset}"
            if self._unopened >= _MOST_UNOPENED:
                raise StateError(
                    f"{self._unopened} sealed events one after the other cannot be opened.",
                    f"up to {place}",
                    "see that the topic `keys` holds the keys that the history was sealed with",
                ) from error
            if self._unopened == 1:
                _log.warning("%s is left as it stands there: %s", place, error)
            return value
        if opened is not None and opened is not value:
            self._unopened = 0
        return opened

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
