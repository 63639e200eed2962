"""Who is who, and what is known of them: DESIGN sections 4 and 5, docs/accounts.md and docs/privacy.md, all at once.

Everything is made anew from all that was sent, in the order in which it was sent.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

from tests.blackbox.values import Facts, Seen

PRIORITIES = {"user_id": 10, "card": 15, "email": 20, "phone": 30, "device_id": 40, "anonymous_id": 50}
UNIQUE = {"user_id", "card"}
LIMITS = {"user_id": 1, "card": 1, "email": 2, "phone": 3}
QUARANTINE_AFTER = 3

Identifier = str  # namespace:value, normalised


def namespace(identifier: Identifier) -> str:
    return identifier.partition(":")[0]


def priority(identifier: Identifier) -> int:
    return PRIORITIES[namespace(identifier)]


@dataclass(slots=True)
class Sent:
    """A raw record of the world, and what DESIGN says becomes of it.

    `expected`: `used`, `refused` (a dead letter), `either` (what is written does not decide: one of the two).
    """

    number: int
    value: bytes
    key: str
    name: str = ""
    time: int = 0
    received: int = 0
    identifiers: tuple[Identifier, ...] = ()  # the strongest first, one of each namespace
    message_id: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    consents: Mapping[str, bool] = field(default_factory=dict)
    expected: str = "used"
    what: str = ""
    place: tuple[int, int] = (-1, -1)  # partition and offset in `raw`
    stated: Mapping[str, Any] = field(default_factory=dict)  # `timestamp` and `sentAt`, of what was posted
    posted: int = 0  # what the collector answered to a strange one

    @property
    def route(self) -> Identifier:
        return self.identifiers[0]

    def seen(self) -> Seen:
        return Seen(self.name, self.time, self.properties, self.traits, self.context)


@dataclass(frozen=True, slots=True)
class Unlink:
    """A link taken back; `forever`: also against evidence still to come."""

    a: Identifier
    b: Identifier
    forever: bool = False


@dataclass(frozen=True, slots=True)
class Relink:
    a: Identifier
    b: Identifier


@dataclass(frozen=True, slots=True)
class Erase:
    """A person is forgotten, under all of their identifiers; `at` in ms."""

    identifier: Identifier
    at: int


Action = Sent | Unlink | Relink | Erase


@dataclass(slots=True)
class Edge:
    first: int
    last_number: int
    unlinked_at: int = -1
    forever: bool = False

    def counts(self) -> bool:
        return not self.forever and self.last_number > self.unlinked_at


@dataclass(slots=True)
class Known:
    """What there is in the end."""

    events: list[Sent] = field(default_factory=list)
    duplicates: list[Sent] = field(default_factory=list)
    kept_out: list[Sent] = field(default_factory=list)
    edges: dict[tuple[Identifier, Identifier], Edge] = field(default_factory=dict)
    erased: dict[Identifier, int] = field(default_factory=dict)

    def groups(self) -> list[frozenset[Identifier]]:
        identifiers = {each for event in self.events for each in event.identifiers}
        return resolve(identifiers, self.edges)


DAY = 86_400_000


def play(history: Iterable[Action]) -> Known:
    """The state after everything that was sent and decided, in its order."""
    known = Known()
    received_of: dict[tuple[Identifier, str], list[int]] = defaultdict(list)
    readmitted: set[Identifier] = set()
    for order, action in enumerate(history):
        match action:
            case Unlink(a, b, forever):
                edge = known.edges.get(pair(a, b))
                if edge is not None:
                    edge.unlinked_at, edge.forever = order, forever
            case Relink(a, b):
                edge = known.edges.get(pair(a, b))
                if edge is not None:
                    edge.unlinked_at, edge.forever = -1, False
            case Erase(identifier, at):
                (group,) = (each for each in known.groups() if identifier in each)
                known.events = [event for event in known.events if event.route not in group]
                known.edges = {ends: edge for ends, edge in known.edges.items() if not group & set(ends)}
                known.erased |= dict.fromkeys(group, at)
                readmitted -= group
            case Sent() if action.expected == "used":
                barred = {each for each in action.identifiers if each in known.erased and each not in readmitted}
                if action.route in barred:
                    if not (any(action.consents.values()) and action.time > known.erased[action.route]):
                        known.kept_out.append(action)
                        continue
                    readmitted |= barred
                elif barred:  # somebody else's event, as far as anybody can know
                    action = replace(action, identifiers=tuple(i for i in action.identifiers if i not in barred))
                if action.message_id is not None:
                    times = received_of[action.route, action.message_id]
                    if any(abs(action.received - each) < DAY for each in times):
                        known.duplicates.append(action)
                        continue
                    times.append(action.received)
                known.events.append(action)
                for a, b in combinations(action.identifiers, 2):
                    edge = known.edges.setdefault(pair(a, b), Edge(action.time, order))
                    edge.first, edge.last_number = min(edge.first, action.time), order
    return known


def pair(a: Identifier, b: Identifier) -> tuple[Identifier, Identifier]:
    """The stronger end first."""
    return (a, b) if (priority(a), a) <= (priority(b), b) else (b, a)


def quarantined(edges: Mapping[tuple[Identifier, Identifier], Edge]) -> set[Identifier]:
    """Identifiers that touch more people than the rules allow."""
    people: dict[Identifier, set[Identifier]] = defaultdict(set)
    for a, b in edges:
        for one, other in ((a, b), (b, a)):
            if namespace(other) in UNIQUE and namespace(one) not in UNIQUE:
                people[one].add(other)
    return {identifier for identifier, found in people.items() if len(found) > QUARANTINE_AFTER}


def resolve(
    identifiers: set[Identifier], edges: Mapping[tuple[Identifier, Identifier], Edge]
) -> list[frozenset[Identifier]]:
    """Constrained Kruskal: edges in their order, each accepted that breaks no limit."""
    group_of = {identifier: {identifier} for identifier in identifiers}
    for a, b in edges:
        group_of.setdefault(a, {a})
        group_of.setdefault(b, {b})
    nobodys = quarantined(edges)
    usable = [(ends, edge) for ends, edge in edges.items() if edge.counts() and not nobodys & set(ends)]
    usable.sort(key=lambda each: (priority(each[0][0]), priority(each[0][1]), each[1].first))
    for (a, b), _ in usable:
        together = group_of[a] | group_of[b]
        if group_of[a] is not group_of[b] and fits(together):
            for each in together:
                group_of[each] = together
    return list({id(group): frozenset(group) for group in group_of.values()}.values())


def fits(group: Iterable[Identifier]) -> bool:
    counts: dict[str, int] = defaultdict(int)
    for identifier in group:
        counts[namespace(identifier)] += 1
    return all(counts[space] <= limit for space, limit in LIMITS.items())


# ------------------------------------------------------------------------------------------------------------- profiles


def newest(stated: Iterable[tuple[int, str, Any]]) -> dict[str, Any]:
    """By name the value that was stated last; of two at one instant the greater JSON. null takes it back."""
    found: dict[str, tuple[int, str, Any]] = {}
    for time, name, value in stated:
        ranked = (time, json.dumps(value, sort_keys=True, ensure_ascii=False), value)
        if name not in found or ranked[:2] > found[name][:2]:
            found[name] = ranked
    return {name: value for name, (_, _, value) in found.items() if value is not None}


def facts_of(profile_id: str, events: Sequence[Sent]) -> Facts:
    """What rules know of a person whose events these are."""
    traits = newest(
        (event.time, name, value) for event in events if event.name != "Group" for name, value in event.traits.items()
    )
    stated = sorted(
        (event.time, not allowed, purpose, allowed) for event in events for purpose, allowed in event.consents.items()
    )
    consents = {purpose: allowed for _, _, purpose, allowed in stated}  # of two at one instant the no
    return Facts(profile_id, [event.seen() for event in events], traits, consents)


@dataclass(slots=True)
class World:
    """All people and accounts, as facts; `person_of` leads from identifiers to people."""

    people: dict[frozenset[Identifier], Facts] = field(default_factory=dict)
    events: dict[frozenset[Identifier], list[Sent]] = field(default_factory=dict)
    accounts: dict[str, Facts] = field(default_factory=dict)


def world_of(known: Known, profile_id_of: Mapping[Identifier, str]) -> World:
    """People and accounts of what is known; ids of profiles, for which buckets ask, come from `identities`."""
    world = World()
    group_of = {identifier: group for group in known.groups() for identifier in group}
    for group in set(group_of.values()):
        world.events[group] = []
    for event in known.events:
        world.events[group_of[event.route]].append(event)
    for group, events in world.events.items():
        world.people[group] = facts_of(profile_id_of.get(min(group), ""), events)
    stated: dict[str, list[tuple[int, str, Any]]] = defaultdict(list)
    named: set[str] = set()
    for event in known.events:
        if event.name == "Group" and event.group:
            named.add(event.group)
            stated[event.group] += [(event.time, name, value) for name, value in event.properties.items()]
    for name in sorted(named):
        world.accounts[name] = Facts("account:" + name, traits=newest(stated[name]))
    for group, events in world.events.items():
        for name in belongs(events):
            account, person = world.accounts[name], world.people[group]
            account.people.append(person)
            account.events.extend(person.events)
            person.accounts.append(account)
    return world


def belongs(events: Iterable[Sent]) -> set[str]:
    """The accounts a person belongs to: for each the newest statement holds; of two at one instant, `left`."""
    said: dict[str, tuple[int, bool]] = {}
    for event in events:
        if event.group and event.name in {"Group", "Account Removed User"}:
            word = (event.time, event.name != "Group")
            said[event.group] = max(said.get(event.group, word), word)
    return {name for name, (_, left) in said.items() if not left}
