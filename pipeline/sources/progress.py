"""How far a file has been produced, kept on the disk, so that one of many gigabytes need not begin again.

A part of the file counts when the broker has acknowledged all of it. What an interruption cut off is produced once
more: rows that arrived are recognised as duplicates.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

from pipeline.errors import StateError
from pipeline.sources.files import Row

PART_ROWS = 200_000


class FileProgress:
    """The progress of one file, told by the hash of its content, into one topic. All of it raises StateError where the
    state folder cannot be read or written."""

    def __init__(self, state_dir: Path, digest: str, topic: str) -> None:
        self._path = state_dir / "produced" / f"{digest}.{topic}"

    @property
    def rows(self) -> int:
        """How many rows are in the topic; 0 where nothing is known of it."""
        with self._told("read"):
            try:
                said = self._path.read_text()
            except (FileNotFoundError, ValueError):
                return 0
        return int(said) if said.isdecimal() else 0

    def parts(self, rows: Iterator[Row], done: int) -> Iterator[Iterable[Row]]:
        """The rows behind the first `done`, part by part. Each must be used up before the next is asked for."""
        rows = islice(rows, done, None)
        while (first := next(rows, None)) is not None:
            yield chain((first,), islice(rows, PART_ROWS - 1))

    def keep(self, rows: int) -> None:
        """The first so many rows are in the topic."""
        with self._told("kept"):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._path.with_suffix(".new")
            fresh.write_text(str(rows))
            fresh.replace(self._path)

    def end(self) -> None:
        """The whole file is."""
        with self._told("forgotten"):
            self._path.unlink(missing_ok=True)

    @contextmanager
    def _told(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StateError(
                f"How far the file was produced cannot be {done}: {error.strerror}.",
                str(self._path),
                "let this process read and write there, or set HEADWATER_STATE_DIR; then produce the file again: rows"
                " that have arrived are recognised as duplicates within a day",
            ) from None
