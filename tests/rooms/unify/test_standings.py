"""How a profile stands is kept with its actor: what becomes of it under another release."""

import pytest

from pipeline.unify.actor import ACTORS
from tests.rooms.unify.harness import DAY, HOUR, NOON, World
from tests.rooms.unify.test_cases import ANN, RECENT, SEEDS


@pytest.mark.parametrize("seed", SEEDS)
def test_what_was_kept_by_another_release_is_judged_anew_and_may_be_due_before_its_entry_in_the_time_index(
    seed: int,
) -> None:
    one = World((RECENT,), seed)
    one.send(ANN)
    one.rest(1)
    for _, state, _ in one.tasks[1:]:
        state.lose_caches()
        for key in [key for key in state.values if key.startswith(ACTORS)]:
            state.values[key].standing = b"of another release"
            state.values[key].wake = state.wakes[key] = NOON + 30 * DAY
    one.send(ANN, at=2 * HOUR, event="Searched")
    one.rest(3 * HOUR)
    assert [(told.change, told.at, told.cause) for told in one.segment_changes("recent")] == [
        ("entered", NOON, "event"),
        ("exited", NOON + HOUR, "timer"),
    ]
    one.check()
