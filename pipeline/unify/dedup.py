"""Duplicates: the same route and message id, received within 24 h of each other, decided by the route before all else.

Most people need a few entries, which stand in their actor. Whoever has more spills them, 32 at a time, into pages, of
which only the last is ever written again. A few pages are asked one by one; where there are more, a memory-only index
over the pages answers for all of them.
"""

from pipeline.runtime.ports import State
from pipeline.unify.actor import Actor, Page

WITHIN_MS = 86_400_000
# Records of one partition are received almost in order; what is older than this plays no part any more.
KEPT_MS = 2 * WITHIN_MS
INLINE = 32
PAGE = 256
# An index costs as much to make as the pages have entries: for many people with one page each it would never pay.
ASKED_ONE_BY_ONE = 4

Index = dict[bytes, dict[int, int]]
_MOST_INDEXED = 1_000


def is_duplicate(state: State, index: Index, key: bytes, actor: Actor, message_hash: int, received: int) -> bool:
    """Whether the route has seen this message id within 24 h; if not, remembers it (the actor must then be put)."""
    seen = actor.seen
    there = seen.get(message_hash)
    if there is None and actor.pages[1]:
        there = _in_pages(state, index, key, actor, message_hash)
    if there is not None:
        if -WITHIN_MS <= received - there <= WITHIN_MS:
            return True
        received = max(received, there)
    seen[message_hash] = received
    if len(seen) > INLINE:
        _make_room(state, index, key, actor)
    return False


def forget_all(state: State, index: Index, key: bytes, actor: Actor) -> None:
    """Forget every message id of a route."""
    for number in range(*actor.pages):
        state.delete(_page_key(key, number))
    index.pop(key, None)
    actor.pages = (0, 0)
    actor.seen = {}


def _make_room(state: State, index: Index, key: bytes, actor: Actor) -> None:
    horizon = max(actor.seen.values()) - KEPT_MS
    actor.seen = {known: received for known, received in actor.seen.items() if received >= horizon}
    if len(actor.seen) <= INLINE // 2:
        return
    first, end = actor.pages
    page = _page(state, key, end - 1) if end else None
    if page is None or len(page.seen) >= PAGE:
        while first < end and _page(state, key, first).newest < horizon:
            state.delete(_page_key(key, first))
            first += 1
            index.pop(key, None)
        page, end = Page(), end + 1
        actor.pages = (first, end)
    page.seen.update(actor.seen)
    page.newest = max(page.newest, *actor.seen.values())
    state.put(_page_key(key, end - 1), page)
    indexed = index.get(key)
    if indexed is not None:
        indexed.update(actor.seen)
    actor.seen = {}


def _in_pages(state: State, index: Index, key: bytes, actor: Actor, message_hash: int) -> int | None:
    first, end = actor.pages
    if end - first > ASKED_ONE_BY_ONE:
        return _indexed(state, index, key, actor).get(message_hash)
    found = None
    for number in range(first, end):
        # Where two pages have it, the later one has the later time.
        found = _page(state, key, number).seen.get(message_hash, found)
    return found


def _indexed(state: State, index: Index, key: bytes, actor: Actor) -> dict[int, int]:
    found = index.get(key)
    if found is None:
        found = {}
        for number in range(*actor.pages):
            found.update(_page(state, key, number).seen)
        if len(index) >= _MOST_INDEXED:
            del index[next(iter(index))]
        index[key] = found
    return found


def _page(state: State, key: bytes, number: int) -> Page:
    page = state.get(_page_key(key, number))
    assert isinstance(page, Page)
    return page


def _page_key(key: bytes, number: int) -> bytes:
    return b"d" + key[1:] + number.to_bytes(4, "big")
