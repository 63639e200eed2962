"""What contracts allow to be kept no longer leaves the archive.

An event whose `retention` has passed since it was received is taken out, and its file written anew under its name. A
sealed event shows what it is called by four bytes that stand for its name (`pipeline.vault.name_mark`); its own time is
sealed, so what happened long before it was received goes by when that was.

How far this was done, and by which retentions, stands in `<archive>/expired.json`: by the same ones, only files with
records that have become due since are read.
"""

import logging
from collections.abc import Mapping

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.files import Archive
from pipeline.vault import name_mark, sealed_name

PROGRESS = "expired.json"
_TOPIC = "events"
_SEALED = 1
_log = logging.getLogger(__name__)


class _Name(msgspec.Struct):
    """Of an event that is not sealed, what it is called."""

    event: str = ""


class _Progress(msgspec.Struct):
    at: int = 0
    keeps: dict[str, int] = {}


_decode = msgspec.json.Decoder(_Name).decode


def take_out_expired(archive: Archive, keeps: Mapping[str, int], now_ms: int) -> int:
    """Take out the events that are older at `now_ms` than `keeps` (event → ms) allows; returns how many files were
    written anew."""
    if not keeps:
        return 0
    done = msgspec.json.decode(archive.text(PROGRESS) or "{}", type=_Progress)
    since = done.at if done.keeps == dict(keeps) else 0
    shortest, longest = min(keeps.values()), max(keeps.values())
    rewritten = 0
    for partition in archive.partitions(_TOPIC):
        for part in archive.parts(_TOPIC, partition):
            times = archive.table(part, ("timestamp",))["timestamp"]
            if not len(times) or pc.min(times).as_py() + shortest > now_ms or pc.max(times).as_py() + longest <= since:
                continue
            table = archive.table(part)
            gone = _due(table, keeps, now_ms)
            if pc.any(gone).as_py():
                archive.rewrite(part, table.filter(pc.invert(gone)))
                rewritten += 1
    archive.put_text(PROGRESS, msgspec.json.encode(_Progress(now_ms, dict(keeps))).decode())
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
    if value[0] == _SEALED:
        ms = marks.get(sealed_name(value))
    else:
        try:
            ms = keeps.get(_decode(value).event)
        except msgspec.MsgspecError:
            ms = None
    return float("inf") if ms is None else timestamp + ms
