"""Whole lives, of profiles that end by themselves too, leave what must be true, at every seed."""

import os
from typing import Any

import pytest

from pipeline.records import Cause, ProfileChange, SegmentChange
from tests.simulation import checks, lives
from tests.simulation.seeds import none_fails

SEEDS = int(os.environ.get("HEADWATER_LIVES_SEEDS", "100"))
BLOCK = 50
FAILED_ONCE = (
    32_216,  # who was erased as they expired: their account went on naming them
    63_293,  # the history of a part that came after its new holder had expired counted as forgotten
)


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_the_tables_hold_together_at_every_rest(first: int) -> None:
    none_fails(lives, range(first, min(first + BLOCK, SEEDS)))


@pytest.mark.parametrize("seed", FAILED_ONCE)
def test_a_seed_that_failed_once(seed: int) -> None:
    none_fails(lives, [seed])


# ------------------------------------------------------------------------------------------------ that law (d) is heard

END = ProfileChange("p", "person", "expired", at=7, decided_at=9, cause="expired", evidence=Cause())
UNLAWFUL: list[tuple[str, dict[str, Any], str]] = [
    ("entered", {"cause": "expired", "at": 7}, "nobody enters by an end"),
    ("exited", {"cause": "expired", "at": 6}, "nothing ended so"),
    ("exited", {"cause": "erase", "at": 7}, "nothing ended so"),
    ("exited", {"cause": "expired", "at": 7, "profile_id": "other"}, "nothing ended so"),
    ("exited", {"cause": "definition", "at": 7}, "no rule ever changed"),
    ("exited", {"cause": "backfill", "at": 7}, "no rule ever changed"),
    ("exited", {"cause": "timer", "at": 10}, "before its time"),
]


def read(what: Any, **told: Any) -> lives.Tables:
    """The topics of somebody who has expired, with a change of a segment."""
    usual = {"profile_id": "p", "entity": "person", "segment": "s", "version": 1, "decided_at": 9, "sequence": 1}
    change = SegmentChange(**usual | told, change=what, evidence=Cause(), late=False, identifiers=[])
    created = ProfileChange("p", "person", "created", at=1, decided_at=1, cause="event", evidence=Cause())
    return lives.Tables({}, {}, {}, [created, END], [change])


@pytest.mark.parametrize(("what", "told", "words"), UNLAWFUL)
def test_a_change_without_a_reason_is_heard(what: str, told: dict[str, Any], words: str) -> None:
    with pytest.raises(checks.Violation, match=f"^d: .*{words}"):
        lives.check_lives(read(what, **told), changes_of_rules=0)


@pytest.mark.parametrize(
    "told", [{"cause": "expired", "at": 7}, {"cause": "expired", "at": 8}, {"cause": "timer", "at": 9}]
)
def test_a_change_with_a_reason_is_not(told: dict[str, Any]) -> None:
    lives.check_lives(read("exited", **told), changes_of_rules=0)
    lives.check_lives(read("exited", cause="definition", at=7), changes_of_rules=1)
