"""`TaskState` is a dictionary with a time index, whatever the batches, aborts and reopened stores between."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.runtime import overlay
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.memory import MemoryStores
from pipeline.runtime.overlay import TaskState

KEYS = st.sampled_from([b"a", b"ab", b"b", b"ba", b"c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 9), st.integers(0, 5)),
        st.tuples(st.just("grow"), KEYS, st.integers(0, 9), st.integers(0, 5)),
        st.tuples(st.just("delete"), KEYS, st.just(0), st.just(0)),
        st.tuples(st.just("ahead"), KEYS, st.integers(0, 9), st.integers(0, 5)),
        st.tuples(
            st.sampled_from(["commit", "commit", "abort", "reopen", "rest"]), st.just(b""), st.just(0), st.just(0)
        ),
        st.tuples(st.just("look"), st.just(b""), st.just(0), st.integers(0, 6)),
    ),
    max_size=40,
)


@pytest.fixture(autouse=True)
def as_ever() -> Iterator[None]:
    names = ("FORGOTTEN_AT_ONCE", "FIRST_AHEAD", "LEAST_AHEAD", "MANY", "AWAKE")
    before = {name: getattr(overlay, name) for name in names}
    yield
    for name, value in before.items():
        setattr(overlay, name, value)


def reading_ahead(first: int) -> None:
    """So many at first, however few are missing."""
    overlay.FIRST_AHEAD, overlay.LEAST_AHEAD, overlay.MANY = first, 1, 1 << 40


def opened(store: Any, cache: int) -> TaskState:
    return TaskState(
        store,
        lambda _, value: b",".join(b"%d" % n for n in value),
        lambda _, data: [int(n) for n in data.split(b",")],
        cache,
        1 << 20,
    )


def committed(state: TaskState, store: Any) -> None:
    changes = state.changes()
    store.write(changes.values, changes.timers_gone, changes.timers_new, StoreMeta())
    state.committed()


@settings(max_examples=400)
@given(STEPS, st.sampled_from([1, 2, 100]), st.sampled_from([1, 256]))
def test_equals_a_dictionary(steps: list[tuple[str, bytes, int, int]], cache: int, forgotten_at_once: int) -> None:
    overlay.FORGOTTEN_AT_ONCE = forgotten_at_once
    reading_ahead(cache)
    store = MemoryStores().open(0)
    state = opened(store, cache)
    running: dict[bytes, tuple[list[int], int]] = {}
    kept: dict[bytes, tuple[list[int], int]] = {}
    for what, key, number, wake in steps:
        if what == "put":
            state.put(key, [number], wake)
            running[key] = ([number], wake)
        elif what == "grow":
            value = state.get(key)
            assert value == (running[key][0] if key in running else None)
            if value is not None:
                value.append(number)
                state.put(key, value, wake)
                running[key] = (list(value), wake)
        elif what == "ahead":
            # Another value comes to the key that is asked for, and to another one: it may have been read by then.
            for one in state.ahead(b"", [b"a", b"ab", b"b", b"ba", b"c"]):
                assert state.get(one) == (running[one][0] if one in running else None)
                for changed in {key, one}:
                    state.put(changed, [number], wake)
                    running[changed] = ([number], wake)
        elif what == "delete":
            state.delete(key)
            running.pop(key, None)
        elif what == "commit":
            committed(state, store)
            kept = {k: (list(v), w) for k, (v, w) in running.items()}
        elif what == "rest":
            overlay.AWAKE = 1
            state.rest(b"")
            state.rest(b"a")
        elif what == "abort":
            state.drop()
            running = {k: (list(v), w) for k, (v, w) in kept.items()}
        elif what == "reopen":
            state = opened(store, cache)
            running = {k: (list(v), w) for k, (v, w) in kept.items()}
        if what != "look":
            # Looking loads values: only some steps look, so that others meet values that were never read.
            continue
        assert dict(state.scan(b"")) == {k: v for k, (v, _) in running.items()}
        assert [k for k, _ in state.scan(b"b")] == sorted(k for k in running if k.startswith(b"b"))
        rows = sorted((w, k) for k, (_, w) in running.items() if w)
        assert state.first_wake() == (rows[0][0] if rows else None)
        for limit in (1, 2, 10):
            assert state.due(wake, limit) == [row for row in rows if row[0] <= wake][:limit]
    committed(state, store)
    # Every row that is left in the store is true, or is told to nobody.
    assert list(state.due(99, 99)) == sorted((w, k) for k, (_, w) in running.items() if w)


def test_a_value_changed_in_place_without_a_put_is_forgotten_with_the_abort() -> None:
    store = MemoryStores().open(0)
    state = opened(store, 100)
    state.put(b"a", [1])
    committed(state, store)
    value = state.get(b"a")
    assert value is not None
    value.append(2)
    state.drop()
    assert state.get(b"a") == [1]


def test_a_value_is_encoded_once_per_batch_and_decoded_once_while_it_is_cached() -> None:
    calls: list[str] = []

    def encode(key: bytes, value: Any) -> bytes:
        calls.append("encode")
        return b"%d" % value

    def decode(key: bytes, data: bytes) -> Any:
        calls.append("decode")
        return int(data)

    store = MemoryStores().open(0)
    state = TaskState(store, encode, decode, 100, 1 << 20)
    for n in range(50):
        state.put(b"a", n)
    committed(state, store)
    for _ in range(50):
        assert state.get(b"a") == 49
    assert calls == ["encode"]
    state.drop()
    for _ in range(50):
        assert state.get(b"a") == 49
    assert calls == ["encode", "decode"]


def test_the_cache_is_bounded_by_objects_and_by_bytes() -> None:
    store = MemoryStores().open(0)
    for objects, size in ((10, 1 << 20), (10_000, 200)):
        state = TaskState(store, lambda _, v: b"%d" % v, lambda _, d: int(d), objects, size)
        for n in range(200):
            state.put(b"%03d" % n, n)
            committed(state, store)
        assert state.cached <= 14


def test_much_is_not_forgotten_at_once() -> None:
    overlay.FORGOTTEN_AT_ONCE = 10
    told: list[int] = []

    def let_go(keys: Iterable[bytes]) -> None:
        told.append(len(list(keys)))

    store = MemoryStores().open(0)
    state = TaskState(store, lambda _, v: b"%d" % v, lambda _, d: int(d), 400, 1 << 30, let_go)
    for n in range(1_500):
        state.put(b"%04d" % n, n)
        if n % 7 == 0:
            committed(state, store)
            assert state.cached <= 400 + 2 * 7, "no more than there may be"
    assert sum(told) == 1_500 - state.cached
    assert max(told) <= 14, "twice what has come since the last commit"
    for n in range(1_500):
        assert state.get(b"%04d" % n) == n


def test_what_is_asked_for_while_it_is_being_forgotten_stays() -> None:
    overlay.FORGOTTEN_AT_ONCE = 1
    told: list[bytes] = []
    store = MemoryStores().open(0)
    state = TaskState(store, lambda _, v: b"%d" % v, lambda _, d: int(d), 20, 1 << 30, told.extend)
    for n in range(22):
        state.put(b"%02d" % n, n)
        committed(state, store)
    assert told == [b"00", b"01"], "the others are still here"
    loads = state.loads
    assert state.get(b"05") == 5 and state.loads == loads
    for _ in range(20):
        committed(state, store)
    assert sorted(told) == [b"%02d" % n for n in range(11) if n != 5], "all others, in the end"


def test_a_stage_is_told_what_the_cache_forgets() -> None:
    store = MemoryStores().open(0)
    kept: set[bytes] = set()
    state = TaskState(store, lambda _, v: b"%d" % v, lambda _, d: int(d), 10, 1 << 30, kept.difference_update)
    for n in range(200):
        key = b"%03d" % (n % 60)
        state.put(key, n)
        kept.add(key)
        committed(state, store)
        assert len(kept) == state.cached
    assert 5 <= len(kept) <= 14


class _Reads:
    """A store that tells what is read one by one, and what many at a time."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.one_by_one: list[bytes] = []
        self.many: list[list[bytes]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: bytes) -> bytes | None:
        self.one_by_one.append(key)
        return self._store.get(key)  # type: ignore[no-any-return]

    def reading(self, keys: list[bytes]) -> Callable[[], list[bytes | None]]:
        self.many.append(keys)
        return self._store.reading(keys)  # type: ignore[no-any-return]


