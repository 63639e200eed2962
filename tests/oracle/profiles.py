"""Profiles and memberships, in one batch: the `events` partitions in, what the compacted topics must hold out.

Events are deduplicated per route in the order of their partition, grouped by who is who, and folded whole. Nothing
is kept from one call to the next.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.records import Event
from tests.oracle.identity import Evidence, Resolution

DUPLICATE_WINDOW_MS = 86_400_000


@dataclass
class ExpectedProfile:
    """One profile as `profiles` must show it."""

    name: str
    identifiers: set[str]
    traits: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    first_seen: int = 0
    last_seen: int = 0
    events: list[Event] = field(default_factory=list)


@dataclass
class Accepted:
    """The events that count, in partition order, and the number of duplicates that do not."""

    events: list[Event] = field(default_factory=list)
    duplicates: int = 0


def accept(partitions: Iterable[Iterable[Event]]) -> Accepted:
    """Leave out events whose route and message id were there already within 24 h."""
    accepted = Accepted()
    for partition in partitions:
        seen: dict[tuple[str, str], list[int]] = {}
        for event in partition:
            earlier = seen.setdefault((event.identifiers[0], event.message_id), [])
            if any(abs(event.received - received) <= DUPLICATE_WINDOW_MS for received in earlier):
                accepted.duplicates += 1
            else:
                earlier.append(event.received)
                accepted.events.append(event)
    return accepted


def gather_evidence(events: Iterable[Event]) -> Evidence:
    """The evidence in these events."""
    evidence = Evidence()
    for event in events:
        evidence.saw(event.identifiers, event.time, event.received)
    return evidence


def profiles(events: Iterable[Event], who: Resolution) -> dict[str, ExpectedProfile]:
    """The profiles these events make, by name. A group none of whose identifiers routed an event is no profile."""
    found: dict[str, ExpectedProfile] = {}
    for event in events:
        name = who.name_of.get(event.identifiers[0], event.identifiers[0])
        profile = found.get(name)
        if profile is None:
            members = who.members.get(name, frozenset({name}))
            profile = found[name] = ExpectedProfile(name, set(members))
        profile.events.append(event)
    for profile in found.values():
        _summarise(profile)
    return found


def _summarise(profile: ExpectedProfile) -> None:
    times = [event.time for event in profile.events]
    profile.first_seen, profile.last_seen = min(times), max(times)
    for event in profile.events:
        count, first, last = profile.totals.get(event.event, (0, event.time, event.time))
        profile.totals[event.event] = (count + 1, min(first, event.time), max(last, event.time))
    profile.traits = newest(profile.events)


def newest(events: Iterable[Event]) -> dict[str, Any]:
    """The last value of each trait by event time; one that is null is none."""
    return newest_of((event.time, event.traits) for event in events)


def newest_of(told: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """The last value of each name among (time, values); one that is null is none."""
    written: dict[str, tuple[int, Any]] = {}
    for time, values in told:
        for trait, value in values.items():
            if trait not in written or _later((time, value), written[trait]):
                written[trait] = (time, value)
    return {trait: value for trait, (_, value) in written.items() if value is not None}


def _later(one: tuple[int, Any], other: tuple[int, Any]) -> bool:
    if one[0] != other[0]:
        return one[0] > other[0]
    return tie_order(one[1]) > tie_order(other[1])


def tie_order(value: Any) -> bytes:
    """The order of values written at the same instant, the greater wins: that of their JSON, keys in order."""
    return msgspec.json.encode(value, order="deterministic")
