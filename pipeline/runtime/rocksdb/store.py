"""One RocksDB per task: column families for values, the time index and the position; no write-ahead log.

The changelog is the log. Without a log of its own a store that was killed is at an earlier position; with atomic
flushes all of its column families are at the same one (without them, not one of twelve killed stores was).
"""

import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.errors import Fatal, WorkerStopped
from pipeline.runtime.rocksdb.rows import rows_of
from pipeline.runtime.rocksdb.scrub import write_anew

_log = logging.getLogger(__name__)

FORMAT = 1
_MB = 1024 * 1024
_META_KEY = b"meta"
_WAKE = 8
_NO_WAKE = bytes(_WAKE)
_MOST_RANGES = 500
_YOUNG_FILES = 24
_FAMILIES = ("values", "timers", "meta")
# Who was fenced ends within so long; a process that is stopped keeps what it has open until it goes on.
_PATIENCE_S = 3.0
_LOOK_AGAIN_S = 0.1
_MOST_HELD = 8
_IS_HELD = f"LOCK: {os.strerror(errno.EAGAIN)}"
_IF_DAMAGED = "If it is damaged, delete the folder: it is restored from the changelog"
_encode_meta = msgspec.json.encode
_meta_decoder = msgspec.json.Decoder(StoreMeta)


class RocksStores:
    """The stores of a role on this machine, in `folder`/<partition>.

    The folder is of the role, not of the slot: whichever worker of the machine gets a partition finds its store. While
    another process still has that open, for it is stopped, the partition has a further one: `folder`/<partition>-2.
    All share one block cache, one budget for write buffers and one thread that reads ahead.
    """

    def __init__(
        self, folder: Path, cache_bytes: int = 64 * _MB, write_buffer_bytes: int = 64 * _MB, compressed: bool = True
    ) -> None:
        self._folder = folder
        self._compressed = compressed
        self._cache = Cache(cache_bytes)
        self._buffers = WriteBufferManager(write_buffer_bytes, False)
        self._patience_s = _PATIENCE_S
        self._opened: dict[int, Path] = {}
        # RocksDB lets go of Python while it reads many keys, and there is another core.
        self._reader = ThreadPoolExecutor(1, "read-ahead")

    def open(self, partition: int) -> "RocksStore":
        """Open, or create, the store of a partition; a further one for as long as another process has it open."""
        own, *further = self._places(partition)
        store = self._open_unless_held(own)
        while store is None and self._patience_s > 0:
            time.sleep(_LOOK_AGAIN_S)
            self._patience_s -= _LOOK_AGAIN_S
            store = self._open_unless_held(own)
        if store is not None:
            self._patience_s = _PATIENCE_S
            self._clear(further)
            self._opened[partition] = own
            return store
        for path in further:
            store = self._open_unless_held(path)
            if store is not None:
                _log.warning("another process has the store in %s open, and may be stopped: %s is used", own, path)
                self._opened[partition] = path
                return store
        raise WorkerStopped(f"other processes have the store in {own} open, and all that could be used meanwhile")

    def wipe(self, partition: int) -> None:
        """Delete a closed store."""
        shutil.rmtree(self._opened.get(partition, self._folder / str(partition)), ignore_errors=True)

    def _places(self, partition: int) -> list[Path]:
        own = self._folder / str(partition)
        return [own, *(own.with_name(f"{partition}-{number}") for number in range(2, _MOST_HELD + 1))]

    def _open_unless_held(self, path: Path) -> "RocksStore | None":
        path.mkdir(parents=True, exist_ok=True)
        try:
            return RocksStore(path, self._options(), self._options_of_values(), self._reader)
        except _Held:
            return None

    def _clear(self, paths: Iterable[Path]) -> None:
        """What was used while a store was held is not used any more; who still has it open keeps it."""
        for path in paths:
            if path.exists():
                with suppress(Exception):
                    Rdict.destroy(str(path), self._options())
                    shutil.rmtree(path, ignore_errors=True)

    def _options_of_values(self) -> Options:
        options = self._options()
        # Six times as many as by default: where every event is about somebody else, what is below is rewritten so much
        # less often, which saves CPU time; as many filters to look at cost nothing that was measured.
        options.set_level_zero_file_num_compaction_trigger(_YOUNG_FILES)
        options.set_level_zero_slowdown_writes_trigger(2 * _YOUNG_FILES)
        options.set_level_zero_stop_writes_trigger(3 * _YOUNG_FILES)
        return options

    def _options(self) -> Options:
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._cache)
        blocks.set_bloom_filter(10, False)
        # Looked up in the cache, with its locks, they cost as much as all else of a read. As many as files may be open.
        blocks.set_cache_index_and_filter_blocks(False)
        options = Options(raw_mode=True)
        # A key that is not in memory is not looked for there.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(0.1)
        options.create_if_missing(True)
        options.create_missing_column_families(True)
        options.set_atomic_flush(True)
        options.set_write_buffer_size(16 * _MB)
        options.set_write_buffer_manager(self._buffers)
        options.set_block_based_table_factory(blocks)
        options.set_compression_type(DBCompressionType.lz4() if self._compressed else DBCompressionType.none())
        options.set_max_background_jobs(2)
        options.set_max_open_files(256)
        options.set_keep_log_file_num(2)
        return options


