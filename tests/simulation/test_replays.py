"""A replay into another number of partitions, under other rules, ends with what these give, at every seed."""

import os

import pytest

from tests.simulation import replays
from tests.simulation.seeds import none_fails
from tests.simulation.wiring import NEVER_DAYS

SEEDS = int(os.environ.get("HEADWATER_REPLAY_SEEDS", "75"))
BLOCK = 25


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_the_new_workspace_is_what_its_rules_make_of_everything(first: int) -> None:
    none_fails(replays, range(first, min(first + BLOCK, SEEDS)))


@pytest.mark.parametrize("seed", [500004, 500013, 500019])
def test_subscribers_of_accounts_come_over(seed: int) -> None:
    assert replays.try_seed(seed, expires=False) is None


@pytest.mark.parametrize("seed", [39, 71, 206, 261])
def test_nobody_expires_before_what_had_happened_by_then_is_taken_in(seed: int) -> None:
    assert replays.expires_after(seed) != NEVER_DAYS
    assert replays.try_seed(seed) is None


@pytest.mark.parametrize("seed", [154, 6934, 7279, 960000920, 960001257, 960001418, 960002981, 970000389])
def test_replays_that_failed_once(seed: int) -> None:
    assert replays.try_seed(seed, with_accounts=False, expires=False) is None
