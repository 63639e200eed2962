"""Records and values of the state as bytes, by way of buffers that are kept.

An encoder's own bytes grow by half, again and again, and keep what they did not need in the end: most records of a
batch would then be too large for Python's allocator of small objects, and each is kept until the batch is handed over.
"""

from typing import Any

import msgspec

_into_plain = msgspec.json.Encoder().encode_into
# The order of names in a profile depends on what was at hand and says nothing; sorted, equal profiles are equal bytes.
_into_sorted = msgspec.json.Encoder(order="deterministic").encode_into
_into_kept = msgspec.msgpack.Encoder().encode_into


class Writer:
    """Of one task, for its thread. A buffer for each kind: what follows is about as long as what was before."""

    def __init__(self) -> None:
        self._plain = bytearray()
        self._sorted = bytearray()
        self._kept = bytearray()

    def plain(self, record: Any) -> bytes:
        """A record that is said, as JSON: what `encode` gives."""
        _into_plain(record, self._plain)
        return bytes(self._plain)

    def sorted(self, record: Any) -> bytes:
        """A record that shows a profile, or a part of it, as JSON with sorted names."""
        _into_sorted(record, self._sorted)
        return bytes(self._sorted)

    def kept(self, value: Any) -> bytes:
        """A value of the state, as MessagePack."""
        _into_kept(value, self._kept)
        return bytes(self._kept)
