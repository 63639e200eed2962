"""Whole lives, of profiles that end by themselves too, leave what must be true, at every seed."""

import os

import pytest

from tests.simulation import lives

SEEDS = int(os.environ.get("HEADWATER_LIVES_SEEDS", "200"))
BLOCK = 50


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_the_tables_hold_together_at_every_rest(first: int) -> None:
    for seed in range(first, min(first + BLOCK, SEEDS)):
        failure = lives.try_seed(seed)
        assert failure is None, f"{failure}\n  python -m tests.simulation.lives --seeds 1 --first {seed}"
