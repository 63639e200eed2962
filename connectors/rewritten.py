"""A file of JSON lines, written anew without what is about a person, so that a crash loses no other line.

    1  what is to stay is written beside the file, and takes the name `<file>.rewritten` when it is whole
    2  it is copied into the file, whose holders all go on with the same one
    3  `<file>.rewritten` goes

Whoever finds a `<file>.rewritten` does 2 and 3 again. The caller holds the lock on the file.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline.records import UNREADABLE, Delivery, IdentifierPair

_BLOCK = 1 << 20


class _Line(msgspec.Struct):
    """What of a delivery tells whom it is about."""

    action: str = ""
    identifiers: list[IdentifierPair] = []


_decode = msgspec.json.Decoder(_Line).decode


def write_without(file: int, beside: Path, end: int, erased: Delivery) -> None:
    """Step 1, if the first `end` bytes of the file have a line about the person whom `erased` asks to delete."""
    gone = [one.encode() for one in {erased.profile_id, *erased.body.get("profile_ids", ())}]
    who = {(pair.namespace, pair.value) for pair in erased.identifiers}
    if not any(_is_about(line, gone, who) for line in _lines(file, end)):
        return
    fresh = beside.with_name(f"{beside.name}.new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
        kept.writelines(line for line in _lines(file, end) if not _is_about(line, gone, who))
        kept.flush()
        os.fsync(kept.fileno())
    fresh.replace(beside)


def put_in_place(file: int, beside: Path) -> None:
    """Steps 2 and 3, if there is something to put in place."""
    try:
        kept = beside.open("rb")
    except FileNotFoundError:
        return
    with kept:
        written = 0
        while block := kept.read(_BLOCK):
            at = 0
            while at < len(block):
                at += os.pwrite(file, block[at:], written + at)
            written += len(block)
    os.ftruncate(file, written)
    os.fsync(file)
    beside.unlink()


def _lines(file: int, end: int) -> Iterator[bytes]:
    rest, at = b"", 0
    while at < end:
        block = os.pread(file, min(_BLOCK, end - at), at)
        if not block:
            break
        at += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest


def _is_about(line: bytes, gone: list[bytes], who: set[tuple[str, str]]) -> bool:
    try:
        found = _decode(line)
    except UNREADABLE:
        return False
    if found.action == "profile_erased":
        return False
    if any((pair.namespace, pair.value) in who for pair in found.identifiers):
        return True
    # Anywhere in it: what is said of an account names those who stand behind it.
    return any(one in line for one in gone)
