"""Who is who, as a function of evidence: the rules, in the order in which they apply.

    1  an edge from an identifier to itself says nothing
    2  an identifier that touches more than `quarantine_after` people (values of a unique namespace, or of another that
       stands for people), or more identifiers than anybody has, is nobody's: none of its edges is followed
    3  the edges that remain are taken in order: the stronger end's priority, the weaker end's, first seen, hash of the
       stronger end, of the weaker
    4  each is followed unless it would put more values of a namespace than it allows, or more identifiers than a
       group may have, into one group
    5  each group is a profile, named by its strongest member: priority, first seen, hash

First seen is the earliest evidence. The edges of a namespace that says `on_conflict: latest`, at whichever end, are
taken newest first. Nothing depends on the order in which the evidence came.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.identity.normalise import Junk
from pipeline.identity.rules import IdentityRules

Reason = Literal["unique", "limit", "group_size", "quarantined", "crowded", "blocked", "unlinked"]

EdgeOrder = tuple[int, int, int, int, int]
"""(stronger end's priority, weaker end's, first seen or its negative, stronger end's hash, weaker end's)."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes that no person has. They bound what one new edge can cost.

    `neighbours`: an identifier that stood beside more identifiers than this is followed no more. `members`: a group
    holds at most so many identifiers.
    """

    neighbours: int = 20_000
    members: int = 50_000


BOUNDS = Bounds()


class Link(NamedTuple):
    """Two identifiers that stood together, since the event time `first` (ms); a < b as texts."""

    a: str
    b: str
    first: int


class Refusal(NamedTuple):
    """A link that is not followed. `detail` names the namespace or identifier it failed at."""

    link: Link
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """The members of each group by its name, and the links that were not followed."""

    groups: dict[str, tuple[str, ...]]
    refused: tuple[Refusal, ...]


class Ruling:
    """The identity rules of a generation together with the bounds, ready for use per edge."""

    def __init__(self, rules: IdentityRules, bounds: Bounds) -> None:
        self.rules = rules
        self.bounds = bounds
        self.order = rules.order
        self.capacities: dict[str, int] = {}
        for name, namespace in rules.namespaces.items():
            if namespace.capacity is not None:
                self.capacities[name] = namespace.capacity
        self.unique = frozenset(name for name, capacity in self.capacities.items() if capacity == 1)
        self.people = frozenset(name for name, each in rules.namespaces.items() if each.is_person)
        self.quarantine_after = {
            name: each.quarantine_after for name, each in rules.namespaces.items() if each.quarantine_after is not None
        }
        self.latest = frozenset(name for name, each in rules.namespaces.items() if each.on_conflict == "latest")

    def edge_order(self, a: str, b: str, first: int) -> EdgeOrder:
        """The place of an edge in the order in which edges are taken."""
        one, other = self.order(a), self.order(b)
        if other < one:
            one, other = other, one
        if self.latest and self.newest_first(a, b):
            first = -first
        return one[0], other[0], first, one[1], other[1]

    def newest_first(self, a: str, b: str) -> bool:
        """Whether an edge is taken newest first among its like."""
        latest = self.latest
        return bool(latest) and (a.partition(":")[0] in latest or b.partition(":")[0] in latest)

    def strength(self, text: str, first: int) -> tuple[int, int, int]:
        """What names a group: the smallest of its members. `first` is the identifier's first seen (ms)."""
        priority, hashed = self.order(text)
        return priority, first, hashed

    def load(self, text: str) -> dict[str, int]:
        """What an identifier takes of the capacities of the group it is in."""
        namespace = text.partition(":")[0]
        return {namespace: 1} if namespace in self.capacities else {}

    def clash(self, one: Mapping[str, int], other: Mapping[str, int], size: int) -> str | None:
        """What forbids two loads, of together `size` identifiers, in one group: a namespace, "" for the size, None."""
        for namespace, held in one.items():
            if held + other.get(namespace, 0) > self.capacities[namespace] and namespace in other:
                return namespace
        return "" if size > self.bounds.members else None

    def reason(self, clash: str) -> tuple[Reason, str]:
        """The reason and detail of a clash."""
        if clash == "":
            return "group_size", f"a group holds at most {self.bounds.members} identifiers"
        if self.capacities[clash] == 1:
            return "unique", clash
        return "limit", f"{clash}: {self.capacities[clash]}"

    def crowding(self, text: str, touched: Mapping[str, int]) -> tuple[Literal["quarantined", "crowded"], str] | None:
        """Whether an identifier that touched so many values of each namespace is followed no more, and why."""
        total = 0
        most = self.quarantine_after.get(text.partition(":")[0], self.rules.quarantine_after)
        for namespace, values in touched.items():
            total += values
            if values > most and namespace in self.people:
                return "quarantined", namespace
        return ("crowded", "") if total > self.bounds.neighbours else None

    def blocked(self, text: str) -> bool:
        """Whether an identifier is junk under these rules, whatever it was when it was taken in."""
        namespace, _, value = text.partition(":")
        return isinstance(self.rules.clean(namespace, value), Junk)


