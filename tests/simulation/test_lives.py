"""Whole lives, of profiles that end by themselves too, leave what must be true, at every seed."""

import os

import pytest

from tests.simulation import lives
from tests.simulation.seeds import none_fails

SEEDS = int(os.environ.get("HEADWATER_LIVES_SEEDS", "200"))
BLOCK = 50
FAILED_ONCE = (
    32_216,  # who was erased as they expired: their account went on naming them
    63_293,  # the history of a part that came after its new holder had expired counted as forgotten
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_the_tables_hold_together_at_every_rest(first: int) -> None:
    none_fails(lives, range(first, min(first + BLOCK, SEEDS)))


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once(seed: int) -> None:
    none_fails(lives, [seed])
