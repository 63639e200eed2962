"""Rules on a fixture of events with a simulated clock: what `headwater test` runs.

The evaluator is that of production: events are folded, standings updated and settled. Only identity is simple here:
events that share an identifier, directly or by way of others, are one person from the beginning.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from pipeline.profile import Fragment, fold
from pipeline.records import Event
from pipeline.segments.plan import SegmentsPlan


class FixtureChange(NamedTuple):
    """A profile entered or left a segment."""

    at: int
    profile: str
    segment: str
    entered: bool


class FixtureResult(NamedTuple):
    """What a fixture gave. `members` maps each instant asked for to {profile: segments}; a profile goes by the
    identifier that came first. `changes` are in order of time. `facts` are as of the last instant, of whoever is there
    by then."""

    members: dict[int, dict[str, frozenset[str]]]
    changes: tuple[FixtureChange, ...]
    facts: dict[str, Any]


class Turns:
    """Who entered and left what so far, each with the `at` that production gives it: when what caused it happened, a
    late event long ago, but never before the last change of that profile and segment."""

    def __init__(self) -> None:
        self.changes: list[FixtureChange] = []
        self._last: dict[tuple[str, str], int] = {}

    def turn(self, happened_ms: int, profile: str, segment: str, entered: bool) -> None:
        """A profile enters or leaves a segment."""
        at = max(happened_ms, self._last.get((profile, segment), 0))
        self._last[profile, segment] = at
        self.changes.append(FixtureChange(at, profile, segment, entered))

    def in_order(self) -> tuple[FixtureChange, ...]:
        """All of them in order of time."""
        return tuple(sorted(self.changes, key=lambda change: change.at))


class _Person(Fragment):
    profile_id: str = ""
    accounts: dict[str, Any] = {}


def people_of(events: Sequence[Event]) -> dict[str, str]:
    """Each identifier to the name of its person: the first identifier of the first event that belongs to it."""
    parent: dict[str, str] = {}

    def root(one: str) -> str:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for event in events:
        for identifier in event.identifiers:
            parent.setdefault(identifier, identifier)
            parent[root(identifier)] = root(event.identifiers[0])
    names: dict[str, str] = {}
    for event in events:
        names.setdefault(root(event.identifiers[0]), event.identifiers[0])
    return {identifier: names[root(identifier)] for identifier in parent}


def run_fixture(plan: SegmentsPlan, events: Sequence[Event], at: Iterable[int]) -> FixtureResult:
    """Play events in order of `received` and look at the members at each instant of `at` (ms).

    An event received exactly at an instant is there. Events after the last instant are not played. A person is there
    from their first event on.
    """
    instants = sorted(set(at))
    if not instants:
        raise ValueError("say at least one instant at which to look")
    people = people_of(events)
    facts: dict[str, _Person] = {}
    standings: dict[str, Any] = {}
    turns = Turns()
    members: dict[int, dict[str, frozenset[str]]] = {}
    played = sorted(events, key=lambda event: event.received)
    position = 0
    for instant in instants:
        while position < len(played) and played[position].received <= instant:
            event = played[position]
            name = people[event.identifiers[0]]
            one = facts.get(name)
            is_new = one is None
            if one is None:
                # Before their first event there is nobody, not even for a rule that asks what somebody did not do.
                one = facts[name] = _Person(profile_id=name)
            else:
                _settle(plan, standings[name], one, name, event.received, turns)
            learned = fold(one, event, event.message_id.encode(), b"")
            traits, purposes = learned if learned is not None else ((), ())
            touched = plan.fold(one.leaves, event)
            if is_new:
                standing = standings[name] = plan.begin(one, event.received)
                for each in sorted(standing.members):
                    turns.turn(event.time, name, each, True)
            else:
                for flip in plan.update(standings[name], one, event.received, touched, traits, purposes):
                    turns.turn(event.time, name, flip.segment, flip.entered)
            position += 1
        for name, standing in standings.items():
            _settle(plan, standing, facts[name], name, instant, turns)
        members[instant] = {name: frozenset(standing.members) for name, standing in standings.items()}
    return FixtureResult(members, turns.in_order(), dict(facts))


def _settle(plan: SegmentsPlan, standing: Any, facts: Any, name: str, until_ms: int, turns: Turns) -> None:
    for at_ms, flips in plan.settle(standing, facts, until_ms):
        for flip in flips:
            turns.turn(at_ms, name, flip.segment, flip.entered)
