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


def test_many_new_objects_do_not_wait_for_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(garbage, "_MOST_OBJECTS", 1_000)
    over = garbage.collecting_between(lambda: False)
    ring = weakref.ref(Ring())
    kept = [[number] for number in range(900)]
    over()
    assert ring() is not None, "collected at once"
    kept += [[number] for number in range(900)]
    over()
    assert ring() is None and len(kept) == 1_800
