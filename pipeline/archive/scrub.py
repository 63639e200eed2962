"""Who was erased leaves the archive.

Events are archived as they stand in the topic: sealed, so the destruction of a person's keys reaches them there too.
Changes are readable. When a profile was erased (a record of `profile-changes` says so), every file with a record about
it, or about a profile that had become a part of it and has not begun again, is written anew without these, and without
what is said of accounts and names them. The record of the erasure stays. A profile that was no more when its person
was erased, because it had expired, has no such record: of it the role hears in `privacy-progress`.

How far this was done stands in `<archive>/erased.json`, by partition of `profile-changes`; whoever is killed in the
middle does it again from there.
"""

import logging
from collections.abc import Iterable, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.files import CHANGES, Archive

PROGRESS = "erased.json"
_LOG = "profile-changes"
_log = logging.getLogger(__name__)


def scrub(archive: Archive, note: bool = True, also: Iterable[str] = ()) -> int:
    """Take out of the archive whoever was erased since the last time, and the profiles `also`; returns how many files
    were written anew. Without `note` the next time takes out the same people: more about them may be on its way into
    files. Until then it is kept who had become a part of whom, which says nothing else."""
    done: dict[int, int] = msgspec.json.decode(archive.text(PROGRESS) or "{}", type=dict[int, int])
    reached = dict(done)
    erased: set[str] = set(also)
    for partition in archive.partitions(_LOG):
        for part in archive.parts(_LOG, partition):
            if part.next > done.get(partition, 0):
                erased |= _ids(archive.table(part, ("profile_id", "change")), "erased")
                reached[partition] = max(reached.get(partition, 0), part.next)
    stay = ("erased",) if note else ("erased", "merged")
    rewritten = _without(archive, _with_parts(archive, erased), stay) if erased else 0
    if note and reached != done:
        archive.put_text(PROGRESS, msgspec.json.encode(reached).decode())
    if rewritten:
        _log.info("%d profiles were erased: %d files of the archive were written anew", len(erased), rewritten)
    return rewritten


def _ids(table: pa.Table, change: str) -> set[str]:
    return set(table.filter(pc.equal(table["change"], change))["profile_id"].to_pylist())


def _with_parts(archive: Archive, erased: set[str]) -> set[str]:
    """These profiles, and all that had been merged into them, one after the other; but for those that have begun again
    since: whoever was a part of somebody by mistake lives on."""
    into: dict[str, list[str]] = {}
    merged: dict[str, int] = {}
    began: dict[str, int] = {}
    for partition in archive.partitions(_LOG):
        for part in archive.parts(_LOG, partition):
            table = archive.table(part, ("offset", "profile_id", "change", "into"))
            table = table.filter(pc.is_in(table["change"], pa.array(("created", "split", "merged"))))
            for offset, one, change, target in zip(*(column.to_pylist() for column in table.columns), strict=True):
                # All there is of a profile stands in one partition. Files may overlap.
                newest = merged if change == "merged" else began
                newest[one] = max(offset, newest.get(one, 0))
                if change == "merged":
                    into.setdefault(target, []).append(one)
    found, waiting = set(erased), list(erased)
    while waiting:
        for one in into.get(waiting.pop(), ()):
            if one not in found:
                found.add(one)
                waiting.append(one)
    return erased | {one for one in found - erased if began.get(one, 0) <= merged[one]}


def _without(archive: Archive, gone: set[str], stay: Sequence[str]) -> int:
    """Write every file of changes anew that has a record about one of these; of their changes, these kinds `stay`."""
    wanted, staying = pa.array(sorted(gone), pa.string()), pa.array(stay, pa.string())
    rewritten = 0
    for topic in CHANGES:
        for partition in archive.partitions(topic):
            for part in archive.parts(topic, partition):
                about = archive.table(part, ("profile_id", "entity", "change"))
                theirs = pc.and_(pc.is_in(about["profile_id"], wanted), pc.invert(pc.is_in(about["change"], staying)))
                if pc.any(pc.equal(about["entity"], "account")).as_py():
                    theirs = pc.or_(theirs, _naming(archive.table(part, ("entity", "value")), gone))
                if pc.any(theirs).as_py():
                    archive.rewrite(part, archive.table(part).filter(pc.invert(theirs)))
                    rewritten += 1
    return rewritten


def _naming(table: pa.Table, gone: set[str]) -> pa.Array:
    """Which records are of an account and name one of these: what is said of it says who stands behind it."""
    names = [one.encode() for one in gone]
    rows = zip(table["entity"].to_pylist(), table["value"].to_pylist(), strict=True)
    return pa.array([entity == "account" and any(name in (value or b"") for name in names) for entity, value in rows])
