"""Evidence: that two identifiers stood in one event, told to the identity stage when it is new or earlier than told."""

from hashlib import blake2b
from itertools import combinations

from pipeline.records import Event, Evidence, Forget, encode
from pipeline.unify.actor import VERSION, Actor, SentEdge
from pipeline.unify.task import Task

# Pairs grow with the square: beyond the first ten identifiers of an event none is linked, and it is counted.
LINKED_IDENTIFIERS = 10
INLINE = 64


def send(task: Task, key: bytes, actor: Actor, event: Event) -> None:
    """Send what an event of this route says that was not said before. The actor must be put afterwards."""
    identifiers = event.identifiers
    if len(identifiers) > LINKED_IDENTIFIERS:
        task.count("identifiers_not_linked", len(identifiers) - LINKED_IDENTIFIERS)
        identifiers = identifiers[:LINKED_IDENTIFIERS]
    time, received = event.time, event.received
    for one, other in combinations(identifiers, 2):
        if one == other:
            continue
        a, b = (one, other) if one < other else (other, one)
        beside = actor.sent.get(a)
        known = beside.get(b) if beside is not None else None
        if known is not None:
            if received > known[1]:
                known[1] = received
            if time < known[0]:
                known[0] = time
                _tell(task, actor, a, b, known[0], known[1])
        elif not _in_overflow(task, key, actor, a, b, time, received):
            _remember(task, key, actor, a, b, time, received)
            _tell(task, actor, a, b, time, received)


def forget(task: Task, message: Forget, key: bytes) -> None:
    """An edge was unlinked. Tell what was seen of it in any case: if the unlink is undone, and another one reaches less
    far, it counts how late that was. Unless it was seen since, it is then as if it had never been sent."""
    actor = task.state.get(key)
    if actor is None:
        return
    beside = actor.sent.get(message.a)
    known = beside.get(message.b) if beside is not None else None
    if known is not None:
        _tell(task, actor, message.a, message.b, known[0], known[1])
        if known[1] > message.received:
            return
        del beside[message.b]
        if not beside:
            del actor.sent[message.a]
        task.put(key, actor)
        return
    overflow = _overflow_key(key, message.a, message.b)
    edge = task.state.get(overflow)
    if edge is None:
        return
    _tell(task, actor, edge.a, edge.b, edge.first, edge.last)
    if edge.last <= message.received:
        task.state.delete(overflow)


def forget_all(task: Task, key: bytes, actor: Actor) -> None:
    """Nothing was ever sent by this route."""
    actor.sent = {}
    if actor.sent_count > INLINE:
        for overflow in [found for found, _ in task.state.scan(b"e" + key[1:])]:
            task.state.delete(overflow)
    actor.sent_count = 0


def _tell(task: Task, actor: Actor, a: str, b: str, first: int, last: int) -> None:
    told = Evidence(a=a, b=b, first=first, last_received=last, route=actor.identifier)
    task.out.log("identity-edges", None, encode(told), 0)


def _remember(task: Task, key: bytes, actor: Actor, a: str, b: str, first: int, last: int) -> None:
    # The count never comes down: beyond the bound it says that there may be edges that stand by themselves.
    actor.sent_count += 1
    if actor.sent_count <= INLINE:
        actor.sent.setdefault(a, {})[b] = [first, last]
    else:
        task.state.put(_overflow_key(key, a, b), SentEdge(VERSION, a, b, first, last))


def _in_overflow(task: Task, key: bytes, actor: Actor, a: str, b: str, time: int, received: int) -> bool:
    """Whether the edge was sent and stands by itself; if so, it is brought up to date."""
    if actor.sent_count <= INLINE:
        return False
    overflow = _overflow_key(key, a, b)
    edge = task.state.get(overflow)
    if edge is None:
        return False
    edge.last = max(edge.last, received)
    if time < edge.first:
        edge.first = time
        _tell(task, actor, a, b, edge.first, edge.last)
    task.state.put(overflow, edge)
    return True


def _overflow_key(key: bytes, a: str, b: str) -> bytes:
    pair = blake2b(a.encode(), digest_size=16)
    pair.update(b"\0")
    pair.update(b.encode())
    return b"e" + key[1:] + pair.digest()
