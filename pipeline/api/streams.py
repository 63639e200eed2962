"""Live streams of changes, as server-sent events: of one profile, or of one segment.

A subscription has a cursor: the position, in each partition it may get changes from, up to which it has been told. The
cursor is the id of every event it is sent, so a client that comes back with the last id it saw goes on behind it:
what it missed is read from the topic, and then it joins the live changes. Nothing is left out, nothing comes twice.

A profile that is followed may be merged into another, which is followed from then on: each has a cursor of its own, and
the id has both. By the time a client comes back the merge may be what it missed.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from pipeline.errors import InputError
from pipeline.identifiers import partition_of
from pipeline.lookup import is_profile_id
from pipeline.runtime.ports import Record

CHANGES = ("segment-changes", "profile-changes")
Kind = Literal["profile", "segment"]
Places = dict[tuple[str, int], int]
"""(topic, partition) → the position of the next change."""

_LETTERS = {"segment-changes": "s", "profile-changes": "p"}
_TOPICS = {letter: topic for topic, letter in _LETTERS.items()}
_MAX_CURSOR = 4_000
_WHO = "w"
_MOST_FOLLOWED = 5


_ENDS = ("merged", "expired", "erased")


class _Head(msgspec.Struct):
    profile_id: str
    segment: str = ""
    change: str = ""
    into: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class Change:
    """One change as a stream tells it: the topic it stood in, its place and its bytes."""

    topic: str
    partition: int
    offset: int
    value: bytes
    at_ms: int = 0

    @property
    def segment(self) -> str:
        """The segment that was entered or left; "" of a change of a profile."""
        return _decode_head(self.value).segment

    def ended(self) -> tuple[bool, str]:
        """Whether a profile ended by it, and the id of the one it was merged into."""
        head = _decode_head(self.value)
        return self.topic == "profile-changes" and head.change in _ENDS, head.into or ""


@dataclass(eq=False, slots=True)
class Subscription:
    """Somebody who listens: first to what they had missed; `is_all` false: there is more than that. None in the queue
    means that they fell too far behind. What is below `ahead` they had from a process that had read further. `cursors`:
    of each that is followed, the newest last."""

    kind: Kind
    cursors: dict[str, Places] = field(default_factory=dict)
    ahead: dict[tuple[str, tuple[str, int]], int] = field(default_factory=dict)
    missed: "deque[Change]" = field(default_factory=deque)
    is_all: bool = True
    queue: "asyncio.Queue[Change | None]" = field(default_factory=asyncio.Queue)
    lost: bool = False

    @property
    def name(self) -> str:
        """Who is followed: of those that were merged the last."""
        return next(reversed(self.cursors))

    def name_of(self, change: Change) -> str:
        """Which of those that are followed a change is of."""
        return _decode_head(change.value).profile_id if self.kind == "profile" else self.name

    def id(self) -> str:
        """The id of what was told last."""
        if self.kind == "segment":
            return cursor_text(self.cursors[self.name])
        followed = list(self.cursors.items())[-_MOST_FOLLOWED:]
        return ".".join(f"{_WHO}-{name}.{cursor_text(cursor)}" for name, cursor in followed)


class Hub:
    """Who listens to what. Used in the event loop only."""

    def __init__(self, most: int, most_waiting: int) -> None:
        """`most` streams at the same time; each may have `most_waiting` changes to be fetched."""
        self._most = most
        self._most_waiting = most_waiting
        self._listeners: dict[tuple[Kind, str], set[Subscription]] = {}
        self._count = 0
        self.reached: Places = {}

    @property
    def count(self) -> int:
        """How many listen."""
        return self._count

    def join(self, kind: Kind, name: str, places: Iterable[tuple[str, int]]) -> Subscription | None:
        """Listen from now on; None when there are too many streams already."""
        if self._count >= self._most:
            return None
        found = Subscription(kind)
        self.also(found, name, places)
        self._count += 1
        return found

    def also(self, subscription: Subscription, name: str, places: Iterable[tuple[str, int]]) -> Places:
        """Listen to another profile too, from now on; where that is."""
        now = {place: self.reached.get(place, 0) for place in places}
        self._listeners.setdefault((subscription.kind, name), set()).add(subscription)
        subscription.cursors[name] = dict(now)
        return now

    def has_heard(self, subscription: Subscription) -> bool:
        """Whether a subscription has been told all there is; its cursor then stands where that is."""
        if subscription.missed or not subscription.is_all or not subscription.queue.empty():
            return False
        for cursor in subscription.cursors.values():
            cursor |= {place: max(at, self.reached.get(place, 0)) for place, at in cursor.items()}
        return True

    def leave(self, subscription: Subscription) -> None:
        """Listen no more."""
        for name in subscription.cursors:
            listeners = self._listeners[subscription.kind, name]
            listeners.discard(subscription)
            if not listeners:
                del self._listeners[subscription.kind, name]
        self._count -= 1

    def tell(self, records: Sequence[Record], reached: Mapping[tuple[str, int], int]) -> None:
        """Pass on what was read. `reached` is where the reader stands behind it."""
        for change in changes(records) if self._listeners else ():
            for subscription in self._listening(change):
                if subscription.queue.qsize() < self._most_waiting:
                    subscription.queue.put_nowait(change)
                elif not subscription.lost:
                    subscription.lost = True
                    subscription.queue.put_nowait(None)
        self.reached = {place: at for place, at in reached.items() if place[0] in CHANGES}

    def end(self) -> None:
        """Send everybody away, to come back with the last id they saw."""
        self._most = 0
        for subscription in [one for listeners in self._listeners.values() for one in listeners]:
            subscription.queue.put_nowait(None)

    def _listening(self, change: Change) -> Iterator[Subscription]:
        head = _decode_head(change.value)
        yield from self._listeners.get(("profile", head.profile_id), ())
        if head.segment:
            yield from self._listeners.get(("segment", head.segment), ())


def changes(records: Iterable[Record]) -> Iterator[Change]:
    """Those of the records that are changes."""
    for record in records:
        if record.topic in _LETTERS and record.value is not None:
            yield Change(record.topic, record.partition, record.offset, record.value, record.timestamp_ms)


def concerns(change: Change, kind: Kind, name: str) -> bool:
    """Whether a change belongs to the stream of a profile or segment."""
    head = _decode_head(change.value)
    return head.profile_id == name if kind == "profile" else head.segment == name


def places_of(kind: Kind, name: str, partitions: Mapping[str, int]) -> list[tuple[str, int]]:
    """Where the changes of a profile, or of a segment, can stand. `partitions`: how many each topic has."""
    if kind == "segment":
        return [("segment-changes", number) for number in range(partitions["segment-changes"])]
    return [(topic, partition_of(name.encode(), partitions[topic])) for topic in CHANGES]


def cursor_text(cursor: Mapping[tuple[str, int], int]) -> str:
    """A cursor as an event's id: `s0-12.s1-7`."""
    return ".".join(f"{_LETTERS[topic]}{number}-{at}" for (topic, number), at in sorted(cursor.items()))


