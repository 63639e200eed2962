"""Links, merges, unlinks, releases and erasures in random order leave what must be true, at every seed."""

import os

import pytest

from tests.simulation import erasures
from tests.simulation.seeds import none_fails

SEEDS = int(os.environ.get("HEADWATER_ERASURE_SEEDS", "200"))
BLOCK = 100
FAILED_ONCE = (
    997_002_451,  # a consent let in an identifier that was erased after it
    997_001_708,  # a fragment was on its way to somebody who was erased: its former holder went on naming them
    997_002_605,  # the same
    998_000_334,  # what had not come yet passed for what had come before the erasure
    998_001_062,  # burying who was known anew by then lost two events
)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_whoever_was_erased_was_never_there_and_everybody_else_is(first: int) -> None:
    none_fails(erasures, range(first, min(first + BLOCK, SEEDS)))


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once(seed: int) -> None:
    none_fails(erasures, [seed])
