"""A store in memory that loses its last writes in a crash, as RocksDB without its write-ahead log does."""

import copy
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping

from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.errors import Fatal

_Undo = tuple[dict[bytes, bytes | None], list[tuple[int, bytes]], list[tuple[int, bytes]], StoreMeta | None]


class MemoryStore:
    """One task's store. Writes since the last `flush` can be lost by `lose`, the newest first, each as a whole."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.rows: list[tuple[int, bytes]] = []
        self.stored_meta: StoreMeta | None = None
        self.is_open = False
        self._keys: list[bytes] | None = None
        self._undo: list[_Undo] = []

    def meta(self) -> StoreMeta | None:
        return copy.deepcopy(self.stored_meta)

    def get(self, key: bytes) -> bytes | None:
        self._check()
        return self.values.get(key)

    def reading(self, keys: list[bytes]) -> Callable[[], list[bytes | None]]:
        found = [self.get(key) for key in keys]
        return lambda: found

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        self._check()
        if self._keys is None:
            self._keys = sorted(self.values)
        keys = self._keys
        for index in range(bisect_left(keys, prefix), len(keys)):
            if not keys[index].startswith(prefix):
                return
            yield keys[index], self.values[keys[index]]

    def size(self) -> tuple[int, int]:
        return len(self.values), sum(len(key) + len(value) for key, value in self.values.items())

    def timers(self, start: tuple[int, bytes] = (0, b"")) -> Iterator[tuple[int, bytes]]:
        self._check()
        yield from self.rows[bisect_left(self.rows, start) :]

    def write(
        self,
        values: Iterable[tuple[bytes, bytes | None]],
        timers_gone: Iterable[tuple[int, bytes]],
        timers_new: Iterable[tuple[int, bytes]],
        meta: StoreMeta,
    ) -> None:
        self._check()
        before: dict[bytes, bytes | None] = {}
        for key, value in values:
            before.setdefault(key, self.values.get(key))
            self._set(key, value)
        gone = [row for row in timers_gone if self._remove_row(row)]
        new = [row for row in timers_new if self._add_row(row)]
        self._undo.append((before, gone, new, self.stored_meta))
        self.stored_meta = copy.deepcopy(meta)

    def scrub(self, prefixes: Iterable[bytes]) -> None:
        """Nothing of a former value is kept here."""

    def is_scrubbing(self) -> bool:
        return False

    def close(self) -> None:
        self.flush()
        self.is_open = False

    def flush(self) -> None:
        """Make every write so far lasting."""
        self._undo.clear()

    def lose(self, writes: int) -> None:
        """Lose up to `writes` of the newest unflushed writes."""
        for _ in range(min(writes, len(self._undo))):
            before, gone, new, meta = self._undo.pop()
            for row in new:
                self._remove_row(row)
            for row in gone:
                self._add_row(row)
            for key, value in before.items():
                self._set(key, value)
            self.stored_meta = meta

    @property
    def unflushed(self) -> int:
        """How many writes a crash could lose."""
        return len(self._undo)

    def restore(self, values: Mapping[bytes, bytes | None], meta: StoreMeta) -> None:
        timers = [
            (int.from_bytes(value[:8], "big"), key)
            for key, value in values.items()
            if value is not None and value[:8] != bytes(8)
        ]
        self.write(values.items(), (), timers, meta)

    def _set(self, key: bytes, value: bytes | None) -> None:
        if (key in self.values) != (value is not None):
            self._keys = None
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def _add_row(self, row: tuple[int, bytes]) -> bool:
        index = bisect_left(self.rows, row)
        if index < len(self.rows) and self.rows[index] == row:
            return False
        insort(self.rows, row)
        return True

    def _remove_row(self, row: tuple[int, bytes]) -> bool:
        index = bisect_left(self.rows, row)
        if index < len(self.rows) and self.rows[index] == row:
            del self.rows[index]
            return True
        return False

    def _check(self) -> None:
        if not self.is_open:
            raise Fatal("the store is closed")


class MemoryStores:
    """The stores of one machine; they outlive the workers that open them."""

    def __init__(self) -> None:
        self.stores: dict[int, MemoryStore] = {}

    def open(self, partition: int) -> MemoryStore:
        store = self.stores.setdefault(partition, MemoryStore())
        if store.is_open:
            raise Fatal(f"the store of partition {partition} is open already")
        store.is_open = True
        return store

    def wipe(self, partition: int) -> None:
        self.stores.pop(partition, None)

    def crash(self, lose: int = 0) -> None:
        """The process that had these stores open has died, with up to `lose` unflushed writes of each."""
        for store in self.stores.values():
            if store.is_open:
                store.lose(lose)
                store.is_open = False
