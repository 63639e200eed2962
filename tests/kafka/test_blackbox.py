"""A short world of tests/blackbox on the session's broker: what comes out is what the documentation says."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.settings import Settings
from tests.blackbox.judge import judge
from tests.blackbox.world import Size, World
from tests.kafka.deployment import Deployment


@pytest.mark.slow
def test_a_nasty_world_is_as_the_documentation_has_it(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    with Deployment(new_workspace(partitions=3), tmp_path) as deployment:
        world = World(deployment, 4, Size(people=16, events=100, kills=1, links=1, erased=1, pauses=False))
        world.play()
        verdict = judge(world)
    assert not verdict.findings, "\n".join([*world.told, *verdict.findings])
    assert verdict.counts["pairs"] > 300
    assert verdict.counts["requests"] > 20
    assert verdict.counts["histories"] > 200
    assert verdict.counts["pairs that flip just then"] < verdict.counts["pairs"] // 10
