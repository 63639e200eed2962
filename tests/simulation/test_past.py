"""Features as of a past time are those of a deployment that was stopped then, at every seed."""

import pytest

from tests.simulation import past

BLOCK = 40


@pytest.mark.parametrize("first", range(0, 120, BLOCK))
def test_features_as_of_a_time_are_those_of_a_deployment_stopped_then(first: int) -> None:
    for seed in range(first, first + BLOCK):
        failure = past.try_seed(seed)
        assert failure is None, f"{failure}\n    python -m tests.simulation.past --seeds 1 --first {seed}"
