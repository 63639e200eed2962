"""What contracts allow to be kept no longer leaves the archive.

An event whose `retention` has passed since it was received is taken out, and its file written anew under its name. A
sealed event shows what it is called by four bytes that stand for its name (`pipeline.vault.name_mark`); its own time is
sealed, so what happened long before it was received goes by when that was.

A single property, trait or part of the context that has a `retention` of its own is taken out of the event: it is
opened, and sealed anew under the same key. For that, and for nothing else, the role reads the keys of the history; of
events that no contract gives such a part none is opened.

How far this was done, of which files and by which retentions, stands in `<archive>/expired.json`: by the same ones,
only files that have come since are read, and those with records that have become due since.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.activation.data import Path, changed_at, walked
from pipeline.archive.files import Archive
from pipeline.records import UNREADABLE
from pipeline.vault import name_mark, sealed_name

PROGRESS = "expired.json"
_TOPIC = "events"
_SEALED = 1
_log = logging.getLogger(__name__)

Place = tuple[str, Path]
"""An event's name, and the path of a part of it: its section first."""


class Vault(Protocol):
    """What opens sealed events, and seals them again."""

    def open(self, value: bytes) -> bytes | None: ...
    def seal_anew(self, sealed: bytes, encoded: bytes) -> bytes | None: ...


class _Name(msgspec.Struct):
    """Of an event that is not sealed, what it is called."""

    event: str = ""


class _Progress(msgspec.Struct):
    at: int = 0
    keeps: dict[str, int] = {}
    parts: dict[str, int] = {}
    ends: dict[str, int] = {}
    """Partition → the offset behind the last file that was there. What came later may have been due when it came."""


_decode = msgspec.json.Decoder(_Name).decode


def take_out_expired(
    archive: Archive,
    keeps: Mapping[str, int],
    now_ms: int,
    parts: Mapping[Place, int] | None = None,
    vault: Callable[[], Vault] | None = None,
) -> int:
    """Take out the events that are older at `now_ms` than `keeps` (event → ms) allows, and of others the `parts` that
    are; returns how many files were written anew. `vault` is asked for, once, when a part is to be taken out."""
    parts = parts if parts is not None and vault is not None else {}
    if not keeps and not parts:
        return 0
    done = msgspec.json.decode(archive.text(PROGRESS) or "{}", type=_Progress)
    by = _Progress(now_ms, dict(keeps), {"\0".join((name, *path)): ms for (name, path), ms in parts.items()})
    is_as_before = (done.keeps, done.parts) == (by.keeps, by.parts)
    times_ms = [*keeps.values(), *parts.values()]
    shortest, longest = min(times_ms), max(times_ms)
    opened = cache(vault) if parts and vault is not None else None
    of_event: dict[str, list[tuple[Path, int]]] = {}
    for (name, path), ms in parts.items():
        of_event.setdefault(name, []).append((path, ms))
    rewritten = 0
    for partition in archive.partitions(_TOPIC):
        known = done.ends.get(str(partition), 0) if is_as_before else 0
        for part in archive.parts(_TOPIC, partition):
            by.ends[str(partition)] = part.next
            since = done.at if part.next <= known else 0
            times = archive.table(part, ("timestamp",))["timestamp"]
            if not len(times) or pc.min(times).as_py() + shortest > now_ms or pc.max(times).as_py() + longest <= since:
                continue
            table = archive.table(part)
            gone = _due(table, keeps, now_ms)
            is_less = pc.any(gone).as_py()
            left = table.filter(pc.invert(gone)) if is_less else table
            values = _without(left, of_event, opened, since, now_ms) if opened is not None else None
            if values is not None:
                left = left.set_column(left.schema.get_field_index("value"), "value", values)
            if is_less or values is not None:
                archive.rewrite(part, left)
                rewritten += 1
    archive.put_text(PROGRESS, msgspec.json.encode(by).decode())
    if rewritten:
        _log.info("events were kept for as long as contracts allow: %d files were written anew", rewritten)
    return rewritten


def _due(table: pa.Table, keeps: Mapping[str, int], now_ms: int) -> pa.Array:
    """Which of the records are to be gone."""
    marks = {name_mark(name): ms for name, ms in keeps.items()}
    rows = zip(table["timestamp"].to_pylist(), table["value"].to_pylist(), strict=True)
    return pa.array([_kept(value, marks, keeps, timestamp) <= now_ms for timestamp, value in rows], pa.bool_())


def _kept(value: bytes | None, marks: Mapping[bytes, int], keeps: Mapping[str, int], timestamp: int) -> float:
    """Until when a record may be kept."""
    if not value:
        return float("inf")
    ms = marks.get(sealed_name(value)) if value[0] == _SEALED else keeps.get(_name_of(value))
    return float("inf") if ms is None else timestamp + ms


def _name_of(value: bytes) -> str:
    try:
        return _decode(value).event
    except UNREADABLE:
        return ""


def _without(
    table: pa.Table,
    of_event: Mapping[str, Sequence[tuple[Path, int]]],
    vault: Callable[[], Vault],
    since_ms: int,
    now_ms: int,
) -> pa.ChunkedArray | None:
    """The values without the parts that have become due since; None if they are as they were."""
    marks = {name_mark(name): found for name, found in of_event.items()}
    values, changed = table["value"].to_pylist(), False
    for row, (timestamp, value) in enumerate(zip(table["timestamp"].to_pylist(), values, strict=True)):
        if not value:
            continue
        found = marks.get(sealed_name(value)) if value[0] == _SEALED else of_event.get(_name_of(value))
        due = [path for path, ms in found or () if since_ms < timestamp + ms <= now_ms]
        if due:
            left = _taken_out(value, due, vault())
            if left is not None:
                values[row], changed = left, True
    return pa.chunked_array([pa.array(values, pa.binary())]) if changed else None


def _taken_out(value: bytes, paths: Sequence[Path], vault: Vault) -> bytes | None:
    """An event without what stands at these paths; None if there is nothing, or nobody can open it any more."""
    is_sealed = value[0] == _SEALED
    plain = vault.open(value) if is_sealed else value
    if plain is None:
        return None
    event = msgspec.json.decode(plain)
    found = [path for path in paths if walked(event, path)]
    if not found:
        return None
    for path in found:
        event = changed_at(event, path, None)
    encoded = msgspec.json.encode(event)
    return vault.seal_anew(value, encoded) if is_sealed else encoded
