"""Bodies as they come: read, unpacked and bounded before anything looks into them."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from pipeline.collector.answers import Refused

Receive = Callable[[], Awaitable[Any]]
_GZIP = 16 + zlib.MAX_WBITS
# What follows a member is copied at its end.
_MOST_MEMBERS = 100


class Reader:
    """Reads bodies of at most `max_bytes`, packed or not, each within `timeout_s`.

    `reserve(n)` is asked before n more bytes are held; it raises Refused when there is no room.
    """

    def __init__(self, max_bytes: int, timeout_s: float) -> None:
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s

    async def read(
        self, receive: Receive, length: bytes | None, encoding: bytes | None, reserve: Callable[[int], None]
    ) -> bytes:
        """The unpacked body. Raises Refused."""
        coding = (encoding or b"identity").strip().lower()
        if coding not in (b"identity", b"gzip", b"x-gzip"):
            raise Refused(415, "unknown_encoding", "Content-Encoding must be gzip or absent.")
        if length is not None and length.isdigit() and int(length[:20]) > self._max_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._whole(receive, reserve)
        except TimeoutError:
            what = f"The body did not come within {self._timeout_s:.0f} s."
            raise Refused(408, "too_slow", what, close=True) from None
        return self._unpacked(body, reserve) if coding != b"identity" else body

    async def _whole(self, receive: Receive, reserve: Callable[[int], None]) -> bytes:
        message = await receive()
        body: bytes = message.get("body", b"")
        parts, size = [body], len(body)
        reserve(size)
        while message.get("more_body", False):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "disconnected", "The caller went away.")
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_bytes:
                raise self._too_large()
            reserve(len(part))
            parts.append(part)
        if size > self._max_bytes:
            raise self._too_large()
        return body if len(parts) == 1 else b"".join(parts)

    def _unpacked(self, body: bytes, reserve: Callable[[int], None]) -> bytes:
        # What is unpacked is bounded, not what was announced: a bomb costs as much as a body that is just too large.
        parts: list[bytes] = []
        rest, room = body, self._max_bytes
        for _ in range(_MOST_MEMBERS):
            unpacking = zlib.decompressobj(_GZIP)
            try:
                part = unpacking.decompress(rest, room + 1)
            except zlib.error:
                what = "What follows the gzip body" if parts else "The body"
                raise Refused(400, "bad_gzip", f"{what} is not gzip, though Content-Encoding says so.") from None
            if len(part) > room:
                raise self._too_large()
            if not unpacking.eof:
                raise Refused(400, "bad_gzip", "The gzip body ends too early.")
            parts.append(part)
            rest, room = unpacking.unused_data, room - len(part)
            if not rest:
                reserve(self._max_bytes - room)
                return b"".join(parts)
        raise Refused(400, "bad_gzip", f"The gzip body has more than {_MOST_MEMBERS} members.")

    def _too_large(self) -> Refused:
        return Refused(413, "too_large", f"The body is larger than {self._max_bytes:,} bytes.", close=True)
