"""Duplicates: the same route and message id, received within 24 h of each other, decided by the route before all else.

What was seen is packed, 16 bytes a message: the hash of its id and when it was received. So a person's messages are one
object to keep, to encode and to decode, and looking one up is a search for eight bytes.

Most people need a few entries, which stand in their actor. Whoever has more spills them, 32 at a time, into pages, of
which only the last is ever written again. A few pages are asked one by one; where there are more, a memory-only index
over the pages answers for all of them.
"""

from collections.abc import Iterator
from struct import Struct

from pipeline.runtime.ports import State
from pipeline.unify.actor import Actor, Page

WITHIN_MS = 86_400_000
# Records of one partition are received almost in order; what is older than this plays no part any more.
KEPT_MS = 2 * WITHIN_MS
INLINE = 32
PAGE = 256
# An index costs as much to make as the pages have entries: for many people with one page each it would never pay.
ASKED_ONE_BY_ONE = 4

Index = dict[bytes, dict[bytes, int]]
_MOST_INDEXED = 1_000
_HASH = 8
_ENTRY = 16
_packed = Struct(">q").pack


def is_duplicate(state: State, index: Index, key: bytes, actor: Actor, message_hash: bytes, received: int) -> bool:
    """Whether the route has seen this message id within 24 h; if not, remembers it (the actor must then be put)."""
    seen = actor.seen
    if _is_near(seen, message_hash, received):
        return True
    if actor.pages[1] and _is_near_in_pages(state, index, key, actor, message_hash, received):
        return True
    actor.seen = seen + message_hash + _packed(received)
    if len(seen) >= INLINE * _ENTRY:
        _make_room(state, index, key, actor)
    return False


def _is_near(seen: bytes, message_hash: bytes, received: int) -> bool:
    """Whether a message is among packed entries within 24 h. It may be there more than once, at any times."""
    at = seen.rfind(message_hash)
    while at >= 0:
        # The same bytes may stand there by chance, across entries or in a time.
        if not at % _ENTRY and -WITHIN_MS <= received - _received_at(seen, at) <= WITHIN_MS:
            return True
        at = seen.rfind(message_hash, 0, at + _HASH - 1)
    return False


def forget_all(state: State, index: Index, key: bytes, actor: Actor) -> None:
    """Forget every message id of a route."""
    for number in range(*actor.pages):
        state.delete(_page_key(key, number))
    index.pop(key, None)
    actor.pages = (0, 0)
    actor.seen = b""


def _make_room(state: State, index: Index, key: bytes, actor: Actor) -> None:
    newest = max(_times(actor.seen))
    horizon = newest - KEPT_MS
    seen = actor.seen
    actor.seen = seen = b"".join(
        seen[at : at + _ENTRY] for at in range(0, len(seen), _ENTRY) if _received_at(seen, at) >= horizon
    )
    if len(seen) <= INLINE // 2 * _ENTRY:
        return
    first, end = actor.pages
    page = _page(state, key, end - 1) if end else None
    if page is None or len(page.seen) >= PAGE * _ENTRY:
        while first < end and _page(state, key, first).newest < horizon:
            state.delete(_page_key(key, first))
            first += 1
            index.pop(key, None)
        page, end = Page(), end + 1
        actor.pages = (first, end)
    page.seen += seen
    page.newest = max(page.newest, newest)
    state.put(_page_key(key, end - 1), page)
    indexed = index.get(key)
    if indexed is not None:
        indexed.update(_entries(seen))
    actor.seen = b""


def _is_near_in_pages(state: State, index: Index, key: bytes, actor: Actor, message_hash: bytes, received: int) -> bool:
    first, end = actor.pages
    if end - first > ASKED_ONE_BY_ONE:
        there = _indexed(state, index, key, actor).get(message_hash)
        if there is None:
            return False
        if -WITHIN_MS <= received - there <= WITHIN_MS:
            return True
    return any(
        _is_near(_page(state, key, number).seen, message_hash, received) for number in range(end - 1, first - 1, -1)
    )


def _indexed(state: State, index: Index, key: bytes, actor: Actor) -> dict[bytes, int]:
    found = index.get(key)
    if found is None:
        found = {}
        for number in range(*actor.pages):
            found.update(_entries(_page(state, key, number).seen))
        if len(index) >= _MOST_INDEXED:
            del index[next(iter(index))]
        index[key] = found
    return found


def _entries(seen: bytes) -> Iterator[tuple[bytes, int]]:
    for at in range(0, len(seen), _ENTRY):
        yield seen[at : at + _HASH], _received_at(seen, at)


def _times(seen: bytes) -> Iterator[int]:
    for at in range(0, len(seen), _ENTRY):
        yield _received_at(seen, at)


def _received_at(seen: bytes, at: int) -> int:
    return int.from_bytes(seen[at + _HASH : at + _ENTRY], "big", signed=True)


def _page(state: State, key: bytes, number: int) -> Page:
    page = state.get(_page_key(key, number))
    assert isinstance(page, Page)
    return page


def _page_key(key: bytes, number: int) -> bytes:
    return b"d" + key[1:] + number.to_bytes(4, "big")
