"""Tables of a read model in memory."""

from collections.abc import Iterable, Iterator, Sequence

from pipeline.errors import StateError

_IS_OPEN = ""


class MemoryTables:
    """Like `RocksTables`. `kept` stands for the folder: give the same one again to open what was written."""

    def __init__(self, kept: dict[str, dict[bytes, bytes]], names: Sequence[str]) -> None:
        if _IS_OPEN in kept:
            raise StateError("The read model is open already.", "memory", "close it first")
        kept[_IS_OPEN] = {}
        self._kept = kept
        for name in names:
            kept.setdefault(name, {})

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._kept[table].get(key)

    def scan(self, table: str, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        rows = sorted(row for row in self._kept[table].items() if row[0].startswith(prefix) and row[0] >= start)
        yield from rows

    def write(self, rows: Iterable[tuple[str, bytes, bytes | None]]) -> None:
        for table, key, value in rows:
            if value is None:
                self._kept[table].pop(key, None)
            else:
                self._kept[table][key] = value

    def compact(self, ranges: Iterable[tuple[str, bytes]] | None) -> None:
        """What was deleted is gone already."""

    def close(self) -> None:
        self._kept.pop(_IS_OPEN, None)
