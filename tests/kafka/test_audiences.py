"""A small campaign of `make audiences`: what triggers must not hear, and that audiences equal the members."""

from collections.abc import Callable
from pathlib import Path

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.audiences.campaign import FILE, TRIGGER, Size, campaign
from tests.kafka.deployment import Deployment


def test_a_trigger_hears_of_moments_only_and_an_audience_ends_with_the_members(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings, [TRIGGER, FILE])
    with Deployment(settings, tmp_path) as running:
        causes = campaign(running, Size(members=300, logins=60, edits=False), database=None)
    # There was something that it must not hear, of each kind.
    for what in ("entered by backfill", "entered by merge, continuing", "entered by split", "exited by merge"):
        assert any(one.startswith(what) for one in causes), causes
