"""A short campaign of `make destinations`: one dead, one slow, one flapping, and a worker that is killed."""

from collections.abc import Callable
from pathlib import Path

from pipeline.settings import Settings
from tests.destinations.campaign import campaign


def test_beside_dead_slow_and_flapping_ones_nothing_is_lost_and_order_holds(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    campaign(new_workspace(partitions=3), tmp_path, kills=1, per_life=800, seed=7)
