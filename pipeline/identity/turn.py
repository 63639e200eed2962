"""One record's turn at the identity stage: what it may change, say and count."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.identifiers import Keys
from pipeline.identity.graph import Graph
from pipeline.identity.repair import Repair, resolve, upgrade
from pipeline.identity.resolution import EdgeOrder
from pipeline.identity.state import FLAGS, FREE, Edge, Node
from pipeline.records import Assign, Forget, IdentityConflict, Unfollowed, encode
from pipeline.runtime.ports import Outputs

LIMITS = "limits"


@dataclass(slots=True)
class Counters:
    """What the stage has done since it was made; the runtime shows it as metrics."""

    evidence: int = 0
    edges: int = 0
    self_edges: int = 0
    unlinked: int = 0
    erased: int = 0
    joined: int = 0
    inside: int = 0
    refused_plainly: int = 0
    resolved: int = 0
    resolved_identifiers: int = 0
    resolved_rounds: int = 0
    renamed: int = 0
    quarantined: int = 0
    conflicts: int = 0
    assigns: int = 0
    forgets: int = 0
    erases: int = 0
    upgraded: int = 0
    swept: int = 0


class Turn:
    """What one record of the log does. `epoch` is its offset plus one; `reason` goes with every Assign it causes."""

    __slots__ = ("counters", "epoch", "graph", "in_conflict", "keys", "out", "pairs", "reason")

    def __init__(self, graph: Graph, out: Outputs, keys: Keys, epoch: int, counters: Counters) -> None:
        self.graph = graph
        self.out = out
        self.epoch = epoch
        self.counters = counters
        self.reason = "evidence"
        # Links of which it may have changed whether they are followed; those of whoever is renamed come to them.
        # True: it was seen earlier than was told.
        self.pairs: dict[tuple[str, str], bool] = {}
        self.in_conflict: set[tuple[str, str]] = set()
        self.keys = keys

    def advance(self, received: int) -> None:
        """Time has come to `received` (ms)."""
        if received > self.graph.meta.clock:
            self.graph.meta.clock = received

    def renew(self, text: str, node: Node | None = None) -> None:
        """Make sure that an identifier (its node, if at hand) is resolved under the rules in force."""
        graph = self.graph
        if (node or graph.node(text)).generation != graph.meta.generation:
            self.counters.upgraded += 1
            reached, groups = upgrade(graph, text)
            for one in reached:
                # Rules that were overtaken may have been told of somebody they never reached.
                for a, b in graph.unfollowed(one):
                    self.pairs.setdefault((a, b), False)
            self.resolve(groups)

    def resolve(self, groups: Iterable[str], since: EdgeOrder | None = None) -> None:
        """Resolve these groups again, and tell which evidence is followed no more."""
        done: Repair = resolve(self.graph, groups, since)
        self.counters.resolved += 1
        self.counters.resolved_identifiers += done.identifiers
        self.counters.resolved_rounds += done.rounds
        for split in done.splits:
            self.conflict(split.a, split.b, split.first, *self.graph.ruling.reason(split.clash))

    def quarantine(self, text: str) -> None:
        """Take an identifier, flagged just now, out of its group, and tell which evidence is followed no more."""
        graph = self.graph
        self.counters.quarantined += 1
        name = graph.name(text)
        if graph.group(name).size == 1:
            return
        for other in graph.neighbours(text):
            if graph.name(other) == name:
                a, b = (text, other) if text < other else (other, text)
                edge = graph.edge(a, b)
                if edge is not None and graph.counts(a, b, edge):
                    self.conflict(a, b, edge.first, FLAGS[graph.flag(text)], text)
        self.resolve([name])

    def conflict(self, a: str, b: str, first: int, reason: str, detail: str) -> None:
        """Say that the evidence a-b is not followed, and why."""
        self.counters.conflicts += 1
        self.in_conflict.add((a, b))
        record = IdentityConflict(a, b, first, reason, detail, self.epoch)
        self.out.log("identity-conflicts", a.encode(), encode(record))

    def forget(self, route: str, a: str, b: str, received: int) -> None:
        """Let a route send a-b again if it has seen it after `received`."""
        self.counters.forgets += 1
        record = Forget(route, a, b, received, self.graph.meta.clock)
        self.out.log("links", self.keys.actor(route), encode(record))

    def send(self, text: str, value: bytes) -> None:
        """Send a message to an identifier's actor."""
        self.out.log("links", self.keys.actor(text), value)

    def tell(self, text: str, other: str, first: int, reason: str, gone: bool = False) -> None:
        """Tell an identifier whether its link to another is followed ("": it is, or is gone)."""
        record = Unfollowed(text, other, self.epoch, self.graph.meta.clock, reason, first, gone)
        self.send(text, encode(record))

    def _tell_unfollowed(self) -> None:
        """Tell both ends of every link of which it has changed whether, or why not, it is followed."""
        graph = self.graph
        for text in list(graph.before):
            node = graph.node(text)
            if graph.before[text] != (node.name or text) or graph.flag_before[text] != node.flag:
                for other in graph.neighbours(text):
                    self.pairs.setdefault((text, other) if text < other else (other, text), False)
        for (a, b), earlier in self.pairs.items():
            edge = graph.edge(a, b)
            found = None if edge is None else self._why_not(a, b, edge)
            if edge is None or found is None:
                continue
            why, detail = found
            # Whoever is nobody's may have any number of these, and is told of none.
            due = (why if graph.flag(a) == FREE else "", why if graph.flag(b) == FREE else "")
            if due == edge.told and not (why and earlier):
                continue
            if self._is_news(why, edge.told) and (a, b) not in self.in_conflict:
                # By a decision or a rule: it was followed, or did not count, or there was another reason.
                self.conflict(a, b, edge.first, *(graph.ruling.reason(detail) if why == LIMITS else (why, detail)))
            for text, other, now, before in ((a, b, due[0], edge.told[0]), (b, a, due[1], edge.told[1])):
                if now != before or (now and earlier):
                    self.tell(text, other, edge.first, now)
            edge.told = due
            graph.change_edge(a, b, edge)

    @staticmethod
    def _is_news(why: str, told: tuple[str, str]) -> bool:
        """Whether that a link is not followed has to be said in a record of its own."""
        return why not in told if why == LIMITS else bool(why) and not any(told)

    def _why_not(self, a: str, b: str, edge: Edge) -> tuple[str, str] | None:
        """Why a link that counts is not followed, and who or what forbids it; "" if it is, or does not count; None: not
        known yet. Why is no more than follows from the evidence whatever its order: which limit it met first is for
        the record of the conflict."""
        graph = self.graph
        if not graph.counts(a, b, edge):
            return "", ""
        for text in (a, b):
            flag = graph.flag(text)
            if flag != FREE:
                return str(FLAGS[flag]), text
        one, other = graph.name(a), graph.name(b)
        if one == other:
            return "", ""
        left, right = graph.group(one), graph.group(other)
        clash = graph.ruling.clash(left.load, right.load, left.size + right.size)
        # Where rules have changed, the other end may not have been resolved under them yet.
        return None if clash is None else (LIMITS, clash)

    def end(self) -> None:
        """Tell every identifier whose name has changed, and keep what was changed."""
        self._tell_unfollowed()
        graph = self.graph
        moved = [(text, before, name) for text, before in graph.before.items() if (name := graph.name(text)) != before]
        if moved:
            together = Counter((before, name) for _, before, name in moved)
            for text, before, name in moved:
                decided = graph.node(name).decided
                assign = Assign(
                    text,
                    name,
                    self.epoch,
                    self.reason,
                    graph.meta.clock,
                    name_erased=decided.erase_epoch if decided is not None else 0,
                    companions=together[before, name],
                    former_lives=graph.name(before) == before,
                )
                self.send(text, encode(assign))
            self.counters.assigns += len(moved)
        graph.save()


def routes_of(a: str, b: str, edge: Edge) -> list[str]:
    """The routes that have sent an edge; those that are not one of its ends are buried."""
    return [route if isinstance(route, str) else (a, b)[route] for route in edge.routes]
