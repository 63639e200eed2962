"""How one profile stands with all rules of a plan, and what is kept of it: docs/decisions/standings-are-kept.md."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.segments.plan import SegmentsPlan


class Standing:
    """Where one profile stands: made by `SegmentsPlan.begin`, or of what was kept of it by `resume`, and moved on by
    `update` and `settle`.

    `kept` is all that need be kept of it: the fingerprint of the plan, and behind it a bit for each node, set where its
    truth is not that for an empty profile. When it is to be judged again is known of each atom only once somebody has
    had to know it, and until `rest`; otherwise there is but one instant before which none is.
    """

    __slots__ = ("_first", "_plan", "_scheduled", "kept", "now")

    def __init__(self, plan: "SegmentsPlan", kept: bytes, now_ms: int, first_ms: int) -> None:
        self._plan = plan
        self.kept = kept
        self.now = now_ms
        self._first = first_ms
        self._scheduled: dict[int, int] | None = None

    @property
    def members(self) -> set[str]:
        """The segments true at `now`. Found anew each time: few ask, and a set for each profile is much memory."""
        return self._plan.members(self)

    @property
    def deadline(self) -> int:
        """An instant (ms) before which time alone changes nothing; 0 if it never will. It may be too early."""
        return self._first

    def rest(self) -> None:
        """Forget when each atom is to be judged again: nobody asks for long, and it takes most of the memory."""
        self._scheduled = None


FINGERPRINT_BYTES = 8
# Raise it when what an atom says of the same facts changes: what was judged before is then judged anew.
_JUDGED = 1


def fingerprint_of(node_of: Mapping[bytes, int], zones: Iterable[bytes] = ()) -> bytes:
    """What stands for a plan before the bits of its nodes: their keys, which number each has, and the digests of the
    time zones that they go by. Not 0 at its end."""
    digest = blake2b(digest_size=FINGERPRINT_BYTES - 1)
    for key in sorted(node_of):
        digest.update(b"%d %d %b" % (node_of[key], len(key), key))
    for zone in zones:
        digest.update(zone)
    return digest.digest() + bytes((_JUDGED,))


def is_set(kept: bytes, node: int) -> bool:
    """Whether the truth of a node is not that for an empty profile."""
    at = FINGERPRINT_BYTES + (node >> 3)
    return at < len(kept) and kept[at] >> (node & 7) & 1 == 1


def toggled(kept: bytes, nodes: Iterable[int]) -> bytes:
    """The same with the bits of these nodes turned."""
    bits = bytearray(kept)
    for node in nodes:
        at = FINGERPRINT_BYTES + (node >> 3)
        if at >= len(bits):
            bits.extend(bytes(at + 1 - len(bits)))
        bits[at] ^= 1 << (node & 7)
    return bytes(bits.rstrip(b"\0"))
