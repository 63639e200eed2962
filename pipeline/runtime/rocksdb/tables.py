"""Tables of a read model in one RocksDB: a column family each, written batch by batch, read from any thread.

There is no write-ahead log: the topics are the log. With atomic flushes a process that was killed finds all tables as
of one earlier batch, the positions it wrote with that batch included, and reads on from there.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from pipeline.errors import StateError
from pipeline.runtime.rocksdb.rows import rows_of
from pipeline.runtime.rocksdb.scrub import write_anew

_MB = 1024 * 1024


class RocksTables:
    """The tables named `names` in a folder, which belongs to one process at a time."""

    def __init__(
        self, folder: Path, names: Sequence[str], cache_bytes: int = 128 * _MB, compressed: bool = True
    ) -> None:
        """Open them, making what is missing.

        Raises:
            StateError: another process has the folder open, or it cannot be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        options = _options(cache_bytes, compressed)
        try:
            self._db = Rdict(str(folder), options, dict.fromkeys(names, options))
        except Exception as error:
            raise StateError(
                f"The read model cannot be opened: {error}",
                str(folder),
                "one process may have it open; if it is damaged, delete the folder: it is made again from the topics",
            ) from error
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True  # type: ignore[method-assign, assignment]  # the stubs are wrong
        self._tables = {name: self._db.get_column_family(name) for name in names}
        self._handles = {name: self._db.get_column_family_handle(name) for name in names}

    def get(self, table: str, key: bytes) -> bytes | None:
        """The value of a key."""
        return self._tables[table].get(key)

    def scan(self, table: str, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """The rows whose keys begin with `prefix`, in the order of their bytes, from the key `start` on."""
        return rows_of(self._tables[table], prefix, start)

    def write(self, rows: Iterable[tuple[str, bytes, bytes | None]]) -> None:
        """Write rows (table, key, value; None deletes) all together, the later ones over the earlier."""
        batch = WriteBatch(raw_mode=True)
        for table, key, value in rows:
            if value is None:
                batch.delete(key, self._handles[table])
            else:
                batch.put(key, value, self._handles[table])
        self._db.write(batch, self._write_options)

    def compact(self, ranges: Iterable[tuple[str, bytes]] | None) -> None:
        """Write the files anew that may hold deleted or replaced rows with these prefixes (table, prefix), None: all of
        them. Other threads may read and write meanwhile."""
        for table, prefix in [(name, b"") for name in self._tables] if ranges is None else ranges:
            write_anew(self._tables[table], prefix)

    def close(self) -> None:
        """Make everything lasting and let go of the folder."""
        if self._tables:
            next(iter(self._tables.values())).flush()
            self._handles.clear()
            for table in self._tables.values():
                table.close()
            self._tables.clear()
            self._db.close()

    @staticmethod
    def wipe(folder: Path) -> None:
        """Delete closed tables."""
        shutil.rmtree(folder, ignore_errors=True)


def _options(cache_bytes: int, compressed: bool) -> Options:
    blocks = BlockBasedOptions()
    blocks.set_block_cache(Cache(cache_bytes))
    blocks.set_bloom_filter(10, False)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_atomic_flush(True)
    options.set_write_buffer_size(32 * _MB)
    options.set_block_based_table_factory(blocks)
    options.set_compression_type(DBCompressionType.lz4() if compressed else DBCompressionType.none())
    options.set_max_background_jobs(2)
    options.set_max_open_files(512)
    return options