def parse_id(text: str) -> dict[str, Places]:
    """Read the id a client saw last: the cursor of each profile that was followed, who they were then last; of a
    segment, and of an earlier release, under "". Raises InputError if it is no id."""
    found: dict[str, Places] = {}
    name = ""
    try:
        if len(text) > _MAX_CURSOR or not text.isascii():
            raise ValueError
        for part in text.split("."):
            place, _, at = part.partition("-")
            if place == _WHO and is_profile_id(at):
                name = at
                continue
            if not place[1:].isdigit() or not at.isdigit() or len(at) > 18 or len(place) > 8:
                raise ValueError
            found.setdefault(name, {})[_TOPICS[place[0]], int(place[1:])] = int(at)
        if not found:
            raise ValueError
    except (ValueError, KeyError, IndexError):
        raise InputError(
            "This is no id of this stream.", "Last-Event-ID", "send the last id you saw, or none to begin with now"
        ) from None
    return found


def event_bytes(told: str, change: Change, value: bytes) -> bytes:
    """One server-sent event. `told` is its id."""
    kind = "segment_change" if change.topic == "segment-changes" else "profile_change"
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (told.encode(), kind.encode(), value)


Missed = Callable[[Places, Places, Callable[[Change], bool]], Awaitable[tuple[list[Change], bool]]]
"""Reads what stands between two cursors, of what is meant; whether that is all of it."""


async def catch_up(subscription: Subscription, since: Mapping[str, Places], missed: Missed) -> None:
    """Let a subscription begin at the cursors `since`: what came between then and its joining is told first, of each
    that it follows."""
    for name, start in since.items():
        cursor = subscription.cursors[name]
        until = {place: cursor[place] for place in start}
        cursor |= start
        await _read_missed(subscription, name, start, until, missed)
        ahead = {place: at for place, at in start.items() if at > until[place]}
        subscription.ahead |= {(name, place): at for place, at in ahead.items()}


async def go_on_with(hub: Hub, subscription: Subscription, name: str, since: Places, missed: Missed) -> None:
    """Let a subscription to a profile that was merged into another hear that one too, from `since` on."""
    now = hub.also(subscription, name, since)
    start = {place: min(at, now[place]) for place, at in since.items()}
    # Who is cut off in the middle of what was missed comes back for the rest.
    subscription.cursors[name] |= start
    await _read_missed(subscription, name, start, now, missed)


async def _read_missed(subscription: Subscription, name: str, start: Places, until: Places, missed: Missed) -> None:
    kind = subscription.kind
    found, is_all = await missed(start, until, lambda change: concerns(change, kind, name))
    subscription.missed.extend(found)
    subscription.is_all = subscription.is_all and is_all
