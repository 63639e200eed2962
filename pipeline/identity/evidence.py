"""What the identity stage does with evidence. A new edge between ordinary people takes the cheap paths."""

from pipeline.identity.repair import is_refused, join, rename
from pipeline.identity.state import FLAGS, FREE, NEVER, Edge
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
    node_a, node_b = graph.node(a), graph.node(b)
    turn.renew(a, node_a)
    turn.renew(b, node_b)

    cut = erased_at = -1
    for decided in (node_a.decided, node_b.decided):
        if decided is not None:
            cut, erased_at = max(cut, decided.cut), max(erased_at, decided.erased_at)
            if decided.kept_out:
                # It may have got past an ingest that did not know yet, however late.
                erased_at = max(erased_at, message.last_received)
    if message.last_received <= erased_at:
        # The route may have seen the pair since, and believes that it was sent.
        turn.counters.erased += 1
        turn.forget(message.route, a, b, erased_at)
        return

    edge = graph.edge(a, b)
    was_there = edge is not None
    if edge is None:
        edge = Edge()
    cut = max(cut, edge.cut)
    is_new = edge.last < 0
    counted = not is_new and edge.last > cut
    earlier = message.first < edge.first
    if earlier:
        edge.first = message.first
    edge.last = max(edge.last, message.last_received)
    edge.epoch = edge.epoch or turn.epoch
    counts = edge.last > cut
    if counts or cut == NEVER:
        _remember_route(turn, message.route, a, b, edge)
    else:
        # An unlink has overtaken it on its way, and its route believes that it was sent.
        turn.forget(message.route, a, b, cut)
    if was_there:
        graph.change_edge(a, b, edge)
    else:
        graph.put_edge(a, b, edge)

    turn.pairs[a, b] = earlier
    changed = counts and (earlier or not counted)
    for text, node, other in ((a, node_a, b), (b, node_b, a)):
        if changed and edge.first < node.first:
            node.first = edge.first
            graph.touch(text)
        if is_new:
            namespace = other.partition(":")[0]
            node.touched[namespace] = node.touched.get(namespace, 0) + 1
            graph.touch(text)
    if is_new:
        turn.counters.edges += 1
        for text, node in ((a, node_a), (b, node_b)):
            if node.flag == FREE and graph.crowd(text):
                turn.quarantine(text)
    if changed:
        for text, node in ((a, node_a), (b, node_b)):
            if node.name:
                turn.counters.renamed += rename(graph, text)

    if node_a.flag != FREE or node_b.flag != FREE:
        if is_new:
            text, flag = (a, node_a.flag) if node_a.flag != FREE else (b, node_b.flag)
            turn.conflict(a, b, edge.first, FLAGS[flag], text)
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


def _remember_route(turn: Turn, route_text: str, a: str, b: str, edge: Edge) -> None:
    """Keep who sent an edge, so that it can be asked again after an unlink."""
    route: int | str = 0 if route_text == a else 1 if route_text == b else turn.keys.buried(route_text)
    if route not in edge.routes:
        edge.routes.append(route)