class _Held(WorkerStopped):
    """Another process has the store open."""


class RocksStore:
    """The store of one task, open. Every failure of the library is Fatal: the process must start again."""

    def __init__(self, path: Path, options: Options, values: Options, reader: Executor) -> None:
        self.path = path
        try:
            self._db = Rdict(str(path), options, {**dict.fromkeys(_FAMILIES, options), "values": values})
        except Exception as error:
            if _IS_HELD in str(error):
                raise _Held(f"another process has the store in {path} open: {error}") from error
            raise WorkerStopped(f"the store in {path} cannot be opened: {error}. {_IF_DAMAGED}") from error
        self._write_options = WriteOptions()
        self._write_options.disable_wal = True  # type: ignore[method-assign, assignment]  # the stubs are wrong
        self._values = self._db.get_column_family("values")
        self._values.set_read_options(_read_past_the_cache())
        self._timers = self._db.get_column_family("timers")
        self._meta = self._db.get_column_family("meta")
        self._handles = [self._db.get_column_family_handle(name) for name in _FAMILIES]
        self._reader = reader
        self._reading: Future[list[bytes | None]] | None = None
        self._scrubber: threading.Thread | None = None
        self._scrub_failure: Exception | None = None
        self._is_open = True

    def meta(self) -> StoreMeta | None:
        try:
            data = self._meta.get(_META_KEY)
        except Exception as error:
            raise self._failed("reading", error) from error
        if data is None:
            return None
        meta = _meta_decoder.decode(data)
        if meta.format != FORMAT:
            raise WorkerStopped(
                f"the store in {self.path} has format {meta.format}, this release reads {FORMAT}; delete the folder "
                f"(the state is restored from the changelog) or run the release that wrote it"
            )
        return meta

    def get(self, key: bytes) -> bytes | None:
        try:
            return self._values.get(key)
        except Exception as error:
            raise self._failed("reading", error) from error

    def reading(self, keys: list[bytes]) -> Callable[[], list[bytes | None]]:
        reading = self._reading = self._reader.submit(self._get_all, keys)

        def values() -> list[bytes | None]:
            try:
                found = reading.result()
            except Exception as error:
                raise self._failed("reading", error) from error
            if self._reading is reading:
                # It would hold what was read, thousands of values, until more is read ahead.
                self._reading = None
            return found

        return values

    def _get_all(self, keys: list[bytes]) -> list[bytes | None]:
        return self._values.get(keys)  # type: ignore[arg-type, return-value]  # the stubs take keys of all kinds

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from rows_of(self._values, prefix)
        except Exception as error:
            # Not as it is: what a stage raises over an event makes that a dead letter.
            raise self._failed("reading", error) from error

    def size(self) -> tuple[int, int]:
        values, timers = self._values, self._timers
        keys = values.property_int_value("rocksdb.estimate-num-keys") or 0
        names = ("rocksdb.total-sst-files-size", "rocksdb.cur-size-all-mem-tables")
        return keys, sum(family.property_int_value(name) or 0 for family in (values, timers) for name in names)

    def timers(self, start: tuple[int, bytes] = (0, b"")) -> Iterator[tuple[int, bytes]]:
        try:
            iterator = self._timers.iter()
            iterator.seek(_row(start))
            while iterator.valid():
                row = iterator.key()
                yield int.from_bytes(row[:_WAKE], "big"), row[_WAKE:]
                iterator.next()
            iterator.status()
        except Exception as error:
            raise self._failed("reading", error) from error

    def write(
        self,
        values: Iterable[tuple[bytes, bytes | None]],
        timers_gone: Iterable[tuple[int, bytes]],
        timers_new: Iterable[tuple[int, bytes]],
        meta: StoreMeta,
    ) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        of_values, of_timers, of_meta = self._handles
        for key, value in values:
            if value is None:
                delete(key, of_values)
            else:
                put(key, value, of_values)
        for row in timers_gone:
            delete(_row(row), of_timers)
        for row in timers_new:
            put(_row(row), b"", of_timers)
        put(_META_KEY, _encode_meta(meta), of_meta)
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            raise self._failed("writing", error) from error

    def restore(self, values: Mapping[bytes, bytes | None], meta: StoreMeta) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        of_values, of_timers, of_meta = self._handles
        for key, value in values.items():
            if value is None:
                delete(key, of_values)
            else:
                put(key, value, of_values)
                # What a row begins with is what the value does.
                if not value.startswith(_NO_WAKE):
                    put(value[:_WAKE] + key, b"", of_timers)
        put(_META_KEY, _encode_meta(meta), of_meta)
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            raise self._failed("writing", error) from error

    def scrub(self, prefixes: Iterable[bytes]) -> None:
        """Compact the ranges of these prefixes to the bottom: in a thread, for it reads and writes whole files."""
        wanted = sorted(prefixes)
        if len(wanted) > _MOST_RANGES:
            # Beyond this the ranges lie in all files anyway.
            wanted = [b""]
        self._scrubber = threading.Thread(target=self._compact, args=(wanted,), name=f"scrub-{self.path.name}")
        self._scrubber.start()

    def _compact(self, prefixes: list[bytes]) -> None:
        try:
            for prefix in prefixes:
                write_anew(self._values, prefix)
        except Exception as error:  # noqa: BLE001 - the worker's thread raises it, as of a read or a write
            self._scrub_failure = error

    def is_scrubbing(self) -> bool:
        if self._scrub_failure is not None:
            raise self._failed("scrubbing", self._scrub_failure)
        return self._scrubber is not None and self._scrubber.is_alive()

    def close(self) -> None:
        """Make everything lasting and free the lock, which takes every handle being gone."""
        if not self._is_open:
            return
        self._is_open = False
        if self._scrubber is not None:
            self._scrubber.join()
        if self._reading is not None:
            wait([self._reading])
        try:
            self._values.flush()
        except Exception as error:
            raise self._failed("flushing", error) from error
        finally:
            self._handles.clear()
            for family in (self._values, self._timers, self._meta):
                family.close()
            self._db.close()

    def _failed(self, what: str, error: Exception) -> Fatal:
        return Fatal(f"{what} the store in {self.path} failed: {error}. {_IF_DAMAGED}")


def _read_past_the_cache() -> ReadOptions:
    """What is read once is kept decoded, by the overlay: RocksDB's own cache would only hold it twice, and to put each
    block in and another out costs more than the read that it saves now and then."""
    options = ReadOptions()
    options.fill_cache(False)  # type: ignore[call-arg]  # the stubs are wrong
    return options


def _row(row: tuple[int, bytes]) -> bytes:
    return row[0].to_bytes(_WAKE, "big") + row[1]
