"""What the identity stage does with evidence. A new edge between ordinary people takes the cheap paths."""

from pipeline.identity.repair import is_refused, join, rename
from pipeline.identity.state import NEVER, Edge
from pipeline.identity.turn import Turn
from pipeline.records import Evidence


def take(turn: Turn, message: Evidence) -> None:
    """Take in one piece of evidence."""
    turn.counters.evidence += 1
    a, b = message.a, message.b
    if a == b:
        turn.counters.self_edges += 1
        return
    if b < a:
        a, b = b, a
    graph = turn.graph
    turn.renew(a)
    turn.renew(b)
    node_a, node_b = graph.node(a), graph.node(b)

    erased_at = max(
        -1 if node_a.decided is None else node_a.decided.erased_at,
        -1 if node_b.decided is None else node_b.decided.erased_at,
    )
    if message.last_received <= erased_at:
        # The route may have seen the pair since, and believes that it was sent.
        turn.counters.erased += 1
        turn.forget(message.route, a, b, erased_at)
        return

    edge = graph.edge(a, b)
    was_there = edge is not None
    if edge is None:
        edge = Edge()
    is_new = edge.last < 0
    counted = not is_new and graph.counts(a, b, edge)
    earlier = message.first < edge.first
    if earlier:
        edge.first = message.first
    edge.last = max(edge.last, message.last_received)
    edge.epoch = edge.epoch or turn.epoch
    counts = graph.counts(a, b, edge)
    _remember_route(turn, message, a, b, edge, counts)
    if was_there:
        graph.change_edge(a, b, edge)
    else:
        graph.put_edge(a, b, edge)

    if is_new:
        turn.counters.edges += 1
        _touch(turn, a, b)
        _touch(turn, b, a)
    changed = counts and (earlier or not counted)
    if changed:
        for text, node in ((a, node_a), (b, node_b)):
            if edge.first < node.first:
                node.first = edge.first
                graph.touch(text)
    if is_new:
        for text in (a, b):
            if graph.crowd(text):
                turn.quarantine(text)
    if changed:
        for text in (a, b):
            turn.counters.renamed += rename(graph, text)

    flagged = turn.flagged(a, b)
    if flagged is not None:
        if is_new:
            turn.conflict(a, b, edge.first, *flagged)
    elif not counts:
        if is_new:
            turn.counters.unlinked += 1
            turn.conflict(a, b, edge.first, "unlinked", "")
    elif changed:
        _follow(turn, a, b, edge, counted)


def _follow(turn: Turn, a: str, b: str, edge: Edge, counted: bool) -> None:
    """Follow an edge that counts since now, or is earlier than it was, as far as the rules allow."""
    graph, counters = turn.graph, turn.counters
    order = graph.ruling.edge_order(a, b, edge.first)
    name = graph.name(a)
    moved_back = counted and graph.ruling.newest_first(a, b)
    if name == graph.name(b):
        counters.inside += 1
        if moved_back:
            # Taken later than before, it may leave room for a refused edge in between.
            turn.resolve([name])
            return
        group = graph.group(name)
        if order[:3] > group.last:
            group.last = order[:3]
            graph.put_group(name, group)
        return
    if moved_back:
        # It was refused when there was less to clash with.
        return
    clash = join(graph, name, graph.name(b), order[:3])
    if clash is None:
        counters.joined += 1
        return
    if is_refused(graph, a, b, order):
        counters.refused_plainly += 1
    else:
        smaller = min(name, graph.name(b), key=lambda each: graph.group(each).size)
        turn.resolve([smaller], order)
        if graph.name(a) == graph.name(b):
            return
    if not counted:
        turn.conflict(a, b, edge.first, *graph.ruling.reason(clash))


def _touch(turn: Turn, text: str, other: str) -> None:
    node = turn.graph.node(text)
    namespace = other.partition(":")[0]
    node.touched[namespace] = node.touched.get(namespace, 0) + 1
    turn.graph.touch(text)


def _remember_route(turn: Turn, message: Evidence, a: str, b: str, edge: Edge, counts: bool) -> None:
    """Keep who sent an edge, so that it can be asked again after an unlink. Evidence that an unlink has overtaken on
    its way is asked for at once: its route believes that it was sent."""
    if not counts:
        decided = [node.decided for node in (turn.graph.node(a), turn.graph.node(b)) if node.decided is not None]
        cut = max([edge.cut, *(each.cut for each in decided)])
        if cut < NEVER:
            turn.forget(message.route, a, b, cut)
            return
    route: int | str = 0 if message.route == a else 1 if message.route == b else message.route
    if route not in edge.routes:
        edge.routes.append(route)
