"""Who has nothing here for a moment, because all of it is on its way, has not expired."""

import pytest

from pipeline.records import Unlink
from tests.rooms.unify.harness import NOON, SECOND, World, id_of
from tests.rooms.unify.test_cases import ANN, MAIL, QUIET, RECENT, TAB


@pytest.mark.parametrize("other", [MAIL, TAB])
@pytest.mark.parametrize("seed", range(60))
def test_a_link_and_its_undoing_in_quick_succession(seed: int, other: str) -> None:
    world = World((RECENT, QUIET), seed)
    world.send(other)
    world.send(ANN)
    world.rest(SECOND)
    for at in (2 * SECOND, 6 * SECOND, 10 * SECOND):
        world.send(ANN, other, at=at)
        world.work(world.rng.choice((1, 2, 3)))
        world.operate(Unlink(ANN, NOON + at + SECOND, other))
        world.send(other, at=at + 2 * SECOND)
        world.work(world.rng.choice((1, 2, 3, 5)))
        world.send(other, at=at + 3 * SECOND)
        world.work(world.rng.choice((1, 3, 5, 9)))
    world.rest(30 * SECOND)
    assert "expired" not in [one.change for one in world.profile_changes()]
    assert world.profile(other).profile_id == id_of(other)
    assert world.totals(other) == {"Page Viewed": 7}
    world.check()
