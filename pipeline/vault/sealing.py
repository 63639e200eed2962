"""The codec of the history: an event under the key of its routing identifier.

    byte 0        1: sealed so (JSON begins with a brace, so records of before the history was sealed can be told)
    1 to 8        the leaf of the key
    9 to 12       four bytes of a hash of the event's name, which a backfill needs to pass over what it cannot use
    13 to 24      nonce
    25 on         AES-128-GCM of the encoded event, with its tag; the bytes before it are authenticated too

The nonce is a keyed hash of what is sealed, so that a stage may seal and yet be a function of its records: the same
event gives the same bytes, and two different ones never meet under one nonce.
"""

from collections import OrderedDict
from hashlib import blake2b

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pipeline.vault.keyring import ROOT_KEY, KeyRing, leaf_of

SEALED = 1
_HEAD_BYTES = 13
_NONCE_BYTES = 12
_MOST_LIVES = 1_000
_CACHED_KEYS = 100_000


def name_mark(name: str) -> bytes:
    """Four bytes that stand for the name of an event."""
    return blake2b(name.encode(), digest_size=4, person=b"headwater.name").digest()


def sealed_name(value: bytes) -> bytes:
    """The mark of the name of a sealed event."""
    return value[9:_HEAD_BYTES]


class Sealer:
    """Seals and opens events with the keys of a ring, which may go on changing.

    Keys at hand are a cache: each is dropped with the ring's, by `drop`.
    """

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring
        self._keys: OrderedDict[int, tuple[AESGCM, bytes]] = OrderedDict()
        self._leaves: OrderedDict[bytes, int] = OrderedDict()

    def seal(self, actor: bytes, name: str, encoded: bytes) -> bytes:
        """An encoded event under the key of its route (the actor's key, 32 hexadecimal bytes)."""
        leaf = self._leaf(actor)
        found = self._key(leaf)
        assert found is not None, "a living leaf has a key"
        cipher, nonce_key = found
        head = b"\x01" + leaf.to_bytes(8, "big") + name_mark(name)
        return _sealed(cipher, nonce_key, head, encoded)

    def seal_anew(self, sealed: bytes, encoded: bytes) -> bytes | None:
        """Something else under the key, and the name, of a sealed event; None if its key was destroyed."""
        found = self._key(int.from_bytes(sealed[1:9], "big"))
        return None if found is None else _sealed(*found, sealed[:_HEAD_BYTES], encoded)

    def open(self, value: bytes) -> bytes | None:
        """The encoded event; None if its key was destroyed. What was never sealed is given back as it is.

        Raises ValueError for what was changed, cut off, or sealed with another workspace's keys.
        """
        if value[:1] != b"\x01":
            return value
        found = self._key(int.from_bytes(value[1:9], "big"))
        if found is None:
            return None
        body = _HEAD_BYTES + _NONCE_BYTES
        try:
            return found[0].decrypt(value[_HEAD_BYTES:body], value[body:], value[:_HEAD_BYTES])
        except InvalidTag:
            raise ValueError("a sealed event cannot be opened: it was changed, or its keys are not these") from None

    def take(self, key: bytes, value: bytes | None) -> None:
        """Take in one record of the topic `keys`. A tombstone says nothing: it only begins a new segment of the log."""
        self.ring.add(key, value)
        if value and key != ROOT_KEY:
            self.drop(int(key, 16))

    def drop(self, leaf: int) -> None:
        """Forget the key of a leaf, and whose it is."""
        self._keys.pop(leaf, None)
        self._leaves.clear()

    def _leaf(self, actor: bytes) -> int:
        leaf = self._leaves.get(actor)
        if leaf is None:
            for life in range(_MOST_LIVES):
                leaf = leaf_of(actor, life)
                if not self.ring.is_destroyed(leaf):
                    break
            assert leaf is not None
            if len(self._leaves) >= _CACHED_KEYS:
                self._leaves.popitem(last=False)
            self._leaves[actor] = leaf
        return leaf

    def _key(self, leaf: int) -> tuple[AESGCM, bytes] | None:
        found = self._keys.get(leaf)
        if found is None:
            seed = self.ring.seed(leaf)
            if seed is None:
                return None
            derived = blake2b(seed, digest_size=48, person=b"headwater.key").digest()
            found = AESGCM(derived[:16]), derived[16:]
            if len(self._keys) >= _CACHED_KEYS:
                self._keys.popitem(last=False)
            self._keys[leaf] = found
        return found


def _sealed(cipher: AESGCM, nonce_key: bytes, head: bytes, encoded: bytes) -> bytes:
    nonce = blake2b(encoded, digest_size=_NONCE_BYTES, key=nonce_key).digest()
    return head + nonce + cipher.encrypt(nonce, encoded, head)
