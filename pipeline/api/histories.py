"""What the read model keeps beside the truth, so that people can be shown how things came to be: when somebody did how
much, what stood beside what, which event a trait came from, how segments grow, what contracts were not kept to.

Everything is bounded: per route a few weeks and so many links and traits, per segment so many hours, so many days of
violations. No identifier and no value stands in these rows; what somebody may not see is not kept a second time.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec

from pipeline.api.tables import Row, Tables
from pipeline.identifiers import Keys
from pipeline.records import AccountAlert, Event, SegmentChange

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
GROWTH_HOURS = 30 * 24
VIOLATION_DAYS = 14
_MOST_LINKS = 60
_MOST_TRAITS = 200
_MOST_IN_EVENT = 8
_MOST_MESSAGES = 64
_MOST_VIOLATIONS = 500
_ALERTS_OF_ONE, _ALERTS_OF_ALL = 50, 500
_EVERYBODYS = b"*"
_LATEST = 2**63 - 1
_COUNTS = struct.Struct(">II")
_VIOLATIONS = ("contract_violation:", "stripped:", "unplanned_property:", "unplanned_event")


class Seen(msgspec.Struct, array_like=True):
    """Two identifiers (their keyed hashes) stood in the same events: the first and the newest event time, how often,
    and where the newest stands in `events`."""

    a: bytes
    b: bytes
    first: int
    last: int
    count: int
    partition: int
    offset: int


class Origin(msgspec.Struct, array_like=True):
    """The event a trait's newest value came with: its time, place in `events`, where the raw record stood, the name of
    the source and the contract."""

    time: int
    partition: int
    offset: int
    source: str
    origin: str
    contract: str
    event: str


class Route(msgspec.Struct, array_like=True):
    """What came by one route: events per day (since the epoch, UTC), where traits came from, what stood together, and
    when the newest messages (their keyed hashes) were received."""

    days: dict[int, int] = {}
    traits: dict[str, Origin] = {}
    links: list[Seen] = []
    messages: dict[bytes, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode_route = msgspec.msgpack.Decoder(Route).decode
_decode_violations = msgspec.msgpack.Decoder(dict[str, int]).decode
_encode_alert = msgspec.json.Encoder().encode
_decode_alert = msgspec.json.Decoder(AccountAlert).decode


class Histories:
    """What one batch adds. Nothing of it is in the tables before `rows` are written."""

    def __init__(self, tables: Tables, keys: Keys, keep_days: int) -> None:
        """`keep_days`: how long a day of a route is told of."""
        self._tables = tables
        self._keys = keys
        self._keep_days = keep_days
        self._routes: dict[bytes, Route] = {}
        self._growth: dict[tuple[bytes, int], list[int]] = {}
        self._violations: dict[int, dict[str, int]] = {}
        self._alerts: list[Row] = []
        self._alerted: dict[bytes, int] = {}

    def event(self, event: Event, partition: int, offset: int) -> bool:
        """Take in an event of a person; whether it had not come before. `events` has what came twice twice, and unify
        counts it once: as far as the newest messages of its route tell, so is it here."""
        digest = self._keys.digest(event.identifiers[0])
        route = self._route(digest)
        if not self._is_new(route, event):
            return False
        day = event.time // DAY_MS
        if day > event.received // DAY_MS - self._keep_days:
            route.days[day] = route.days.get(day, 0) + 1
            if len(route.days) > self._keep_days:
                del route.days[min(route.days)]
        for name in event.traits:
            known = route.traits.get(name)
            if (known is None and len(route.traits) < _MOST_TRAITS) or (known is not None and known.time <= event.time):
                route.traits[name] = Origin(
                    event.time, partition, offset, event.source, event.origin, event.contract or "", event.event
                )
        if len(event.identifiers) > 1:
            self._link(route, event, partition, offset)
        for flag in event.flags:
            if flag.startswith(_VIOLATIONS):
                self._violation(event, flag)
        return True

    def _is_new(self, route: Route, event: Event) -> bool:
        message = self._keys.digest(event.message_id)[:8]
        before = route.messages.pop(message, None)
        if before is not None and abs(event.received - before) <= DAY_MS:
            route.messages[message] = before
            return False
        route.messages[message] = event.received
        if len(route.messages) > _MOST_MESSAGES:
            del route.messages[next(iter(route.messages))]
        return True

    def _link(self, route: Route, event: Event, partition: int, offset: int) -> None:
        digests = sorted(self._keys.digest(text) for text in event.identifiers[:_MOST_IN_EVENT])
        for place, a in enumerate(digests):
            for b in digests[place + 1 :]:
                known = next((one for one in route.links if one.a == a and one.b == b), None)
                if known is None:
                    if len(route.links) >= _MOST_LINKS:
                        route.links.remove(min(route.links, key=lambda one: one.last))
                    route.links.append(Seen(a, b, event.time, event.time, 1, partition, offset))
                    continue
                known.count += 1
                known.first = min(known.first, event.time)
                if event.time >= known.last:
                    known.last, known.partition, known.offset = event.time, partition, offset

    def _violation(self, event: Event, flag: str) -> None:
        day = event.received // DAY_MS
        found = self._violations.get(day)
        if found is None:
            stored = self._tables.get("violations", _number(day))
            found = self._violations[day] = _decode_violations(stored) if stored is not None else {}
        key = "\0".join((event.contract or "", event.event, flag))
        if key not in found and len(found) >= _MOST_VIOLATIONS:
            key = "\0".join((event.contract or "", "", flag.partition(":")[0]))
        found[key] = found.get(key, 0) + 1

    def change(self, change: SegmentChange) -> None:
        """Count an entry or exit in its hour."""
        key = change.segment.encode(), change.decided_at // HOUR_MS
        counts = self._growth.get(key)
        if counts is None:
            stored = self._tables.get("growth", key[0] + b"\0" + _number(key[1]))
            counts = self._growth[key] = list(_COUNTS.unpack(stored)) if stored is not None else [0, 0]
        counts[0 if change.change == "entered" else 1] += 1

    def alert(self, alert: AccountAlert, partition: int, offset: int) -> None:
        """Keep an alert, without the people behind it: of them it would know when they have long been erased."""
        matches = alert.context.get("matches")
        context = {
            "people": alert.context.get("people"),
            "matches": [
                {"rule": one.get("rule"), "people": one.get("people")} for one in matches or () if isinstance(one, dict)
            ],
        }
        value = _encode_alert(msgspec.structs.replace(alert, context=context))
        at = (_LATEST - alert.decided_at).to_bytes(8, "big")
        place = at + partition.to_bytes(4, "big") + (_LATEST - offset).to_bytes(8, "big")
        for owner in (_EVERYBODYS, alert.profile_id.encode()):
            self._alerts.append(("alerts", owner + b"\0" + place, value))
            self._alerted[owner] = self._alerted.get(owner, 0) + 1

    def forget(self, digest: bytes) -> None:
        """Nothing that came by this route stays."""
        self._routes[digest] = Route({}, {}, [], {})

    def _route(self, digest: bytes) -> Route:
        found = self._routes.get(digest)
        if found is None:
            stored = self._tables.get("routes", digest)
            found = self._routes[digest] = _decode_route(stored) if stored is not None else Route({}, {}, [], {})
        return found

    def rows(self) -> Iterator[Row]:
        """What is to be written."""
        for digest, route in self._routes.items():
            is_empty = not (route.days or route.traits or route.links or route.messages)
            yield "routes", digest, None if is_empty else _encode(route)
        for (segment, hour), counts in self._growth.items():
            key = segment + b"\0" + _number(hour)
            yield "growth", key, _COUNTS.pack(*counts)
            for old, _ in self._tables.scan("growth", segment + b"\0"):
                if old >= segment + b"\0" + _number(max(0, hour - GROWTH_HOURS)):
                    break
                yield "growth", old, None
        for day, found in self._violations.items():
            yield "violations", _number(day), _encode(found)
            for old, _ in self._tables.scan("violations", b""):
                if old >= _number(max(0, day - VIOLATION_DAYS)):
                    break
                yield "violations", old, None
        for owner, more in self._alerted.items():
            most = _ALERTS_OF_ALL if owner == _EVERYBODYS else _ALERTS_OF_ONE
            for old, _ in islice(self._tables.scan("alerts", owner + b"\0"), max(0, most - more), None):
                yield "alerts", old, None
        yield from self._alerts


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


# --------------------------------------------------------------------------------------------------------- asking


def route_of(tables: Tables, digest: bytes) -> Route | None:
    """What came by a route; None if nothing is kept of it."""
    stored = tables.get("routes", digest)
    return _decode_route(stored) if stored is not None else None


def growth_of(tables: Tables, segment: str, since_ms: int) -> list[tuple[int, int, int]]:
    """(beginning of the hour in ms, entered, exited), the oldest first, of the hours in which something changed."""
    prefix = segment.encode() + b"\0"
    rows = tables.scan("growth", prefix, prefix + _number(max(0, since_ms // HOUR_MS)))
    return [(int.from_bytes(key[-4:], "big") * HOUR_MS, *_COUNTS.unpack(value)) for key, value in rows]


def violations_of(tables: Tables, since_ms: int) -> list[tuple[int, str, str, str, int]]:
    """(day in ms, contract, event, flag, how often) of each day, the oldest first."""
    found = []
    for key, value in tables.scan("violations", b"", _number(max(0, since_ms // DAY_MS))):
        for named, count in _decode_violations(value).items():
            contract, event, flag = named.split("\0")
            found.append((int.from_bytes(key, "big") * DAY_MS, contract, event, flag, count))
    return found


def alerts_of(tables: Tables, profile_id: str, limit: int) -> list[AccountAlert]:
    """The newest alerts of an account, or of all ("")."""
    prefix = (profile_id.encode() or _EVERYBODYS) + b"\0"
    return [_decode_alert(value) for _, value in islice(tables.scan("alerts", prefix), limit)]


def joined(routes: Sequence[Route]) -> Route:
    """What came by several routes, together."""
    found = Route({}, {}, [])
    links: dict[tuple[bytes, bytes], Seen] = {}
    for route in routes:
        for day, count in route.days.items():
            found.days[day] = found.days.get(day, 0) + count
        for name, origin in route.traits.items():
            known = found.traits.get(name)
            if known is None or known.time < origin.time:
                found.traits[name] = origin
        for one in route.links:
            seen = links.get((one.a, one.b))
            if seen is None:
                links[one.a, one.b] = msgspec.structs.replace(one)
                continue
            seen.count += one.count
            seen.first = min(seen.first, one.first)
            if one.last > seen.last:
                seen.last, seen.partition, seen.offset = one.last, one.partition, one.offset
    found.links = list(links.values())
    return found
