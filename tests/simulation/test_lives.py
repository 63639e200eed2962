"""Whole lives, of profiles that end by themselves too, leave what must be true, at every seed."""

import os

import pytest

from tests.simulation import lives

SEEDS = int(os.environ.get("HEADWATER_LIVES_SEEDS", "200"))
BLOCK = 50
FAILED_ONCE = (
    32_216,  # who was erased as they expired: their account went on naming them
    63_293,  # the history of a part that came after its new holder had expired counted as forgotten
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_the_tables_hold_together_at_every_rest(first: int) -> None:
    for seed in range(first, min(first + BLOCK, SEEDS)):
        failure = lives.try_seed(seed)
        assert failure is None, f"{failure}\n  python -m tests.simulation.lives --seeds 1 --first {seed}"


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once(seed: int) -> None:
    failure = lives.try_seed(seed)
    assert failure is None, failure
