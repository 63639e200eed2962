"""The collector between batches: what is in a cycle goes while it is young, and nothing runs by itself."""

import gc
import time
import weakref
from collections.abc import Iterator

import pytest

from pipeline.runtime import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


class Ring:
    def __init__(self) -> None:
        self.self = self


def test_young_cycles_go_and_the_answer_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    answers = [False, False, True]
    over = garbage.collecting_between(lambda: answers.pop(0))
    assert not gc.isenabled()
    ring = weakref.ref(Ring())
    assert over() is False
    assert ring() is not None, "collected before the pause was over"
    now = 6.0
    assert over() is False
    assert ring() is None
    assert over() is True


def test_many_new_objects_are_set_aside_unseen_while_no_walk_finds_a_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(garbage, "_MOST_OBJECTS", 1_000)
    over = garbage.collecting_between(lambda: False)
    kept = [[number] for number in range(900)]
    over()
    assert gc.get_count()[0] > 800, "set aside at once"
    kept += [[number] for number in range(900)]
    over()
    assert gc.get_count()[0] < 100, "walked over later"
    now = 6.0
    late = weakref.ref(Ring())
    over()
    assert late() is None and len(kept) == 1_800, "the latest objects are walked over with every pause"


def test_once_a_walk_has_found_a_cycle_all_objects_are_walked_over_until_none_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 6.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(garbage, "_MOST_OBJECTS", 1_000)
    over = garbage.collecting_between(lambda: False)
    now = 12.0
    Ring()
    over()
    ring = weakref.ref(Ring())
    kept = [[number] for number in range(1_100)]
    over()
    assert ring() is None
    now = 18.0
    over()
    now = 24.0
    over()
    kept += [[number] for number in range(1_100)]
    unseen = weakref.ref(Ring())
    over()
    assert unseen() is not None and len(kept) == 2_200


def test_what_the_walks_of_a_pause_have_found_counts_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 6.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(garbage, "_MOST_OBJECTS", 1_000)
    over = garbage.collecting_between(lambda: False)
    kept = []

    def is_seen() -> bool:
        """Whether a cycle among a great number of objects goes."""
        ring = weakref.ref(Ring())
        kept.extend([number] for number in range(1_100))
        over()
        return ring() is None

    now = 12.0
    Ring()
    over()
    assert is_seen()
    now = 18.0
    over()
    assert is_seen(), "a walk of the pause had found a cycle, though the one at its end found none"
    now = 24.0
    over()
    assert is_seen()
    now = 30.0
    over()
    now = 36.0
    over()
    assert not is_seen(), "a pause has passed in which no walk found any"
    assert len(kept) == 4_400


def test_the_pause_grows_with_what_a_walk_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    walk = gc.collect

    def slow_walk(generation: int = 2) -> int:
        nonlocal now
        now += 0.25
        return walk(generation)

    over = garbage.collecting_between(lambda: False)
    monkeypatch.setattr(gc, "collect", slow_walk)
    now = 6.0
    over()
    ring = weakref.ref(Ring())
    now = 31.0
    over()
    assert ring() is not None, "a walk of 0.25 s, and the next one within 25 s"
    now = 31.5
    over()
    assert ring() is None


def test_while_held_nothing_is_collected_and_then_nothing_of_before_is_walked_over() -> None:
    garbage.hold()
    ring = weakref.ref(Ring())
    kept = [Ring() for _ in range(10)]
    for _ in range(100_000):
        kept.append([])  # type: ignore[arg-type]
        kept.pop()
    assert not gc.isenabled() and ring() is not None
    garbage.begin()
    assert gc.isenabled() and ring() is None
    assert gc.get_freeze_count() > len(kept)
    young = weakref.ref(Ring())
    gc.collect()
    assert young() is None, "what comes later is collected"
