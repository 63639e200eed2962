"""Tests wait until a deployment is idle: what a broker does not say for a moment fails none of them."""

from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.runtime.kafka.doors import GroupPositions
from pipeline.settings import Settings
from tests.kafka import deployment
from tests.kafka.deployment import Deployment


class Positions(GroupPositions):
    """A broker that has no leaders to tell of until it is asked for the fifth time; then something still waits."""

    def __init__(self, _: Settings) -> None:
        self.asked = 0

    def __call__(self, groups: Any) -> dict[str, tuple[int, int]]:
        self.asked += 1
        if self.asked < 5:
            raise KafkaException(KafkaError(KafkaError._NOENT, "No leaders found"))
        return dict.fromkeys(groups, (min(self.asked, 8), 8))


def test_a_broker_without_leaders_is_neither_idle_nor_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[Positions] = []

    def positions(settings: Settings) -> Positions:
        made.append(Positions(settings))
        return made[0]

    monkeypatch.setattr(deployment, "GroupPositions", positions)
    monkeypatch.setattr(Deployment, "_waits", lambda self: False)
    with Deployment(Settings(secret="the secret of a test"), tmp_path) as running:
        running.wait_until_idle(10)
    assert made[0].asked > 8
