"""Resolving again only what a change can reach, with the result of resolving everything.

Three facts about the rules carry this. A group's identifiers, taken with the edges among them, resolve to that group
again whatever lies outside, because every edge that leaves a group was refused. What is forbidden together stays
forbidden in any larger group. And what is allowed together was allowed in every smaller one.

So two whole groups that may be together simply are (`join`), wherever the new edge stands in the order: everything
inside is allowed, and everything refused at their border stays refused. Only where they may not be together does the
order matter: then `is_refused` looks for a proof that they were apart already when the edge's turn came, and `resolve`
takes both with the ring of groups around them, growing into every ring group that a border edge now joins. Once none
does, the ring has stayed what it was, and so has everything beyond.
"""

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.identity.graph import NOWHERE, Graph
from pipeline.identity.resolution import EdgeOrder, Forest
from pipeline.identity.state import VERSION, Edge, Group


class Split(NamedTuple):
    """An edge a-b that was followed and no longer is; `clash` is what forbids it (`Ruling.reason`)."""

    a: str
    b: str
    first: int
    clash: str


class Repair(NamedTuple):
    """What a repair did: the edges no longer followed, identifiers looked at, rounds until the ring held."""

    splits: list[Split]
    identifiers: int
    rounds: int


def join(graph: Graph, one: str, other: str, last: tuple[int, int, int]) -> str | None:
    """Put two whole groups together, or say what forbids it (`Ruling.clash`); `last` is the order of the new edge."""
    left, right = graph.group(one), graph.group(other)
    forbids = graph.ruling.clash(left.load, right.load, left.size + right.size)
    if forbids is not None:
        return forbids
    if stronger(graph, other, one):
        one, other, left, right = other, one, right, left
    moving = graph.members(other)
    for member in moving:
        graph.call(member, one)
    graph.drop_group(other, right, moving)
    for namespace, held in right.load.items():
        left.load[namespace] = left.load.get(namespace, 0) + held
    left.size += right.size
    left.last = max(left.last, right.last, last)
    graph.add_members(one, left, moving)
    return None


def stronger(graph: Graph, one: str, other: str) -> bool:
    """Whether `one` comes before `other` as the name of a group."""
    ruling = graph.ruling
    priority, hashed = ruling.order(one)
    other_priority, other_hashed = ruling.order(other)
    if priority != other_priority:
        return priority < other_priority
    return (graph.node(one).first, hashed) < (graph.node(other).first, other_hashed)


def rename(graph: Graph, text: str) -> bool:
    """Name the group of an identifier after it, if its first seen, now earlier, makes it the strongest."""
    name = graph.name(text)
    if name == text or not stronger(graph, text, name):
        return False
    group, members = graph.group(name), graph.members(name)
    graph.drop_group(name, group, members)
    for member in members:
        graph.call(member, text)
    graph.add_members(text, Group(VERSION, group.size, group.load, group.last, []), members)
    return True


def is_refused(graph: Graph, a: str, b: str, order: EdgeOrder) -> bool:
    """Whether it is plain that the groups of a and b, which may not be together, stood apart at `order` already.

    Plain means: the edge comes after every edge inside both groups; or each end held another value of a unique
    namespace by then, as itself or through a single earlier edge. False means only that a closer look is needed.
    """
    if order[:3] > graph.group(graph.name(a)).last and order[:3] > graph.group(graph.name(b)).last:
        return True
    held = _held_before(graph, a, order)
    if not held:
        return False
    other = _held_before(graph, b, order)
    return any(other.get(namespace, text) != text for namespace, text in held.items())


def _held_before(graph: Graph, text: str, order: EdgeOrder) -> dict[str, str]:
    """The values of unique namespaces that were with `text` before `order`, as far as its own edges tell."""
    ruling = graph.ruling
    namespace = text.partition(":")[0]
    held = {namespace: text} if namespace in ruling.unique else {}
    node = graph.node(text)
    if node.spilled:
        return held
    name = graph.name(text)
    for neighbour in node.edges:
        namespace = neighbour.partition(":")[0]
        if namespace not in ruling.unique or namespace in held or graph.name(neighbour) != name:
            continue
        a, b = (text, neighbour) if text < neighbour else (neighbour, text)
        edge = graph.edge(a, b)
        if edge is not None and graph.counts(a, b, edge) and ruling.edge_order(a, b, edge.first) < order:
            held[namespace] = neighbour
    return held


