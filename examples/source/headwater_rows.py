"""A source: the rows of a SQLite table, as they were written. Copy it, and put your system in place of SQLite."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from connectors import Options, Pulled, Source


class RowsOptions(Options):
    """What stands under `pull`, beside `kind`, `every` and `batch`."""

    path: Path
    table: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]  # it becomes a part of SQL
    key: str = ""  # the column of whom a row is about: the rows of one person keep their order


class RowsSource(Source):
    kind = "sqlite_rows"
    max_batch = 5_000  # so many rows are asked for at once, at most
    options_model = RowsOptions

    def __init__(self, source: str, options: RowsOptions) -> None:
        super().__init__(source, options)
        self._key = options.key
        self._select = f"SELECT rowid, * FROM {options.table} WHERE rowid > ? ORDER BY rowid LIMIT ?"  # noqa: S608
        if not options.path.exists():
            raise ValueError(f"there is no file {options.path}: see `path`")
        self._database = sqlite3.connect(f"file:{options.path}?mode=ro", uri=True, check_same_thread=False)
        self._database.row_factory = sqlite3.Row

    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        # An error is raised as it is: it is told, and the same is asked again later.
        rows = self._database.execute(self._select, (int(position or 0), limit)).fetchall()
        return [Pulled(str(row[0]), dict(zip(row.keys()[1:], row[1:], strict=True)), self._whom(row)) for row in rows]

    def _whom(self, row: sqlite3.Row) -> bytes | None:
        return str(row[self._key]).encode() if self._key else None

    def close(self) -> None:
        self._database.close()
