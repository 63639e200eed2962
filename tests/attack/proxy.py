"""A TCP proxy between clients and a broker that does what networks do, and worse: it knows Kafka's request header.

A request is: length (4 bytes), api key (2), version (2), correlation id (4), …; an answer: length, correlation id, ….
"""

import asyncio
import struct
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

METADATA = 3
ADD_OFFSETS_TO_TXN = 25
END_TXN = 26
GROUP_AUTHORIZATION_FAILED = 30


@dataclass
class Rules:
    """What the proxy does at the moment, to transactional ids with `whose` in them. Counters tell how often it did."""

    stalled: bool = False
    refused: bool = False
    whose: bytes = b""
    hold_end: float = 0.0
    swallow_end: int = 0
    refuse_offsets: int = 0
    no_brokers: bool = False
    held: int = 0
    swallowed: int = 0
    offsets_refused: int = 0
    brokers_hidden: int = 0


class Proxy:
    """Listens on `port` of 127.0.0.1 in a thread of its own and passes everything on to `target`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.target = 0
        self.rules = Rules()
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.rules.refused:
            writer.close()
            return
        try:
            upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        link = _Link(self.rules, (reader, writer), upstream)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    def _do(self, work: Callable[[], Awaitable[Any]]) -> Any:
        async def called() -> Any:
            return await work()

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(10)

    def stall(self, stalled: bool) -> None:
        """Pass nothing on in either direction, until told otherwise; connections stay open."""
        self.rules.stalled = stalled

    def cut(self) -> int:
        """Close every connection; how many there were."""

        async def close_all() -> int:
            links = list(self._links)
            for link in links:
                link.close()
            return len(links)

        return int(self._do(close_all))

    def refuse(self, refused: bool) -> None:
        """Accept no connection, until told otherwise."""
        self.rules.refused = refused

    def hold_commits(self, seconds: float, whose: str = "") -> None:
        """Keep each EndTxn request for so long before it is passed on, even if its client is gone. 0: no more."""
        self.rules.whose = whose.encode()
        self.rules.hold_end = seconds

    def swallow_commit_answers(self, count: int, whose: str = "") -> None:
        """Let the next answers to EndTxn vanish, and their connections break a moment later."""
        self.rules.whose = whose.encode()
        self.rules.swallow_end = count

    def refuse_offsets(self, count: int, whose: str = "") -> None:
        """Turn the answers to the next AddOffsetsToTxn requests into refusals that abort the transaction."""
        self.rules.whose = whose.encode()
        self.rules.refuse_offsets = count

    def hide_brokers(self, hidden: bool) -> None:
        """Take every broker out of the answers to Metadata, as one that has only just come back does for a moment."""
        self.rules.no_brokers = hidden

    def close(self) -> None:
        """Stop listening and close every connection."""
        self.cut()

        async def stop() -> None:
            self._server.close()

        self._do(stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class _Link:
    """One connection of a client, and its other half to the broker."""

    def __init__(self, rules: Rules, client: Any, broker: Any) -> None:
        self._rules = rules
        self._client_reader, self._client_writer = client
        self._broker_reader, self._broker_writer = broker
        self._asked: dict[int, tuple[int, int]] = {}

    async def run(self) -> None:
        up = asyncio.ensure_future(self._up())
        down = asyncio.ensure_future(self._down())
        try:
            # A client that is gone does not take a request of its own back that is still held here.
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                up.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        finally:
            self.close()

    def close(self) -> None:
        for writer in (self._client_writer, self._broker_writer):
            writer.close()

    async def _up(self) -> None:
        try:
            while True:
                frame = await _frame(self._client_reader)
                key, version, correlation = struct.unpack_from(">hhi", frame)
                # The transactional id stands within the first bytes after the client's name.
                meant = key in (END_TXN, ADD_OFFSETS_TO_TXN) and self._rules.whose in frame[:300]
                if meant or key == METADATA:
                    self._asked[correlation] = (key, version)
                if meant and key == END_TXN and self._rules.hold_end > 0:
                    self._rules.held += 1
                    await asyncio.sleep(self._rules.hold_end)
                await self._while_stalled()
                self._broker_writer.write(struct.pack(">i", len(frame)) + frame)
                await self._broker_writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            # The client is gone; what it asked for last is still to be carried out.
            await asyncio.sleep(0.5)

    async def _down(self) -> None:
        try:
            while True:
                frame = await _frame(self._broker_reader)
                (correlation,) = struct.unpack_from(">i", frame)
                key, version = self._asked.pop(correlation, (0, 0))
                if key == END_TXN and self._rules.swallow_end > 0:
                    self._rules.swallow_end -= 1
                    self._rules.swallowed += 1
                    await asyncio.sleep(0.3)
                    return
                if key == ADD_OFFSETS_TO_TXN and self._rules.refuse_offsets > 0:
                    self._rules.refuse_offsets -= 1
                    self._rules.offsets_refused += 1
                    # Header (from version 3 on with a byte of tags), throttle time, error code.
                    at = 4 + (1 if version >= 3 else 0) + 4
                    frame = frame[:at] + struct.pack(">h", GROUP_AUTHORIZATION_FAILED) + frame[at + 2 :]
                if key == METADATA and self._rules.no_brokers:
                    frame = _without_brokers(frame, version)
                    self._rules.brokers_hidden += 1
                await self._while_stalled()
                self._client_writer.write(struct.pack(">i", len(frame)) + frame)
                await self._client_writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return

    async def _while_stalled(self) -> None:
        while self._rules.stalled:
            await asyncio.sleep(0.02)


def _without_brokers(frame: bytes, version: int) -> bytes:
    """An answer to Metadata with an empty list of brokers: header with tags, throttle time, then that list."""
    assert version >= 9, f"Metadata in version {version} has another form"
    begin = 4 + 1 + 4
    count, at = _varint(frame, begin)
    for _ in range(count - 1):
        length, at = _varint(frame, at + 4)  # node id; host
        length, at = _varint(frame, at + length - 1 + 4)  # port; rack
        tags, at = _varint(frame, at + max(0, length - 1))
        assert tags == 0, "a broker with tags"
    return frame[:begin] + b"\x01" + frame[at:]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned number of seven bits a byte, and where it ends."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(length)
