"""A key for every identifier out of one seed, each of which can be destroyed by itself: a punctured tree of hashes.

A key for each identifier, kept in a table, would need that table wherever events are written: as large as the
population. Here the keys are the leaves of a tree. A node's seed gives the seeds of its four children, so the seed at
the root gives them all, and nobody has to hand keys out. To destroy the key of a leaf, the seeds on the way to it are
replaced by those of all nodes beside the way: every other key can still be derived, that one never again. What has to
be kept grows with the number of destroyed keys (1.5 kB each) and not with the number of people.

    record of the topic `keys`          value
    key "root"                          32 hexadecimal digits: the seed, until the first key is destroyed; then empty
    key of 16 hexadecimal digits        a spine: what was cut around one destroyed leaf

A spine's value is `depth`, `parent`, then the seeds beside the way below `depth`, three for each level. A later leaf
destroyed beneath one of them takes its seed out of that spine, and gets a spine of its own. So each change is at most
two records, and a reader finds the seed above a leaf in the spine of its nearest destroyed neighbour, or a parent's.
"""

from bisect import bisect_left, insort
from hashlib import blake2b
from typing import NamedTuple

DEPTH = 32
"""Levels below the root; two bits of a leaf choose the child of each."""

SEED_BYTES = 16
ROOT_KEY = b"root"
_LEAF_BYTES = 8
_BITS = 64
_GONE = bytes(SEED_BYTES)
_NO_PARENT = 0
_HEAD_BYTES = 1 + _LEAF_BYTES

Change = tuple[bytes, bytes]
"""(record key, value) to be written to the topic `keys`."""


def leaf_of(actor: bytes, life: int = 0) -> int:
    """The leaf of an actor's key (32 hexadecimal bytes), in the life of the identifier after so many erasures."""
    hashed = blake2b(actor, digest_size=_LEAF_BYTES, salt=life.to_bytes(8, "big"), person=b"headwater.leaf")
    return int.from_bytes(hashed.digest(), "big")


class _Spine(NamedTuple):
    """The seeds around one destroyed leaf, from `depth` down: `seeds[(level - depth) * 3 + n]` is the n-th sibling at
    the level. `parent` is the leaf whose spine held the seed that was cut; the first, at depth 0, has none."""

    depth: int
    parent: int
    seeds: bytes


class KeyRing:
    """All keys that are left. `add` takes records of the topic in; `destroy` gives those to be written."""

    def __init__(self) -> None:
        self._root: bytes | None = None
        self._leaves: list[int] = []
        self._spines: dict[int, _Spine] = {}

    @property
    def is_ready(self) -> bool:
        """Whether there is anything keys can be derived from."""
        return self._root is not None or bool(self._spines)

    @property
    def destroyed(self) -> int:
        """How many keys have been destroyed."""
        return len(self._leaves)

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take in one record of the topic. An older one than what is known changes nothing."""
        if not value:
            if key == ROOT_KEY and value is not None:
                self._root = None
            return
        if key == ROOT_KEY:
            if not self._spines:
                self._root = bytes.fromhex(value.decode())
            return
        leaf = int(key, 16)
        spine = _Spine(value[0], int.from_bytes(value[1:_HEAD_BYTES], "big"), value[_HEAD_BYTES:])
        if leaf not in self._spines:
            insort(self._leaves, leaf)
        self._spines[leaf] = spine

    def begin(self, seed: bytes) -> list[Change]:
        """A new tree from a seed of 16 random bytes."""
        assert len(seed) == SEED_BYTES and not self.is_ready
        self._root = seed
        return [(ROOT_KEY, seed.hex().encode())]

    def is_destroyed(self, leaf: int) -> bool:
        """Whether the key of a leaf was destroyed."""
        return leaf in self._spines

    def seed(self, leaf: int) -> bytes | None:
        """The seed of a leaf; None once it was destroyed. Raises LookupError while no keys are known at all."""
        if leaf in self._spines:
            return None
        depth, seed = self._above(leaf)
        for level in range(depth, DEPTH):
            child = _branch(leaf, level)
            seed = _children(seed)[child * SEED_BYTES : (child + 1) * SEED_BYTES]
        return seed

    def destroy(self, leaf: int) -> list[Change]:
        """Destroy the key of a leaf. Gives the records that make it so for everybody; none if it is so already."""
        if leaf in self._spines:
            return []
        depth, seed = self._above(leaf)
        changes: list[Change] = []
        parent = _NO_PARENT
        if self._root is not None:
            self._root = None
        else:
            parent, place = self._holder(leaf)
            holder = self._spines[parent]
            cut = holder.seeds[:place] + _GONE + holder.seeds[place + SEED_BYTES :]
            self._spines[parent] = holder._replace(seeds=cut)
        beside = bytearray()
        for level in range(depth, DEPTH):
            chosen, children = _branch(leaf, level), _children(seed)
            for child in range(4):
                part = children[child * SEED_BYTES : (child + 1) * SEED_BYTES]
                if child == chosen:
                    seed = part
                else:
                    beside += part
        self._spines[leaf] = _Spine(depth, parent, bytes(beside))
        insort(self._leaves, leaf)
        # The new spine first: who stops reading between the two can derive too much, but never loses a key.
        changes.append(self._record(leaf))
        changes.append(self._record(parent) if depth else (ROOT_KEY, b""))
        return changes

    def _record(self, leaf: int) -> Change:
        spine = self._spines[leaf]
        head = bytes([spine.depth]) + spine.parent.to_bytes(_LEAF_BYTES, "big")
        return b"%016x" % leaf, head + spine.seeds

    def _above(self, leaf: int) -> tuple[int, bytes]:
        """The deepest node above a leaf whose seed is kept: (its depth, its seed)."""
        if self._root is not None:
            return 0, self._root
        if not self._spines:
            raise LookupError("no keys are known")
        holder, place = self._holder(leaf)
        spine = self._spines[holder]
        return spine.depth + place // (3 * SEED_BYTES) + 1, spine.seeds[place : place + SEED_BYTES]

    def _holder(self, leaf: int) -> tuple[int, int]:
        """In whose spine, and where in it, the seed above a leaf is kept."""
        at = bisect_left(self._leaves, leaf)
        neighbours = self._leaves[max(0, at - 1) : at + 1]
        shared, nearest = max((_shared(leaf, other), other) for other in neighbours)
        spine = self._spines[nearest]
        while spine.depth > shared:
            nearest = spine.parent
            spine = self._spines[nearest]
        child = _branch(leaf, shared)
        place = (shared - spine.depth) * 3 + child - (child > _branch(nearest, shared))
        return nearest, place * SEED_BYTES


def _branch(leaf: int, level: int) -> int:
    return leaf >> (_BITS - 2 - 2 * level) & 3


def _shared(one: int, other: int) -> int:
    """How many levels two leaves have in common."""
    return (_BITS - (one ^ other).bit_length()) // 2


def _children(seed: bytes) -> bytes:
    return blake2b(seed, digest_size=4 * SEED_BYTES, person=b"headwater.seed").digest()