def resolve(graph: Graph, groups: Iterable[str], since: EdgeOrder | None = None) -> Repair:
    """Resolve the groups of these names again, and whatever follows from that.

    Edges changed since they were resolved must have an end inside. Nothing ordered before `since` has changed: edges
    refused before it need no second look.
    """
    changed = dict.fromkeys(groups)
    incident: dict[str, list[tuple[EdgeOrder, str, Edge]]] = {}
    rounds = looked = 0
    while True:
        rounds += 1
        inside = {text: name for name in changed for text in graph.members(name)}
        forest, ring = _resolve_with_ring(graph, inside, since, incident)
        looked += len(inside) + sum(len(members) for members in ring.values())
        roots = {forest.root(text) for text in inside}
        joined = [name for name, members in ring.items() if any(forest.root(text) in roots for text in members)]
        if not joined:
            break
        changed.update(dict.fromkeys(joined))
    return Repair(_rewrite(graph, changed, inside, forest, incident), looked, rounds)


def _resolve_with_ring(
    graph: Graph,
    inside: dict[str, str],
    since: EdgeOrder | None,
    incident: dict[str, list[tuple[EdgeOrder, str, Edge]]],
) -> tuple[Forest, dict[str, list[str]]]:
    edges: list[tuple[EdgeOrder, str, str]] = []
    ring: dict[str, list[str]] = {}
    for text in inside:
        for order, other, _ in _incident(graph, text, incident):
            if other in inside:
                if text < other:
                    edges.append((order, text, other))
            elif since is None or order >= since:
                edges.append((order, text, other))
                ring[graph.name(other)] = []
    forest = Forest(graph.ruling)
    for text in inside:
        forest.add(text)
    for name, members in ring.items():
        members.extend(graph.members(name))
        for text in members:
            forest.add(text)
        for text in members:
            for order, other, _ in _incident(graph, text, incident):
                # Edges between ring groups were refused and stay so while the ring holds.
                if text < other and graph.name(other) == name:
                    edges.append((order, text, other))
    edges.sort()
    for _, a, b in edges:
        forest.follow(a, b)
    return forest, ring


def _incident(
    graph: Graph, text: str, incident: dict[str, list[tuple[EdgeOrder, str, Edge]]]
) -> list[tuple[EdgeOrder, str, Edge]]:
    found = incident.get(text)
    if found is None:
        order = graph.ruling.edge_order
        found = [(order(text, other, edge.first), other, edge) for other, edge in graph.followable(text)]
        incident[text] = found
    return found


def _rewrite(
    graph: Graph,
    changed: Iterable[str],
    inside: dict[str, str],
    forest: Forest,
    incident: dict[str, list[tuple[EdgeOrder, str, Edge]]],
) -> list[Split]:
    splits: list[Split] = []
    last: dict[str, tuple[int, int, int]] = {}
    for text, name in inside.items():
        root = forest.root(text)
        for order, other, edge in incident[text]:
            if text > other or other not in inside:
                continue
            other_root = forest.root(other)
            if other_root == root:
                last[root] = max(last.get(root, NOWHERE), order[:3])
            elif inside[other] == name:
                size = forest.size(root) + forest.size(other_root)
                clash = graph.ruling.clash(forest.load(root), forest.load(other_root), size)
                assert clash is not None, f"{text} and {other} may be together and are not"
                splits.append(Split(text, other, edge.first, clash))

    for name in changed:
        graph.drop_group(name, graph.group(name), graph.members(name))
    together: dict[str, list[str]] = {}
    for text in inside:
        together.setdefault(forest.root(text), []).append(text)
    for root, members in together.items():
        name = min(members, key=lambda text: graph.ruling.strength(text, graph.node(text).first))
        for text in members:
            graph.call(text, name)
        if len(members) > 1:
            group = Group(VERSION, len(members), forest.load(root), last.get(root, NOWHERE), [])
            graph.add_members(name, group, members)
    return splits


def upgrade(graph: Graph, text: str) -> tuple[list[str], list[str]]:
    """Bring the component of an identifier under the rules in force; gives everybody in it, and the names of its
    groups, to be resolved.

    A component is whatever edges that can be followed under the new rules connect, together with the old groups of
    everybody in it: no edge that counts leads out of it, so it can be resolved on its own.
    """
    reached = {text: None}
    waiting = [text]
    names: dict[str, None] = {}
    while waiting:
        one = waiting.pop()
        name = graph.name(one)
        found: list[str] = [other for other, _ in graph.followable(one)]
        if name not in names:
            names[name] = None
            found.extend(graph.members(name))
        for other in found:
            if other not in reached:
                reached[other] = None
                waiting.append(other)
    for one in reached:
        graph.renew(one)
    return list(reached), list(names)
