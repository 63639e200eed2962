"""The identifiers, edges and groups of the identity stage, as one record of the log sees and changes them."""

from collections.abc import Iterable, Iterator

from pipeline.identifiers import Keys
from pipeline.identity.resolution import Ruling
from pipeline.identity.state import (
    BLOCKED,
    CROWDED,
    FREE,
    META_KEY,
    NEVER,
    QUARANTINED,
    VERSION,
    Decided,
    Edge,
    Group,
    Member,
    Meta,
    Node,
    Spilled,
)
from pipeline.runtime.ports import State

NOWHERE = (0, 0, -NEVER)
"""Ordered before every edge."""


class Graph:
    """A view of the state during one step. `inline` is how many edges or members fit into one record.

    `before` holds the name each identifier had when the step met it: what has another name at the end was assigned.
    """

    def __init__(self, state: State, keys: Keys, inline: int) -> None:
        self._state = state
        self._digest = keys.digest
        self._inline = inline
        self._nodes: dict[str, Node] = {}
        self._dirty: dict[str, None] = {}
        self.before: dict[str, str] = {}
        self.flag_before: dict[str, int] = {}
        meta = state.get(META_KEY)
        self.meta: Meta = Meta() if meta is None else meta
        # Set by the stage once it knows the generation in force.
        self.ruling: Ruling

    # ------------------------------------------------------------------------------------------------- identifiers

    def node(self, text: str) -> Node:
        """The identifier; a new one if nobody knew it."""
        node = self._nodes.get(text)
        if node is None:
            node = self._state.get(b"n" + self._digest(text))
            if node is None:
                node = Node(generation=self.meta.generation, flag=BLOCKED if self.ruling.blocked(text) else FREE)
                self.meta.identifiers += 1
                self._dirty[text] = None
            self._nodes[text] = node
            self.before[text] = node.name or text
            self.flag_before[text] = node.flag
        return node

    def forget_all(self, text: str, erased_at: int, epoch: int, keep_out: bool) -> None:
        """Leave nothing of an identifier but that it was erased; its edges are gone already."""
        old = self.node(text).decided
        decided = Decided(erased_at=erased_at if old is None else max(erased_at, old.erased_at), erase_epoch=epoch)
        decided.kept_out = max(erased_at, 1) if keep_out else 0
        node = Node(generation=self.meta.generation, decided=decided)
        node.flag = self._judge(text, node)
        self._nodes[text] = node
        self._dirty[text] = None
        self.before[text] = text

    def scrub(self, text: str) -> None:
        """Let nothing that was kept of an identifier stay in the files of the store."""
        for kind in (b"n", b"x", b"g", b"h"):
            self._state.scrub(kind + self._digest(text))

    def touch(self, text: str) -> None:
        """Keep what was changed of an identifier."""
        self._dirty[text] = None

    def name(self, text: str) -> str:
        """The name of the group of an identifier."""
        return self.node(text).name or text

    def save(self) -> None:
        """Hand everything that was changed to the state."""
        for text in self._dirty:
            node = self._nodes[text]
            # Nothing may say who was erased, until something is known of them again.
            erased = node.decided is not None and node.decided.erased_at >= 0
            node.text = text if not erased or node.edges or node.spilled or node.name else ""
            self._state.put(b"n" + self._digest(text), node)
        self._state.put(META_KEY, self.meta)

    def flag(self, text: str) -> int:
        """Whether an identifier is followed under the rules in force, and if not, why (`state.FLAGS`)."""
        node = self.node(text)
        return node.flag if node.generation == self.meta.generation else self._judge(text, node)

    def crowd(self, text: str) -> bool:
        """Follow an identifier no more if it has touched too much; say whether that is new."""
        node = self.node(text)
        if node.flag != FREE:
            return False
        crowding = self.ruling.crowding(text, node.touched)
        if crowding is None:
            return False
        node.flag = QUARANTINED if crowding[0] == "quarantined" else CROWDED
        self._dirty[text] = None
        return True

    def release(self, text: str) -> None:
        """Count anew what an identifier touches."""
        node = self.node(text)
        node.touched = {}
        node.flag = self._judge(text, node)
        self._dirty[text] = None

    def renew(self, text: str) -> None:
        """Judge an identifier by the rules in force."""
        node = self.node(text)
        node.flag = self.flag(text)
        node.generation = self.meta.generation
        self._dirty[text] = None

    def _judge(self, text: str, node: Node) -> int:
        if self.ruling.blocked(text):
            return BLOCKED
        crowding = self.ruling.crowding(text, node.touched)
        if crowding is None:
            return FREE
        return QUARANTINED if crowding[0] == "quarantined" else CROWDED

    # ------------------------------------------------------------------------------------------------------- edges

    def edge(self, a: str, b: str) -> Edge | None:
        """The edge a-b (a < b), or None."""
        node = self.node(a)
        if not node.spilled:
            return node.edges.get(b)
        spilled: Spilled | None = self._state.get(self._spill_key(a, b))
        return None if spilled is None else spilled.edge

    def put_edge(self, a: str, b: str, edge: Edge) -> None:
        """Keep the edge a-b (a < b), new or changed."""
        self._put_end(a, b, edge)
        self._put_end(b, a, None)

    def change_edge(self, a: str, b: str, edge: Edge) -> None:
        """Keep the edge a-b (a < b), which was there before."""
        self._put_end(a, b, edge)

    def remove_edge(self, a: str, b: str) -> None:
        """Forget the edge between two identifiers, and that there was one."""
        for one, other in ((a, b), (b, a)):
            node = self.node(one)
            if node.spilled:
                self._state.delete(self._spill_key(one, other))
            elif node.edges.pop(other, self) is not self:
                self._dirty[one] = None

    def neighbours(self, text: str) -> list[str]:
        """Every identifier that shares an edge with this one."""
        node = self.node(text)
        if not node.spilled:
            return list(node.edges)
        return [spilled.text for _, spilled in self._state.scan(b"x" + self._digest(text))]

    def counts(self, a: str, b: str, edge: Edge) -> bool:
        """Whether the edge a-b has evidence that was not unlinked."""
        return edge.last > self.cut(a, b, edge)

    def cut(self, a: str, b: str, edge: Edge) -> int:
        """The latest unlink of the edge a-b, or of all edges of either end."""
        cut = edge.cut
        for text in (a, b):
            decided = self.node(text).decided
            if decided is not None:
                cut = max(cut, decided.cut)
        return cut

    def followable(self, text: str) -> Iterator[tuple[str, Edge]]:
        """The edges of an identifier that count and that no quarantine drops: (neighbour, edge)."""
        if self.flag(text) != FREE:
            return
        for other in self.neighbours(text):
            a, b = (text, other) if text < other else (other, text)
            edge = self.edge(a, b)
            if edge is not None and self.counts(a, b, edge) and self.flag(other) == FREE:
                yield other, edge

    def unfollowed(self, text: str) -> Iterator[tuple[str, str]]:
        """The links of an identifier that somebody was told are not followed; all, where it is followed no more."""
        nobody = self.flag(text) != FREE
        for other in self.neighbours(text):
            a, b = (text, other) if text < other else (other, text)
            edge = None if nobody else self.edge(a, b)
            if nobody or (edge is not None and any(edge.told)):
                yield a, b

    def first_seen(self, text: str) -> int:
        """The earliest evidence of an identifier that counts, from its edges."""
        first = NEVER
        for other in self.neighbours(text):
            a, b = (text, other) if text < other else (other, text)
            edge = self.edge(a, b)
            if edge is not None and edge.first < first and self.counts(a, b, edge):
                first = edge.first
        return first

    def _put_end(self, text: str, other: str, edge: Edge | None) -> None:
        node = self.node(text)
        if node.spilled:
            self._state.put(self._spill_key(text, other), Spilled(VERSION, other, edge))
            return
        node.edges[other] = edge
        self._dirty[text] = None
        if len(node.edges) > self._inline:
            for neighbour, kept in node.edges.items():
                self._state.put(self._spill_key(text, neighbour), Spilled(VERSION, neighbour, kept))
            node.edges = {}
            node.spilled = True

    def _spill_key(self, text: str, other: str) -> bytes:
        return b"x" + self._digest(text) + self._digest(other)

    # ------------------------------------------------------------------------------------------------------ groups

    def group(self, name: str) -> Group:
        """The group of a name: one identifier alone if there is no record."""
        group: Group | None = self._state.get(b"g" + self._digest(name))
        return group or Group(VERSION, 1, self.ruling.load(name), NOWHERE, [name])

    def members(self, name: str) -> list[str]:
        """Everybody in the group of a name."""
        group = self.group(name)
        if not group.spilled:
            return list(group.members)
        return [member.text for _, member in self._state.scan(b"h" + self._digest(name))]

    def put_group(self, name: str, group: Group) -> None:
        """Keep a group whose record was changed, its members apart."""
        self._state.put(b"g" + self._digest(name), group)

    def add_members(self, name: str, group: Group, members: Iterable[str]) -> None:
        """Let identifiers join a group; `size`, `load` and `last` are the caller's."""
        if not group.spilled:
            group.members.extend(members)
            members = ()
            if len(group.members) > self._inline:
                members, group.members, group.spilled = group.members, [], True
        prefix = b"h" + self._digest(name)
        for member in members:
            self._state.put(prefix + self._digest(member), Member(VERSION, member))
        self._state.put(b"g" + self._digest(name), group)

    def drop_group(self, name: str, group: Group, members: Iterable[str]) -> None:
        """Forget a group's record; its members are somewhere else by now."""
        if group.spilled:
            prefix = b"h" + self._digest(name)
            for member in members:
                self._state.delete(prefix + self._digest(member))
        if group.size > 1:
            self._state.delete(b"g" + self._digest(name))

    def call(self, text: str, name: str) -> None:
        """Let an identifier belong to the group `name`."""
        node = self.node(text)
        kept = "" if name == text else name
        if node.name != kept:
            node.name = kept
            self._dirty[text] = None
