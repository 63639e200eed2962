"""Rules that change in mid-stream end with the members of rules that were always there, at every seed."""

import os

import pytest

from tests.simulation import rules_change

SEEDS = int(os.environ.get("HEADWATER_RULES_CHANGE_SEEDS", "120"))
BLOCK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_members_are_those_of_rules_that_were_always_there(first: int) -> None:
    for seed in range(first, min(first + BLOCK, SEEDS)):
        failure = rules_change.try_seed(seed)
        assert failure is None, failure


def test_rules_that_failed_once() -> None:
    assert rules_change.try_seed(960002121) is None
