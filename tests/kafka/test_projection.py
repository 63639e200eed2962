"""A short day of `make projection`: each destination ends with the projection of the profiles."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment
from tests.projection.__main__ import open_places
from tests.projection.day import NAMES, Day


def test_each_destination_holds_the_projection_of_the_profiles_after_a_random_day(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings, list(NAMES))
    with ExitStack() as stack:
        places = open_places(stack)
        running = stack.enter_context(Deployment(settings, tmp_path))
        Day(running, places, people=60, seed=3).run(rounds=2, events=200)
