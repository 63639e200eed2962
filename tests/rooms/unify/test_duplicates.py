"""A message is a duplicate if the same was received within 24 h of it, in whatever order they come."""

import random

import pytest

from pipeline.unify import dedup
from tests.rooms.unify.harness import DAY, HOUR, NOON, World
from tests.rooms.unify.test_cases import ANN


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_duplicates_are_those_within_a_day_of_any(seed: int, paged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if paged:
        monkeypatch.setattr(dedup, "INLINE", 2)
        monkeypatch.setattr(dedup, "PAGE", 2)
        monkeypatch.setattr(dedup, "ASKED_ONE_BY_ONE", 1)
    rng = random.Random(seed)
    world = World((), seed, partitions=1)
    taken: list[tuple[str, int]] = []
    for _ in range(20):
        received, message = NOON + 40 * HOUR - rng.choice((0, 1, 10, 30)) * HOUR + rng.randint(0, 3), rng.choice("abc")
        world.send(ANN, at=received - NOON, message_id=message)
        if not any(one == message and abs(received - at) <= DAY for one, at in taken):
            taken.append((message, received))
    world.rest(50 * HOUR)
    assert world.totals(ANN) == {"Page Viewed": len(taken)}
