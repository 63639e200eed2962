"""Some hundreds of seeds of every kind, and all that ever failed. More by `make simulate SEEDS=N FIRST=M`."""

import os

import pytest

from tests.simulation import deciding, pairs, run

SEEDS = int(os.environ.get("HEADWATER_SIMULATION_SEEDS", "400"))
BLOCK = 50


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_worlds(first: int) -> None:
    failures = run.run_seeds(range(first, first + BLOCK), most_failures=3)
    assert not failures, "\n".join(f"{one.detail}\n  {one.command()}" for one in failures)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", run.known_seeds())
def test_worlds_that_failed_once(seed: int) -> None:
    failure = run.try_seed(seed)
    assert failure is None, f"{failure.detail}\n  {failure.command()}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_the_identity_stage_decides_as_the_oracle(first: int) -> None:
    for seed in range(first, first + 250):
        detail = deciding.try_seed(seed)
        assert detail is None, f"{detail}\n  python -m tests.simulation.deciding --seeds 1 --first {seed}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, 300, 50))
def test_segments_are_those_of_the_naive_evaluator(first: int) -> None:
    for seed in range(first, first + 50):
        detail = pairs.try_pair(seed)
        assert detail is None, f"{detail}\n  python -m tests.simulation.pairs --seeds 1 --first {seed}"
