"""Rules that change in mid-stream end with the members of rules that were always there, at every seed."""

import os

import pytest

from tests.simulation import rules_change
from tests.simulation.seeds import none_fails

SEEDS = int(os.environ.get("HEADWATER_RULES_CHANGE_SEEDS", "60"))
BLOCK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_members_are_those_of_rules_that_were_always_there(first: int) -> None:
    none_fails(rules_change, range(first, min(first + BLOCK, SEEDS)))


def test_rules_that_failed_once() -> None:
    assert rules_change.try_seed(960002121, with_accounts=False, with_identity=False) is None
    # History was read when nothing of the fragment was there, for it was on its way back: it went nowhere.
    assert rules_change.try_seed(80407933036077) is None


@pytest.mark.parametrize(
    "seed",
    [
        300074,  # between a marker and its ready, a group event named an account by the rules of before
        300077,  # the same
        981001460,  # somebody who had moved away was let go before an instant at which the new rules were judged
        300720,  # people who ask for a paused segment of accounts were answered by the members it kept
    ],
)
def test_rules_about_accounts_that_failed_once(seed: int) -> None:
    assert rules_change.try_seed(seed, with_identity=False) is None
