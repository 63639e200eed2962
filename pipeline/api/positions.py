"""How far a reader is, as a client sees it: for reading one's own writes, and for never reading backwards.

A *place* names one record: `topic:partition:offset`. A *position* names a whole model: the position of every partition
of the topics it follows, `profiles=12.40;identities=7.9`. A client that hands back the position it was given last is
answered from nothing older, whichever process it asks.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import msgspec

from pipeline.api.newest import NewestEvents
from pipeline.errors import InputError
from pipeline.records import Event, ProfileChange, read_events_record
from pipeline.runtime.ports import Record

Place = tuple[str, int, int]

_REMEMBERED = 200_000
_TIMED = 20_000
_OF_A_MINUTE = 300
_MAX_POSITION_TEXT = 8_000
_MAX_NUMBER = 2**63

_decode_change = msgspec.json.Decoder(ProfileChange).decode


def parse_place(text: str) -> Place:
    """Read `topic:partition:offset`. Raises InputError."""
    parts = text.rsplit(":", 2)
    if len(parts) == 3 and parts[0] and all(_is_number(part) for part in parts[1:]):
        return parts[0], int(parts[1]), int(parts[2])
    raise InputError(
        f"{text[:100]!r} names no record.", "wait_for", "write TOPIC:PARTITION:OFFSET, for example raw:0:1042"
    )


def parse_position(text: str) -> dict[tuple[str, int], int]:
    """Read a position that was given to a client. Raises InputError."""
    found = {}
    try:
        if len(text) > _MAX_POSITION_TEXT:
            raise ValueError
        for part in text.split(";"):
            topic, equals, numbers = part.partition("=")
            if not equals or not topic:
                raise ValueError
            for partition, number in enumerate(numbers.split(".")):
                if not _is_number(number):
                    raise ValueError
                found[topic, partition] = int(number)
    except ValueError:
        raise InputError(
            "This is no position.", "Headwater-Position", "send the header as it came with an earlier answer"
        ) from None
    return found


def position_text(positions: Mapping[tuple[str, int], int], topics: Iterable[str]) -> str:
    """A position as a client keeps it."""
    parts = []
    for topic in topics:
        numbers = sorted((number, at) for (name, number), at in positions.items() if name == topic)
        if numbers:
            parts.append(f"{topic}={'.'.join(str(at) for _, at in numbers)}")
    return ";".join(parts)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) < _MAX_NUMBER if len(text) < 20 else False


class Latencies:
    """How long it took from the moment an event was received until its effect was seen here: up to 300 of each of the
    last sixty minutes, of the newest events only."""

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._received: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._minutes: OrderedDict[int, tuple[list[int], int]] = OrderedDict()

    def came(self, partition: int, offset: int, received: int) -> None:
        """An event was read."""
        self._received[partition, offset] = received
        if len(self._received) > _TIMED:
            self._received.popitem(last=False)

    def had_effect(self, partition: int, offset: int) -> None:
        """A change that it made was read. Only the first counts."""
        received = self._received.pop((partition, offset), None)
        if received is None:
            return
        now = self._now_ms()
        found, seen = self._minutes.get(now // 60_000, ([], 0))
        if len(found) < _OF_A_MINUTE:
            found.append(now - received)
        else:
            found[seen % _OF_A_MINUTE] = now - received
        self._minutes[now // 60_000] = found, seen + 1
        while len(self._minutes) > 60:
            self._minutes.popitem(last=False)

    def minutes(self) -> list[tuple[int, int, list[int]]]:
        """(beginning in ms, how many, some of their latencies in ms, sorted) of each minute in which there were any."""
        return [(minute * 60_000, seen, sorted(found)) for minute, (found, seen) in list(self._minutes.items())]


class Visible:
    """Tells which records have had their effect: those read, and the events behind the changes that were read.

    An event's effect is there once a change of a profile names it; the raw record behind it is known from the event.
    One that was dropped (a duplicate, junk) never has an effect. The newest 200,000 of each kind are remembered.
    """

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.newest = NewestEvents()
        self._event_of: OrderedDict[Place, tuple[int, int]] = OrderedDict()
        self._told: OrderedDict[tuple[int, int], None] = OrderedDict()
        self.positions: dict[tuple[str, int], int] = {}

    def see(self, records: Iterable[Record], positions: Mapping[tuple[str, int], int]) -> None:
        """Take in what was read, up to `positions`."""
        for record in records:
            if record.topic == "events":
                event = self._came(record)
                if event is not None:
                    self.latencies.came(record.partition, record.offset, event.received)
                    self.newest.add(event, record.partition, record.offset)
            elif record.topic == "profile-changes":
                evidence = _decode_change(record.value or b"").evidence
                if evidence.partition is not None and evidence.offset is not None:
                    self._told[evidence.partition, evidence.offset] = None
                    self.latencies.had_effect(evidence.partition, evidence.offset)
        while len(self._event_of) > _REMEMBERED:
            self._event_of.popitem(last=False)
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        self.positions = dict(positions)

    def recall(self, records: Iterable[Record]) -> None:
        """Take in records whose effect was in the tables before this process began: only who asks for them hears of
        it."""
        for record in records:
            if record.topic == "events":
                self._came(record)
            elif record.topic == "profile-changes":
                evidence = _decode_change(record.value or b"").evidence
                if evidence.partition is not None and evidence.offset is not None:
                    self._told[evidence.partition, evidence.offset] = None

    def _came(self, record: Record) -> Event | None:
        """Keep where the raw record of an event stood."""
        event = read_events_record(record.value)
        if not isinstance(event, Event):
            return None
        topic, _, rest = event.source.partition("/")
        partition, _, offset = rest.partition("/")
        if _is_number(partition) and _is_number(offset):
            self._event_of[topic, int(partition), int(offset)] = (record.partition, record.offset)
        return event

    def is_visible(self, place: Place) -> bool:
        """Whether the record at `place` has had its effect."""
        topic, partition, offset = place
        if topic == "events":
            return (partition, offset) in self._told
        if (topic, partition) in self.positions:
            return offset < self.positions[topic, partition]
        event = self._event_of.get(place)
        return event is not None and event in self._told

    def is_reached(self, wanted: Mapping[tuple[str, int], int]) -> bool:
        """Whether everything up to `wanted` was read."""
        return all(self.positions.get(partition, 0) >= at for partition, at in wanted.items())
