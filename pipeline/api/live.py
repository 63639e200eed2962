"""Handlers: live streams of changes as server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
from starlette.responses import Response, StreamingResponse

from pipeline.api.access import Caller, Hidden
from pipeline.api.missed import places_at
from pipeline.api.model import decoded
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
    concerns,
    event_bytes,
    go_on_with,
    parse_id,
    places_of,
)
from pipeline.errors import InputError

_SILENCE_S = 15.0
_LAST_WORDS_S = 0.5
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
        call.profile_id = msgspec.json.decode(document)["profile_id"]
        return await self._stream(call, "profile", call.profile_id)

    async def segment(self, call: Call) -> Response:
        """Everybody who enters or leaves one segment."""
        name = call.values["segment"]
        await self._service.check_segments(call.caller, [name])
        return await self._stream(call, "segment", name)

    async def _stream(self, call: Call, kind: Kind, name: str) -> Response:
        hub = self._service.hub
        last = call.values["Last-Event-ID"]
        try:
            since = self._since(kind, name, parse_id(last)) if last else {}
        except InputError as error:
            raise Problem(400, f"{error.what} {error.what_to_do}") from None
        except KeyError:
            raise Problem(410, "This is another profile now, or another stream. Begin again without an id.") from None
        first, *further = since or [name]
        subscription = hub.join(kind, first, self._places(kind, first))
        if subscription is None:
            raise Problem(503, "There are too many streams already.", retry_after="10")
        try:
            for one in further:
                hub.also(subscription, one, self._places(kind, one))
            await catch_up(subscription, since, self._service.missed)
            if subscription.name != name and subscription.is_all:
                _see_that_it_leads_on(subscription)
        except BaseException:
            hub.leave(subscription)
            raise
        return StreamingResponse(
            self._events(subscription, call.caller),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    def _since(self, kind: Kind, name: str, said: dict[str, Places]) -> dict[str, Places]:
        """Where a stream goes on, of whoever it followed by the last id, be they merged by now into the one asked for.
        Raises KeyError if it was somebody else, or not all is said that this stream needs."""
        if "" in said or kind == "segment":
            said = {name: said[""]}
        if kind == "profile":
            document = self._service.model.document(next(reversed(said)))
            if document is None or decoded(document).profile_id != name:
                raise KeyError(name)
        return {one: {place: at[place] for place in self._places(kind, one)} for one, at in said.items()}

    def _places(self, kind: Kind, name: str) -> list[tuple[str, int]]:
        reached = self._service.hub.reached
        partitions = {topic: sum(1 for place in reached if place[0] == topic) for topic in CHANGES}
        if not all(partitions.values()):
            raise Problem(503, "The streams are not ready yet.", retry_after="1")
        return places_of(kind, name, partitions)

    async def _events(self, subscription: Subscription, caller: Caller) -> AsyncIterator[bytes]:
        try:
            kind = subscription.kind.encode()
            yield b"retry: 2000\nid: %s\n: %s\n\n" % (subscription.id().encode(), kind)
            while True:
                try:
                    change = await self._next(subscription)
                except TimeoutError:
                    change = None
                if not caller.is_in_force:
                    yield b": this token is no longer in force\n\n"
                    return
                if change is None:
                    # Else an id of hours ago would be too long ago for who has missed nothing.
                    if self._service.hub.has_heard(subscription):
                        yield b"id: %s\n" % subscription.id().encode()
                    yield b": still here\n\n"
                    continue
                if isinstance(change, bytes):
                    yield change
                    return
                has_ended, into = change.ended() if subscription.kind == "profile" else (False, "")
                # Before it is told: the id of a merge has who is followed from then on.
                is_followed = not into or into in subscription.cursors
                leads_on = is_followed or await self._follow(subscription, into, change.at_ms)
                told = self._event(subscription, change, caller.hide)
                if told:
                    yield told
                if has_ended and not into:
                    for last in await self._last_words(subscription):
                        if told := self._event(subscription, last, caller.hide):
                            yield told
                    yield b": it has ended\n\n"
                    return
                if not leads_on:
                    yield b": this is somebody else now, come back\n\n"
                    return
        finally:
            self._service.hub.leave(subscription)

    async def _next(self, subscription: Subscription) -> Change | bytes:
        """The next change; the last words to a client that has to come back, with the last id it saw. Raises
        TimeoutError after a silence."""
        if subscription.missed:
            return subscription.missed.popleft()
        if not subscription.is_all:
            return b": there is more, come back for it\n\n"
        async with asyncio.timeout(_SILENCE_S):
            while True:
                live = await subscription.queue.get()
                if live is None:
                    return b": too slow\n\n"
                place = subscription.name_of(live), (live.topic, live.partition)
                if live.offset >= subscription.ahead.get(place, 0):
                    return live

    async def _last_words(self, subscription: Subscription) -> list[Change]:
        """What was decided with the end of a profile, and stands in the other topic, may be read a moment later."""
        found: list[Change] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                while not isinstance(change := await self._next(subscription), bytes):
                    found.append(change)
        return found

    async def _follow(self, subscription: Subscription, into: str, at_ms: int) -> bool:
        """Who listens to somebody listens to who they are now: what came since they were merged comes first. False if
        that cannot be read."""
        service = self._service
        places = self._places("profile", into)
        try:
            since = await service.in_thread(lambda: places_at(service.settings, places, at_ms))
            await go_on_with(service.hub, subscription, into, since, service.missed)
        except Problem:
            return False
        return True

    def _event(self, subscription: Subscription, change: Change, hide: Hidden) -> bytes:
        cursor, place = subscription.cursors[subscription.name_of(change)], (change.topic, change.partition)
        cursor[place] = max(cursor.get(place, 0), change.offset + 1)
        if not hide:
            return event_bytes(subscription.id(), change, change.value)
        if change.segment and not hide.sees_segment(change.segment):
            return b""
        return event_bytes(subscription.id(), change, _encode(hide.strip(msgspec.json.decode(change.value))))


def _see_that_it_leads_on(subscription: Subscription) -> None:
    """Whoever was followed is somebody else by now: what says so must be among what was missed. Raises Problem 410."""
    if not any(concerns(one, "profile", subscription.name) and one.ended()[0] for one in subscription.missed):
        raise Problem(410, "This is another profile now. Read the present state, and begin again without an id.")
