"""How far a file has been produced, kept on the disk, so that one of many gigabytes need not begin again.

A part of the file counts when the broker has acknowledged all of it. What an interruption cut off is produced once
more: rows that arrived are recognised as duplicates.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path

from pipeline.sources.files import Row

PART_ROWS = 200_000


class FileProgress:
    """The progress of one file, told by the hash of its content, into one topic."""

    def __init__(self, state_dir: Path, digest: str, topic: str) -> None:
        self._path = state_dir / "produced" / f"{digest}.{topic}"
        try:
            self.rows = int(self._path.read_text())
        except (FileNotFoundError, ValueError):
            self.rows = 0

    def parts(self, rows: Iterator[Row], done: int) -> Iterator[Iterable[Row]]:
        """The rows behind the first `done`, part by part. Each must be used up before the next is asked for."""
        rows = islice(rows, done, None)
        while (first := next(rows, None)) is not None:
            yield chain((first,), islice(rows, PART_ROWS - 1))

    def keep(self, rows: int) -> None:
        """The first so many rows are in the topic."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(str(rows))
        fresh.replace(self._path)

    def end(self) -> None:
        """The whole file is."""
        self._path.unlink(missing_ok=True)
