"""Who is who, in one batch: all evidence and all operators' records in, groups and their names out.

Edges are kept in a networkx graph; nothing is incremental. The rules are those of DESIGN section 4.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Literal

import networkx as nx


@dataclass(frozen=True)
class NamespaceRule:
    """One namespace: `limit` is how many values a profile may hold (1 where it is unique, None for any number);
    `quarantine_after` and `person` as people write them, None where they say nothing."""

    name: str
    priority: int
    limit: int | None = None
    on_conflict: Literal["first", "latest"] = "first"
    quarantine_after: int | None = None
    person: bool | None = None

    @property
    def counts(self) -> bool:
        """Whether its values are people, of whom nothing may touch too many."""
        return self.limit == 1 if self.person is None else self.person


@dataclass(frozen=True)
class Rules:
    """All namespaces by name and the quarantine's threshold."""

    namespaces: dict[str, NamespaceRule]
    quarantine_after: int

    def of(self, identifier: str) -> NamespaceRule:
        return self.namespaces[identifier.partition(":")[0]]

    def rank(self, identifier: str) -> tuple[int, bytes]:
        """The order of identifiers within an event: the smallest is the strongest."""
        return self.of(identifier).priority, text_hash(identifier)


def text_hash(text: str) -> bytes:
    """Eight bytes that compare as the big-endian number they are."""
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@dataclass
class Edge:
    """All evidence of one pair."""

    a: str
    b: str
    first: int
    last_received: int


@dataclass
class Evidence:
    """Everything the identity stage could ever have been told, in the order of the log where order matters."""

    edges: dict[tuple[str, str], Edge] = field(default_factory=dict)
    unlinked_pairs: dict[tuple[str, str], float] = field(default_factory=dict)
    unlinked_ends: dict[str, float] = field(default_factory=dict)
    touched_at_release: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    kept_apart: set[str] = field(default_factory=set)
    """Quarantined for what they touched before somebody of it was erased: that lasts until they are released."""

    def saw(self, identifiers: list[str], time: int, received: int) -> None:
        """An event that was not a duplicate held these identifiers."""
        distinct = sorted(set(identifiers))
        for place, a in enumerate(distinct):
            for b in distinct[place + 1 :]:
                edge = self.edges.get((a, b))
                if edge is None:
                    self.edges[(a, b)] = Edge(a, b, time, received)
                else:
                    edge.first = min(edge.first, time)
                    edge.last_received = max(edge.last_received, received)

    def unlink(self, a: str, b: str, received: int, forever: bool) -> None:
        bound = float("inf") if forever else received
        if b:
            pair = (min(a, b), max(a, b))
            self.unlinked_pairs[pair] = max(bound, self.unlinked_pairs.get(pair, bound))
        else:
            self.unlinked_ends[a] = max(bound, self.unlinked_ends.get(a, bound))

    def relink(self, a: str, b: str) -> None:
        if b:
            self.unlinked_pairs.pop((min(a, b), max(a, b)), None)
        else:
            self.unlinked_ends.pop(a, None)

    def release(self, identifier: str) -> None:
        """From here on only edges that are not there yet count towards another quarantine."""
        self.touched_at_release[identifier] = {pair for pair in self.edges if identifier in pair}

    def counting(self) -> list[Edge]:
        """The edges that were not taken back, or were seen again since."""
        return [edge for pair, edge in self.edges.items() if edge.last_received > self._unlinked_until(pair)]

    def _unlinked_until(self, pair: tuple[str, str]) -> float:
        bounds = [self.unlinked_pairs.get(pair), self.unlinked_ends.get(pair[0]), self.unlinked_ends.get(pair[1])]
        return max((bound for bound in bounds if bound is not None), default=float("-inf"))


@dataclass(frozen=True)
class Resolution:
    """The name of each identifier's profile, the members of each name, and what was not followed."""

    name_of: dict[str, str]
    members: dict[str, frozenset[str]]
    quarantined: frozenset[str]
    refused: frozenset[tuple[str, str]]


def quarantined(evidence: Evidence, rules: Rules) -> frozenset[str]:
    """Identifiers that ever touched too many values of one unique namespace and were not released since."""
    values: dict[tuple[str, str], set[str]] = {}
    for pair in evidence.edges:
        for one, other in (pair, pair[::-1]):
            if pair in evidence.touched_at_release.get(one, ()):
                continue
            rule = rules.of(other)
            if rule.counts:
                values.setdefault((one, rule.name), set()).add(other)
    crowded = {one for (one, _), touched in values.items() if len(touched) > _most(one, rules)}
    return frozenset(crowded | evidence.kept_apart)


def _most(identifier: str, rules: Rules) -> int:
    own = rules.of(identifier).quarantine_after
    return rules.quarantine_after if own is None else own


def resolve(evidence: Evidence, rules: Rules) -> Resolution:
    """Resolve everything at once."""
    junk = quarantined(evidence, rules)
    identifiers = {end for pair in evidence.edges for end in pair}
    counting = evidence.counting()
    followed = [edge for edge in counting if edge.a not in junk and edge.b not in junk]

    def order(edge: Edge) -> tuple[int, int, int, bytes, bytes]:
        strong, weak = sorted((edge.a, edge.b), key=rules.rank)
        first = -edge.first if rules.of(strong).on_conflict == "latest" else edge.first
        return rules.of(strong).priority, rules.of(weak).priority, first, text_hash(strong), text_hash(weak)

    groups: nx.Graph[str] = nx.Graph()
    groups.add_nodes_from(identifiers)
    refused: set[tuple[str, str]] = set()
    for edge in sorted(followed, key=order):
        left = nx.node_connected_component(groups, edge.a)
        if edge.b in left:
            continue
        together = left | nx.node_connected_component(groups, edge.b)
        if all(_count(together, rule.name) <= rule.limit for rule in rules.namespaces.values() if rule.limit):
            groups.add_edge(edge.a, edge.b)
        else:
            refused.add((edge.a, edge.b))

    first_seen: dict[str, int] = {}
    for edge in counting:
        for end in (edge.a, edge.b):
            first_seen[end] = min(edge.first, first_seen.get(end, edge.first))

    name_of: dict[str, str] = {}
    members: dict[str, frozenset[str]] = {}
    for group in nx.connected_components(groups):
        name = min(group, key=lambda one: (rules.of(one).priority, first_seen.get(one, 0), text_hash(one)))
        members[name] = frozenset(group)
        for one in group:
            name_of[one] = name
    return Resolution(name_of, members, junk, frozenset(refused))


def _count(group: set[str], namespace: str) -> int:
    return sum(1 for one in group if one.partition(":")[0] == namespace)
