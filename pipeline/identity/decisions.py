"""What people decide about identity: to unlink, to take that back, to release from quarantine, to erase.

An edge that was unlinked at R counts only if it was last received after R, and keeps its first seen. Unlinks of one
pair, and of all edges of one identifier, stand beside each other: each is taken back by its own relink.
"""

from collections.abc import Callable

from msgspec import structs

from pipeline.identity.state import NEVER, Decided, Edge
from pipeline.identity.turn import Turn, routes_of
from pipeline.records import Erase, Erased, EraseRequest, Readmitted, Release, Relink, Unlink, encode

Pair = tuple[str, str]


def unlink(turn: Turn, message: Unlink) -> None:
    """Take back an edge, or every edge of an identifier."""
    turn.reason = "unlink"
    graph = turn.graph
    pairs = _pairs(turn, message.a, message.b)
    if pairs is None:
        return
    cut = stands = NEVER if message.forever else message.received

    def cut_off() -> None:
        nonlocal stands
        if message.b:
            a, b = pairs[0]
            known = graph.edge(a, b)
            edge = known or Edge()
            edge.cut = stands = max(edge.cut, cut)
            if known is None:
                graph.put_edge(a, b, edge)
            else:
                graph.change_edge(a, b, edge)
        else:
            decided = _decided(turn, message.a)
            decided.cut = stands = max(decided.cut, cut)

    _decide(turn, pairs, cut_off)
    # Of an unlink and the next one only the last is kept for replays: it reaches as far as what stands.
    if stands == NEVER and not message.forever:
        message = structs.replace(message, forever=True)
    elif NEVER > stands > message.received:
        message = structs.replace(message, received=stands)
    if not message.forever:
        _ask_again(turn, pairs)
    turn.out.upsert("identity-decisions", _key(turn, "unlink", message.a, message.b), encode(message))


def relink(turn: Turn, message: Relink) -> None:
    """Take back an unlink."""
    turn.reason = "relink"
    graph = turn.graph
    pairs = _pairs(turn, message.a, message.b)
    if pairs is None:
        return

    def restore() -> None:
        if message.b:
            a, b = pairs[0]
            edge = graph.edge(a, b)
            if edge is None:
                return
            edge.cut = -1
            if edge.last < 0:
                graph.remove_edge(a, b)
            else:
                graph.change_edge(a, b, edge)
        else:
            _decided(turn, message.a).cut = -1

    _decide(turn, pairs, restore)
    # Where another unlink stands behind one for good, nobody was asked how late an edge was seen.
    _ask_again(turn, pairs)
    key = _key(turn, "unlink", message.a, message.b)
    if message.b and graph.edge(*pairs[0]) is None:
        # Nothing is left of the pair that an erasure of one of them would find: no decision either.
        turn.out.upsert("identity-decisions", key, None)
    else:
        turn.out.upsert("identity-decisions", key, encode(message))


def release(turn: Turn, message: Release) -> None:
    """Follow an identifier's edges again; what it touches is counted anew from here."""
    turn.reason = "release"
    graph, text = turn.graph, message.identifier
    turn.renew(text)
    for other in graph.neighbours(text):
        turn.renew(other)
    graph.release(text)
    _decided(turn, text).released = turn.epoch
    turn.resolve([graph.name(text)])
    turn.out.upsert("identity-decisions", _key(turn, "release", text), encode(message))


