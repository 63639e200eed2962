"""Handlers: live streams of changes as server-sent events."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from starlette.responses import Response, StreamingResponse

from pipeline.api.access import Hidden
from pipeline.api.operations import Call
from pipeline.api.problems import Problem
from pipeline.api.service import Service
from pipeline.api.streams import (
    CHANGES,
    Change,
    Kind,
    Places,
    Subscription,
    catch_up,
    cursor_text,
    event_bytes,
    parse_cursor,
    places_of,
)
from pipeline.errors import InputError

_SILENCE_S = 15.0
_encode = msgspec.json.Encoder().encode


class Live:
    """The operations that stream."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def profile(self, call: Call) -> Response:
        """Every change of one profile and of its memberships."""
        text = self._service.identifier(call.values["profile"])
        document = self._service.model.document(text)
        if document is None:
            raise Problem(404, "Nobody is known by this identifier.")
        return await self._stream(call, "profile", msgspec.json.decode(document)["profile_id"])

    async def segment(self, call: Call) -> Response:
        """Everybody who enters or leaves one segment."""
        return await self._stream(call, "segment", call.values["segment"])

    async def _stream(self, call: Call, kind: Kind, name: str) -> Response:
        hub = self._service.hub
        partitions = {topic: sum(1 for place in hub.reached if place[0] == topic) for topic in CHANGES}
        if not all(partitions.values()):
            raise Problem(503, "The streams are not ready yet.", retry_after="1")
        places = places_of(kind, name, partitions)
        try:
            last = call.values["Last-Event-ID"]
            since = parse_cursor(last, places) if last else None
        except InputError as error:
            raise Problem(400, f"{error.what} {error.what_to_do}") from None
        subscription = hub.join(kind, name, places)
        if subscription is None:
            raise Problem(503, "There are too many streams already.", retry_after="10")
        try:
            if since is not None:
                await catch_up(subscription, since, self._service.missed)
        except BaseException:
            hub.leave(subscription)
            raise
        return StreamingResponse(
            self._events(subscription, call.caller.hide),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _events(self, subscription: Subscription, hide: Hidden) -> AsyncIterator[bytes]:
        cursor: Places = subscription.cursor
        try:
            yield b"retry: 2000\nid: %s\n: %s\n\n" % (cursor_text(cursor).encode(), subscription.kind.encode())
            for change in subscription.missed:
                yield self._event(cursor, change, hide)
            subscription.missed = []
            while True:
                try:
                    live: Change | None = await asyncio.wait_for(subscription.queue.get(), _SILENCE_S)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if live is None:
                    # The client comes back with the last id it saw, and is told what it missed.
                    yield b": too slow\n\n"
                    return
                yield self._event(cursor, live, hide)
        finally:
            self._service.hub.leave(subscription)

    def _event(self, cursor: Places, change: Change, hide: Hidden) -> bytes:
        cursor[change.topic, change.partition] = change.offset + 1
        value = _encode(hide.strip(msgspec.json.decode(change.value))) if hide else change.value
        return event_bytes(cursor, change, value)