def test_what_is_not_in_memory_is_read_ahead_of_what_asks_for_it() -> None:
    store = _Reads(MemoryStores().open(0))
    state = opened(store, 4)
    for number in range(0, 20, 2):
        state.put(b"a%02d" % number, [number])
    committed(state, store)
    state = opened(store, 100)
    assert state.get(b"a04") == [4]
    store.one_by_one.clear()
    reading_ahead(4)
    begun = []
    for key in state.ahead(b"a", [b"%02d" % number for number in range(20)]):
        begun.append((key, len(store.many)))
        expected = None if int(key) % 2 else [int(key)]
        assert state.get(b"a" + key) == expected == state.get(b"a" + key)
    assert store.one_by_one == []
    assert [key for keys in store.many for key in keys] == [b"a%02d" % n for n in range(20) if n != 4]
    # Four, then eight, then as many as are left, each begun while those before are taken.
    assert begun == [(b"%02d" % n, 2 if n < 4 else 3) for n in range(20)]


def test_few_are_not_read_ahead_nor_where_most_are_in_memory() -> None:
    overlay.FIRST_AHEAD, overlay.LEAST_AHEAD, overlay.MANY = 8, 4, 8
    store = _Reads(MemoryStores().open(0))
    state = opened(store, 1_000)
    keys = [b"a%02d" % number for number in range(24)]

    def visit(these: list[bytes]) -> list[int]:
        store.many.clear()
        for key in state.ahead(b"", these):
            state.put(key, [*(state.get(key) or []), 1])
        committed(state, store)
        return [len(keys) for keys in store.many]

    assert visit(keys[:7]) == [], "few are asked for"
    assert visit(keys) == [16], "of the first eight but one is missing"
    assert visit(keys) == [], "none is missing"
    assert visit([b"b%02d" % number for number in range(24)]) == [], "there was none missing before"
    assert visit([b"c%02d" % number for number in range(24)]) == [8, 16]


