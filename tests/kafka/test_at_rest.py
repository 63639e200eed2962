"""Whether a workspace has taken in everything, what is due by time alone included."""

import time
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, TopicPartition

from pipeline.admin import create_topics
from pipeline.runtime.kafka.rest import AtRest
from pipeline.settings import Settings
from tests.kafka.deployment import WAIT_S


def test_a_tick_that_is_still_to_be_written_is_on_its_way(new_workspace: Callable[..., Settings]) -> None:
    """A replay goes on when all is at rest: by then whoever was to end has ended."""
    settings = new_workspace(partitions=2)
    create_topics(settings)
    group = Consumer({"bootstrap.servers": str(settings.bootstrap_servers), "group.id": f"{settings.prefix}unify"})

    def keep(notes: Sequence[str]) -> None:
        changelog = settings.topic("unify-changelog")
        kept = [TopicPartition(changelog, number, 1, note) for number, note in enumerate(notes)]
        group.commit(offsets=kept, asynchronous=False)

    at_rest = AtRest(settings)

    def rests() -> bool:
        return any(at_rest() for _ in range(5))

    def comes_to_rest() -> bool:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            if rests():
                return True
        return False

    assert comes_to_rest(), "nothing is there"
    keep(["1000 900", "950 0"])
    assert not rests(), "due by what both have consumed"
    keep(["1000 980", "950 0"])
    assert comes_to_rest(), "not due until the other has consumed more"
    keep(["1000 980", "980 0"])
    assert not rests()
    keep(["1000 0", "980 0"])
    assert comes_to_rest()
    group.close()
