"""Case 59 on a real broker: a source topic is deleted and made again while ingest runs, and grows past the position it
had. Nothing of the new topic is skipped, and nothing is taken for a duplicate of what stood there before."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.admin import admin_client, create_topics
from pipeline.settings import Settings
from tests.contracts.clients import recreate_topic
from tests.kafka.deployment import Deployment, Role


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    settings = new_workspace(partitions=1)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        running.start("identity")
        running.start("unify")
        yield running


def seen(count: int) -> Iterator[dict[str, Any]]:
    """Events without a messageId: named after where they stand."""
    for number in range(count):
        yield {"type": "track", "event": "Seen", "userId": f"u{number % 4}", "properties": {"number": number}}


def totals(deployment: Deployment) -> Counter[str]:
    return Counter(
        {
            profile["identifiers"][0]["value"]: profile["totals"]["Seen"]["count"]
            for profile in deployment.table("profiles").values()
        }
    )


def test_case_59_a_source_made_again_under_a_running_ingest(deployment: Deployment) -> None:
    ingest = deployment.start("ingest")
    deployment.produce(seen(40))
    deployment.wait_until(lambda: totals(deployment).total() == 40, "the events of the former topic")
    # Paused, so that the new topic has grown past its position when it looks again.
    ingest.pause()
    recreate_topic(admin_client(deployment.settings), deployment.settings.topic("raw"), 1)
    deployment.produce(seen(100))
    ingest.resume()

    def all_of_both() -> bool:
        nonlocal ingest
        if ingest.process.poll() is not None:
            ingest = again(deployment, ingest)
        return totals(deployment).total() >= 140

    deployment.wait_until(all_of_both, "the events of both")
    deployment.wait_until_idle()
    assert totals(deployment) == Counter({f"u{n}": 35 for n in range(4)})
    numbers = Counter(event["properties"]["number"] for event in deployment.values("events") if "properties" in event)
    assert set(numbers) == set(range(100)), "records of the new topic were skipped"


def again(deployment: Deployment, ended: Role) -> Role:
    """What a supervisor does; its last word was about the topic."""
    assert "raw was deleted and made again" in ended.log.read_text(errors="replace"), ended.log.read_text()[-2_000:]
    return deployment.start("ingest")
