"""The files of an archive: their names, how one is written at once or not at all, how they are read.

    <archive>/<topic>/partition=<n>/<first offset>-<next offset>.parquet        offsets with 20 digits

A name says which offsets a file has: `first` up to, but without, `next`. So where the archive of a partition ends is
what its last name says; it is kept nowhere else, and a writer that is killed goes on exactly there. Two files may
overlap only if two writers were at work; they hold the same then, and a reader passes over what it has already.

    column      type
    offset      int64
    timestamp   int64, ms: the record's
    key         binary
    value       binary: as in the topic, so sealed where the topic is; of `profile-changes` without `unfollowed`, which
                names others: when these are erased nothing leads from them to this record
    profile_id, entity, change, segment, into, decided_at      of changes only: fields of the value, to query by

Whatever the file system is, a file appears whole: on a disk by a rename, in an object store because objects do.
Needs the extra `headwater[archive]`; stores beyond the local disk need their fsspec package (s3fs, gcsfs, …).
"""

import io
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.runtime.ports import Record

CHANGES = ("segment-changes", "profile-changes")
TOPICS = ("events", *CHANGES)
_NAME = re.compile(r"/(\d{20})-(\d{20})\.parquet$")
_PLAIN = [
    ("offset", pa.int64()),
    ("timestamp", pa.int64()),
    ("key", pa.binary()),
    ("value", pa.binary()),
]
_QUERIED = [
    ("profile_id", pa.string()),
    ("entity", pa.string()),
    ("change", pa.string()),
    ("segment", pa.string()),
    ("into", pa.string()),
    ("decided_at", pa.int64()),
]
_UNFOLLOWED = b'"unfollowed"'
_TEMPORARY = ".part"
_ROWS_AT_ONCE = 10_000


class _Change(msgspec.Struct):
    """What of a change can be queried by."""

    profile_id: str = ""
    entity: str = ""
    change: str = ""
    segment: str | None = None
    into: str | None = None
    decided_at: int = 0


_decode = msgspec.json.Decoder(_Change).decode


class Part(NamedTuple):
    """One file: its path, and the offsets it has."""

    path: str
    first: int
    next: int


