"""What the identity stage keeps, and where.

    key                                     value
    m                                       Meta: clock, generation, counts, who reported a backfill
    n identifier                            Node: one identifier, its name and its edges
    x identifier neighbour                  Spilled: one edge of an identifier that has too many for one record
    g name                                  Group: a group of two or more; one identifier alone has no record
    h name member                           Member: one member of a group that has too many for one record

An edge stands at both its ends: with its times at the smaller text, as a mere name at the other. In a key stands the
keyed hash of an identifier (`Keys.digest`), never its text: a key outlives its value, in tombstones and in files. The
first two bytes of the hash are its bucket, so that a sweep over all identifiers can go on where it left off.
"""

from typing import Any

import msgspec
from msgspec import Struct

VERSION = 2
NEVER = 2**62
"""Later than any time: the cut of an unlink for good, and the first seen of an identifier without evidence."""

META_KEY = b"m"
BUCKETS = 65_536


class Edge(Struct, array_like=True):
    """All evidence of one pair: earliest event time, latest received, and which routes have sent it.

    A route is 0 for the smaller end, 1 for the larger, else it stands buried: it may be erased while the edge stays.
    The edge counts if it was last received after `cut` (-1: never unlinked). `last` -1: there is an unlink, but no
    evidence yet. `epoch` is that of its first. `told`: why it is not followed, as the smaller and the larger end
    were told ("": it is, or does not count).
    """

    first: int = NEVER
    last: int = -1
    routes: list[int | str] = []
    cut: int = -1
    epoch: int = 0
    told: tuple[str, str] = ("", "")


class Decided(Struct, array_like=True):
    """What was decided about one identifier: its edges count if last received after `cut` and after `erased_at`, and
    towards quarantine if they are newer than the epoch `released`. `kept_out`: erased at that time, and to be linked to
    nobody before a consent that was given after it (0: no)."""

    cut: int = -1
    released: int = 0
    erased_at: int = -1
    erase_epoch: int = 0
    kept_out: int = 0


FREE, QUARANTINED, CROWDED, BLOCKED = 0, 1, 2, 3
FLAGS: dict[int, Any] = {QUARANTINED: "quarantined", CROWDED: "crowded", BLOCKED: "blocked"}


class Node(Struct, array_like=True):
    """One identifier. `text` is "" where it was erased and nothing came since. `name` "" means itself; `first` is its
    earliest evidence that counts; `touched` how many values of each namespace it stood beside since it was last
    released; `edges` its edges by neighbour, unless `spilled`."""

    version: int = VERSION
    text: str = ""
    name: str = ""
    generation: int = 0
    flag: int = FREE
    first: int = NEVER
    touched: dict[str, int] = {}
    edges: dict[str, Edge | None] = {}
    spilled: bool = False
    decided: Decided | None = None


class Spilled(Struct, array_like=True):
    """One edge of an identifier with many, to `text`; None at the larger end."""

    version: int = VERSION
    text: str = ""
    edge: Edge | None = None


class Group(Struct, array_like=True):
    """A group. `load` is what it takes of the limited namespaces; no edge inside it is ordered after `last`
    (priorities and first seen)."""

    version: int
    size: int
    load: dict[str, int]
    last: tuple[int, int, int]
    members: list[str]
    spilled: bool = False


class Member(Struct, array_like=True):
    """One member of a group with many."""

    version: int = VERSION
    text: str = ""


class Meta(Struct, array_like=True):
    """What the stage knows as a whole. `reported` holds, per generation, the partitions whose backfill is done."""

    version: int = VERSION
    clock: int = 0
    generation: int = 0
    identifiers: int = 0
    ready: int = 0
    reported: dict[int, list[int]] = {}


_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[int, Any] = {
    prefix[0]: msgspec.msgpack.Decoder(kind).decode
    for prefix, kind in ((b"m", Meta), (b"n", Node), (b"x", Spilled), (b"g", Group), (b"h", Member))
}


def encode(key: bytes, value: Any) -> bytes:
    """The stored form of a value."""
    return _encode(value)


def decode(key: bytes, data: bytes) -> Any:
    """The value of a stored form."""
    value = _DECODERS[key[0]](data)
    if value.version != VERSION:
        raise ValueError(f"identity state {key!r} has version {value.version}; this release reads {VERSION}")
    return value
