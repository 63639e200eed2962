"""Identifiers and the keys derived from them.

Inside the pipeline an identifier is the text ``namespace:value`` after normalisation: hashable, sortable, and the
same in every record. A namespace never holds a colon; a value may. Public topics show ``{namespace, value}``.
"""

import hashlib
from functools import lru_cache
from typing import NewType

Identifier = NewType("Identifier", str)

ACCOUNT = "account"
"""The namespace that names accounts. No person has an identifier in it: their profiles would have the same id."""

_CACHED_KEYS = 200_000
# The first digit of a UUID's fourth group: its two upper bits say which kind of UUID it is.
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
BURIED = "\0"
"""Begins what stands for a buried identifier; no identifier holds a control character."""


def identifier(namespace: str, value: str) -> Identifier:
    """Join a namespace and a normalised value to an identifier."""
    return Identifier(f"{namespace}:{value}")


def split_identifier(text: str) -> tuple[str, str]:
    """Split an identifier into (namespace, value)."""
    namespace, _, value = text.partition(":")
    return namespace, value


class Keys:
    """The keys of one workspace: keyed hashes under its secret, so that no identifier stands in a key.

    The same secret gives the same keys in every process and at every time; another secret shares none of them.
    """

    def __init__(self, secret: bytes) -> None:
        if not secret:
            raise ValueError("the workspace secret is empty; set HEADWATER_SECRET or `secret` in headwater.yaml")
        hashed = hashlib.blake2b(secret, digest_size=32, person=b"headwater").digest()
        self._space = hashlib.blake2b(hashed, digest_size=16, person=b"profile_id").digest()

        @lru_cache(maxsize=_CACHED_KEYS)
        def actor(text: str) -> bytes:
            if text[:1] == BURIED:
                return text[1:].encode()
            return hashlib.blake2b(text.encode(), digest_size=16, key=hashed).hexdigest().encode()

        self._actor = actor

    def actor(self, text: str) -> bytes:
        """The record key of an identifier's actor in `events` and `links`: 32 hexadecimal bytes. That of a buried
        identifier too."""
        return self._actor(text)

    def digest(self, text: str) -> bytes:
        """The same as 16 raw bytes."""
        return bytes.fromhex(self._actor(text).decode())

    def buried(self, text: str) -> str:
        """What stands for an identifier where its text must not: it leads to the actor, and back to nobody."""
        return text if text[:1] == BURIED else BURIED + self._actor(text).decode()

    def profile_id(self, text: str, erase_epoch: int = 0) -> str:
        """The profile_id of the profile named after an identifier: a UUIDv5 under the workspace's secret."""
        return _uuid5(self._space, f"{text}#{erase_epoch}" if erase_epoch else text)


def _uuid5(space: bytes, name: str) -> str:
    """`str(uuid.uuid5(…))`, at a third of what it costs: whoever is not at hand asks for one."""
    text = hashlib.sha1(space + name.encode(), usedforsecurity=False).hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:32]}"


def murmur2(data: bytes) -> int:
    """MurmurHash2 with the seed of Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2), unsigned."""
    length = len(data)
    h = (0x9747B28C ^ length) & 0xFFFFFFFF
    for start in range(0, length - length % 4, 4):
        k = int.from_bytes(data[start : start + 4], "little") * 0x5BD1E995 & 0xFFFFFFFF
        k = (k ^ k >> 24) * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 & 0xFFFFFFFF) ^ k
    tail = data[length - length % 4 :]
    if tail:
        h = (h ^ int.from_bytes(tail, "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition the Java client would choose for a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions if partitions > 1 else 0