class Archive:
    """An archive at an address: a folder, or a URL that fsspec knows (`s3://bucket/prefix`)."""

    def __init__(self, address: str) -> None:
        """Raises ValueError for an address of a kind that needs a package which is not installed, and OSError where
        what it names does not answer."""
        try:
            found = fsspec.core.url_to_fs(address)
        except ImportError as error:
            raise ValueError(f"the archive {address} needs another package: {error}") from None
        self._fs: Any = found[0]
        self._root: str = found[1].rstrip("/")
        self._is_local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))

    # ---------------------------------------------------------------------------------------------------------- names

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic that have files, or had."""
        folder = f"{self._root}/{topic}"
        names = (name.rstrip("/").rpartition("/")[2] for name in self._list(folder))
        return sorted(int(name.removeprefix("partition=")) for name in names if name.startswith("partition="))

    def parts(self, topic: str, partition: int) -> list[Part]:
        """The files of a partition, by their first offset. Of two that begin alike the longer one."""
        longest: dict[int, Part] = {}
        for path in self._list(self._folder(topic, partition)):
            found = _NAME.search(path)
            if found is not None:
                part = Part(path, int(found[1]), int(found[2]))
                if part.first not in longest or longest[part.first].next < part.next:
                    longest[part.first] = part
        return [longest[first] for first in sorted(longest)]

    def end(self, topic: str, partition: int) -> int | None:
        """The offset behind the last one of a partition; None if nothing of it is here."""
        return max((part.next for part in self.parts(topic, partition)), default=None)

    def _folder(self, topic: str, partition: int) -> str:
        return f"{self._root}/{topic}/partition={partition}"

    def _list(self, folder: str) -> list[str]:
        # What is listed may be a minute old otherwise, and our own files would be missing.
        self._fs.invalidate_cache()
        try:
            return [str(path) for path in self._fs.ls(folder, detail=False)]
        except FileNotFoundError:
            return []

    # --------------------------------------------------------------------------------------------------------- writing

    def write(self, topic: str, partition: int, records: Sequence[Record], first: int, next_offset: int) -> Part:
        """Write the records of a partition from the offset `first` up to `next_offset` as one file."""
        path = f"{self._folder(topic, partition)}/{first:020}-{next_offset:020}.parquet"
        self._put(path, _table(topic, records))
        return Part(path, first, next_offset)

    def rewrite(self, part: Part, table: pa.Table) -> None:
        """Put something else in place of a file, under its name."""
        self._put(part.path, table)

    def _put(self, path: str, table: pa.Table) -> None:
        content = io.BytesIO()
        pq.write_table(table, content, compression="zstd")
        self._put_bytes(path, content.getbuffer())

    def _put_bytes(self, path: str, content: bytes | memoryview) -> None:
        """Put a file in place, whole, or leave what is there; on a disk for the archive's user only."""
        if not self._is_local:
            self._fs.pipe_file(path, bytes(content))
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = target.with_name(target.name + _TEMPORARY)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def put_text(self, name: str, text: str) -> None:
        """Keep a small text beside the files."""
        self._put_bytes(f"{self._root}/{name}", text.encode())

    def text(self, name: str) -> str:
        """A text kept so; empty if there is none."""
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{name}")).decode()
        except FileNotFoundError:
            return ""

    # --------------------------------------------------------------------------------------------------------- reading

    def table(self, part: Part, columns: Sequence[str] | None = None) -> pa.Table:
        """A file's content, or some columns of it."""
        with self._fs.open(part.path, "rb") as file:
            return pq.read_table(file, columns=None if columns is None else list(columns))

    def records(
        self, topic: str, partition: int, start: int = 0, keys: Collection[bytes] | None = None
    ) -> Iterator[Record]:
        """The records of a partition from an offset on, each once, in order; with `keys`, those with one of them."""
        wanted = None if keys is None else pa.array(sorted(keys), pa.binary())
        reached, missing = start, ""
        while True:
            try:
                for part in self.parts(topic, partition):
                    if part.next <= reached:
                        continue
                    for offset, timestamp, key, value in self._rows(part, wanted):
                        if offset >= reached:
                            reached = offset + 1
                            yield Record(topic, partition, offset, key, value, timestamp)
                    reached = part.next
                return
            except FileNotFoundError as error:
                # It was put together with others since they were listed.
                if str(error) == missing:
                    raise
                missing = str(error)

    def _rows(self, part: Part, keys: pa.Array | None) -> Iterator[tuple[int, int, bytes | None, bytes | None]]:
        """What a file has of the columns that every topic has, a batch at a time."""
        names = [name for name, _ in _PLAIN]
        with self._fs.open(part.path, "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=names):
                if keys is not None:
                    batch = batch.filter(pc.is_in(batch["key"], keys))
                yield from zip(*(one.to_pylist() for one in batch.columns), strict=True)

    # -------------------------------------------------------------------------------------------------------- keeping

    def tidy(self, topic: str, partition: int) -> int:
        """Take away what a writer left that was killed: beginnings of files, and files all of whose offsets a longer
        one has. Of two that begin alike only the longer one is found again, to be read or to be written anew; the other
        would keep whoever is erased. Returns how many were taken away. For a time when nobody writes."""
        names = self._list(self._folder(topic, partition))
        gone = [path for path in names if path.endswith(_TEMPORARY)]
        found = [(int(one[1]), -int(one[2]), one.string) for one in map(_NAME.search, names) if one is not None]
        reached = 0
        for _, end, path in sorted(found):
            if -end <= reached:
                gone.append(path)
            reached = max(reached, -end)
        for path in gone:
            self._fs.rm_file(path)
        return len(gone)

    def merge(self, topic: str, partition: int, rows: int, at_least: int = 16) -> int:
        """Put files that follow each other together, as many as have `rows` offsets in all, where these are `at_least`
        so many files; returns how many there are fewer. Killed at any step it leaves every record, and some of them
        twice in files that overlap, which a reader does not notice."""
        fewer = 0
        for group in _followers(self.parts(topic, partition), rows):
            if len(group) >= at_least:
                path = f"{self._folder(topic, partition)}/{group[0].first:020}-{group[-1].next:020}.parquet"
                self._put(path, pa.concat_tables([self.table(part) for part in group]))
                for part in group:
                    self._fs.rm_file(part.path)
                fewer += len(group) - 1
        return fewer


def _followers(parts: Sequence[Part], rows: int) -> list[list[Part]]:
    """Files in groups, in each of which one begins where the one before it ends."""
    groups: list[list[Part]] = []
    for part in parts:
        group = groups[-1] if groups else []
        if group and group[-1].next == part.first and part.next - group[0].first <= rows:
            group.append(part)
        else:
            groups.append([part])
    return groups


def _table(topic: str, records: Sequence[Record]) -> pa.Table:
    values = [record.value for record in records]
    if topic == "profile-changes":
        values = [_of_nobody_else(value) if value and _UNFOLLOWED in value else value for value in values]
    columns: list[list[Any]] = [
        [record.offset for record in records],
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        values,
    ]
    schema = list(_PLAIN)
    if topic in CHANGES:
        told = [_change(record.value) for record in records]
        columns += [[getattr(one, name) for one in told] for name, _ in _QUERIED]
        schema += _QUERIED
    arrays = [pa.array(values, kind) for values, (_, kind) in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=pa.schema(schema))


def _of_nobody_else(value: bytes) -> bytes:
    """A change of a profile without the identifiers of others that stood beside its own."""
    change = msgspec.json.decode(value)
    change.get("set", {}).pop("unfollowed", None)
    return msgspec.json.encode(change)


def _change(value: bytes | None) -> _Change:
    try:
        return _decode(value or b"{}")
    except msgspec.MsgspecError:
        return _Change()