def test_a_row_left_behind_by_a_value_replaced_unread_is_told_to_nobody_and_goes() -> None:
    store = MemoryStores().open(0)
    state = opened(store, 100)
    state.put(b"a", [1], 5)
    state.put(b"b", [1], 7)
    committed(state, store)
    state = opened(store, 100)
    state.put(b"a", [2], 0)
    state.put(b"b", [2], 9)
    committed(state, store)
    assert list(store.timers()) == [(5, b"a"), (7, b"b"), (9, b"b")], "otherwise this tests nothing"
    assert state.first_wake() == 9
    assert state.due(99, 10) == [(9, b"b")]
    committed(state, store)
    assert list(store.timers()) == [(9, b"b")]


def test_a_row_before_all_others_is_found_after_they_were_looked_at() -> None:
    store = MemoryStores().open(0)
    state = opened(store, 100)
    state.put(b"a", [1], 5)
    committed(state, store)
    assert state.first_wake() == 5
    state.put(b"b", [1], 2)
    committed(state, store)
    assert state.first_wake() == 2
    assert state.due(9, 9) == [(2, b"b"), (5, b"a")]


def test_a_value_goes_to_rest_each_time_it_was_awake_and_not_once_it_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(overlay, "AWAKE", 0)
    told: list[tuple[bytes, bool]] = []
    store = MemoryStores().open(0)
    state = TaskState(
        store, lambda _, n: b"%d" % n, lambda _, n: int(n), 1, 1 << 20, None, lambda *one: told.append(one)
    )
    state.rest(b"a")
    for _ in range(2):
        state.put(b"a", 1)
        state.rest(b"a")
    assert (told, state.get(b"a")) == ([(b"a", False), (b"a", True)], 1)
    for key in (b"b", b"c", b"d"):
        committed(state, store)
        state.put(key, 2)
    committed(state, store)
    state.rest(b"a")
    assert len(told) == 2
