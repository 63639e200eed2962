"""Features as of a past time are those of a deployment that was stopped then, at every seed."""

import pytest

from tests.simulation import past
from tests.simulation.seeds import none_fails

BLOCK = 30
# What was taken back, and decided again by a clock that was behind.
FAILED_ONCE = (977_206, 977_349)


@pytest.mark.parametrize("first", range(0, 60, BLOCK))
def test_features_as_of_a_time_are_those_of_a_deployment_stopped_then(first: int) -> None:
    none_fails(past, range(first, first + BLOCK))


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once(seed: int) -> None:
    none_fails(past, [seed])