def erase(turn: Turn, message: EraseRequest) -> None:
    """Forget a person: the edges of everybody in the group, and that they were one. Each of them is told. What stays
    of each is a keyed hash, with when it was."""
    graph = turn.graph
    turn.renew(message.identifier)
    name = graph.name(message.identifier)
    members = graph.members(name)
    for text in members:
        # Links that are not followed lead to others, whom new rules may not have reached yet.
        for other in graph.neighbours(text):
            turn.renew(other)
    erased = frozenset(members)
    routes_gone = erased.union(map(turn.keys.buried, members))
    later: dict[str, None] = {}
    for text in members:
        for other in graph.neighbours(text):
            a, b = (text, other) if text < other else (other, text)
            edge = graph.edge(a, b)
            assert edge is not None
            turn.out.upsert("identity-decisions", _key(turn, "unlink", a, b), None)
            for route in routes_of(a, b, edge):
                # Also of an edge among the erased: somebody else's event may have told it.
                if route not in routes_gone:
                    turn.forget(route, a, b, message.received)
            if other not in erased:
                if any(edge.told):
                    turn.tell(other, text, edge.first, "", gone=True)
                graph.scrub(other)
                if edge.epoch:
                    _untouch(turn, other, text, edge.epoch)
                if edge.first == graph.node(other).first:
                    later[other] = None
            graph.remove_edge(a, b)
    graph.drop_group(name, graph.group(name), members)
    for text in members:
        if graph.node(text).decided is not None:
            for what in ("unlink", "release"):
                turn.out.upsert("identity-decisions", _key(turn, what, text), None)
        graph.forget_all(text, message.received, turn.epoch, message.keep_out)
        graph.scrub(text)
        clock, request_id, keep_out = graph.meta.clock, message.request_id, message.keep_out
        erasure = Erase(text, turn.epoch, clock, name, request_id, keep_out, message.received)
        turn.send(text, encode(erasure))
        turn.counters.erases += 1
        actor = turn.keys.actor(text).decode()
        # An earlier erasure may have been asked for later, by another clock: a replay has to know how far it reached.
        decided = graph.node(text).decided
        assert decided is not None
        decision = Erased(actor, decided.erased_at, turn.epoch, len(members), request_id, keep_out)
        turn.out.upsert("identity-decisions", _key(turn, "erase", text), encode(decision))
    for text in later:
        graph.node(text).first = graph.first_seen(text)
        graph.touch(text)
    turn.reason = "erase"
    turn.resolve(dict.fromkeys(graph.name(text) for text in later))


def readmit(turn: Turn, message: Readmitted) -> None:
    """Whoever was kept out is linked to others again: they have consented since."""
    decided = turn.graph.node(message.identifier).decided
    if decided is not None and 0 < decided.kept_out < message.time:
        decided.kept_out = 0
        turn.graph.touch(message.identifier)


def _pairs(turn: Turn, a: str, b: str) -> list[Pair] | None:
    """The edges a decision is about, each end resolved under the rules in force; None if it is about nothing."""
    if a == b:
        return None
    others = [b] if b else turn.graph.neighbours(a)
    for text in (a, *others):
        turn.renew(text)
    return [(a, other) if a < other else (other, a) for other in others]


def _decide(turn: Turn, pairs: list[Pair], change: Callable[[], None]) -> None:
    """Make a change to whether edges count, and resolve what it touched."""
    graph = turn.graph
    turn.pairs.update(dict.fromkeys(pairs, False))
    before = [_counts(turn, pair) for pair in pairs]
    change()
    ends: dict[str, None] = {}
    for pair, counted in zip(pairs, before, strict=True):
        if _counts(turn, pair) != counted:
            ends.update(dict.fromkeys(pair))
    for text in ends:
        graph.node(text).first = graph.first_seen(text)
        graph.touch(text)
    if ends:
        turn.resolve(dict.fromkeys(graph.name(text) for text in ends))


def _ask_again(turn: Turn, pairs: list[Pair]) -> None:
    """Let the routes that have sent edges which do not count tell how late they saw them."""
    graph = turn.graph
    for a, b in pairs:
        edge = graph.edge(a, b)
        if edge is None or not edge.routes or graph.counts(a, b, edge):
            continue
        cut = graph.cut(a, b, edge)
        if cut == NEVER:
            continue
        for route in routes_of(a, b, edge):
            turn.forget(route, a, b, cut)
        edge.routes = []
        graph.change_edge(a, b, edge)


def _counts(turn: Turn, pair: Pair) -> bool:
    edge = turn.graph.edge(*pair)
    return edge is not None and turn.graph.counts(*pair, edge)


def _decided(turn: Turn, text: str) -> Decided:
    node = turn.graph.node(text)
    if node.decided is None:
        node.decided = Decided()
    turn.graph.touch(text)
    return node.decided


def _untouch(turn: Turn, text: str, other: str, epoch: int) -> None:
    node = turn.graph.node(text)
    if node.decided is not None and epoch <= node.decided.released:
        return
    namespace = other.partition(":")[0]
    left = node.touched.get(namespace, 0) - 1
    if left > 0:
        node.touched[namespace] = left
    else:
        node.touched.pop(namespace, None)
    turn.graph.touch(text)


def _key(turn: Turn, what: str, *identifiers: str) -> bytes:
    """The key of a decision: what was decided, and the hashes of whom it is about, in whichever order they were named:
    a tombstone must not say who was erased."""
    return b"\t".join([what.encode(), *sorted(turn.keys.actor(one) for one in identifiers if one)])