class Forest:
    """Groups that grow edge by edge and never past what the rules allow."""

    def __init__(self, ruling: Ruling) -> None:
        self._ruling = ruling
        self._parent: dict[str, str] = {}
        self._load: dict[str, dict[str, int]] = {}
        self._size: dict[str, int] = {}

    def add(self, text: str) -> None:
        """An identifier on its own."""
        self._parent[text] = text
        self._load[text] = self._ruling.load(text)
        self._size[text] = 1

    def root(self, text: str) -> str:
        """The identifier that stands for the group of `text` inside this forest."""
        parent = self._parent
        while parent[text] != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    def load(self, root: str) -> dict[str, int]:
        """What the group of `root` takes of the capacities."""
        return self._load[root]

    def size(self, root: str) -> int:
        """How many identifiers the group of `root` has."""
        return self._size[root]

    def follow(self, a: str, b: str) -> str | None:
        """Put the groups of two identifiers together, unless something forbids it: then say what."""
        one, other = self.root(a), self.root(b)
        if one == other:
            return None
        if self._size[one] < self._size[other]:
            one, other = other, one
        small, large = self._load[other], self._load[one]
        size = self._size[one] + self._size[other]
        forbids = self._ruling.clash(small, large, size)
        if forbids is None:
            self._parent[other] = one
            self._size[one] = size
            for namespace, held in small.items():
                large[namespace] = large.get(namespace, 0) + held
        return forbids


def resolve(
    links: Iterable[Link],
    rules: IdentityRules,
    bounds: Bounds = BOUNDS,
    touched: Mapping[str, Mapping[str, int]] | None = None,
) -> Resolution:
    """Resolve all links at once: the definition that everything incremental must agree with.

    `links` are those that count, one per pair. `touched` says how many values of each namespace an identifier stood
    beside since it was last released from quarantine; without it, as many as `links` say.
    """
    ruling = Ruling(rules, bounds)
    evidence = [link for link in links if link.a != link.b]
    first_seen: dict[str, int] = {}
    counted: dict[str, dict[str, int]] = {}
    for link in evidence:
        for one, other in ((link.a, link.b), (link.b, link.a)):
            first_seen[one] = min(link.first, first_seen.get(one, link.first))
            values = counted.setdefault(one, {})
            namespace = other.partition(":")[0]
            values[namespace] = values.get(namespace, 0) + 1
    if touched is not None:
        counted = {text: dict(touched.get(text, {})) for text in counted}

    unfollowed: dict[str, tuple[Reason, str]] = {}
    forest = Forest(ruling)
    for text in first_seen:
        forest.add(text)
        crowding = ruling.crowding(text, counted[text])
        if ruling.blocked(text):
            unfollowed[text] = "blocked", text
        elif crowding is not None:
            unfollowed[text] = crowding[0], text

    refused: list[Refusal] = []
    for link in sorted(evidence, key=lambda each: ruling.edge_order(*each)):
        why = unfollowed.get(link.a) or unfollowed.get(link.b)
        if why is None:
            forbids = forest.follow(link.a, link.b)
            why = None if forbids is None else ruling.reason(forbids)
        if why is not None:
            refused.append(Refusal(link, *why))

    members: dict[str, list[str]] = {}
    for text in first_seen:
        members.setdefault(forest.root(text), []).append(text)
    groups = {}
    for group in members.values():
        name = min(group, key=lambda text: ruling.strength(text, first_seen[text]))
        groups[name] = tuple(sorted(group))
    return Resolution(groups, tuple(refused))
