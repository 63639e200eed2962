"""A short campaign of `python -m tests.attack.collector`: what was acknowledged is there, and counts once."""

from pathlib import Path

import pytest

from tests.attack.collector import Attack


@pytest.mark.slow
def test_what_was_acknowledged_counts_once_after_kills(tmp_path: Path) -> None:
    attack = Attack(tmp_path, seed=3)
    try:
        verdict = attack.run(5, with_sdks=False)  # of seed 3: one of each kind but the pause
    finally:
        attack.close()
    assert verdict.wrong == []
    assert len(verdict.faults) == 4 and verdict.acknowledged > 100
