"""kill -9 in full flow: what a read_committed consumer sees is what an undisturbed run shows."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.records import Event, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings
from tests.kafka.checker import Topics, by_profile, check, read_topics
from tests.kafka.deployment import Deployment

SEGMENTS = """
segment: buyers
when: {performed: {event: Bought, within: 365d}}
---
segment: regulars
when: {performed: {event: Bought, count: {at_least: 3}, within: 365d}}
---
segment: browsers
when: {all: [{performed: {event: Seen, count: {at_least: 2}}}, {not: {performed: {event: Bought}}}]}
---
segment: pros
when: {trait: {plan: pro}}
"""
PEOPLE = 400
EVENTS = 12_000
HOUR = 3_600_000


def clean_events(seed: int, begin: int, linked: bool) -> Iterator[Event]:
    """Events as ingest would write them. With `linked`, every fourth person also has a cookie, and logs in at times."""
    random_ = random.Random(seed)
    for number in range(EVENTS):
        person = random_.randrange(PEOPLE)
        user, cookie = f"user_id:u{person}", f"anonymous_id:c{person}"
        name = random_.choice(["Seen", "Seen", "Bought"])
        identifiers = [user]
        if linked and person % 4 == 0:
            identifiers = random_.choice([[cookie], [user], [user, cookie]])
        traits = {"plan": random_.choice(["free", "pro"])} if random_.random() < 0.1 else {}
        time_ms = begin + number * 10 - random_.choice([0, 0, 0, 50_000])
        yield Event(f"m-{number}", "track", name, identifiers, time_ms, begin + number * 10, traits=traits)


@pytest.fixture
def twins(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[tuple[Deployment, Deployment]]:
    """Two deployments that differ in their prefix only."""
    with ExitStack() as stack:
        pair = []
        for name in ("undisturbed", "disturbed"):
            settings = new_workspace(partitions=2)
            create_topics(settings)
            (tmp_path / name).mkdir()
            pair.append(stack.enter_context(Deployment(settings, tmp_path / name)))
        yield pair[0], pair[1]


def feed(deployment: Deployment, events: Iterator[Event]) -> None:
    keys = Keys(deployment.settings.secret_bytes())
    produce_all(deployment.settings, "events", ((keys.actor(e.identifiers[0]), encode(e)) for e in events))


def run(deployment: Deployment, events: Iterator[Event], kills: int, seed: int) -> Topics:
    """Run identity and unify over the events; kill -9 the unify worker so many times on the way."""
    deployment.apply(SEGMENTS)
    deployment.start("identity")
    unify = deployment.start("unify")
    feed(deployment, events)
    random_ = random.Random(seed)
    for _ in range(kills):
        time.sleep(random_.uniform(0.5, 2.5))
        unify.kill()
        unify = deployment.start("unify")
    deployment.wait_until_idle(300)
    assert unify.process.poll() is None
    return read_topics(deployment)


def told(change: dict[str, Any]) -> dict[str, Any]:
    """A change but for the task's clock, which other people's messages move."""
    return {name: value for name, value in change.items() if name != "decided_at"}


@pytest.mark.slow
@pytest.mark.parametrize("linked", [False, True], ids=["one identifier each", "with logins"])
def test_killed_in_full_flow_and_nothing_is_lost_or_doubled(twins: tuple[Deployment, Deployment], linked: bool) -> None:
    undisturbed, disturbed = twins
    # After any wall-clock time that definitions bring in, so that the events alone move the clock.
    begin = int(time.time() * 1000) + HOUR
    expected = run(undisturbed, clean_events(7, begin, linked), kills=0, seed=1)
    actual = run(disturbed, clean_events(7, begin, linked), kills=5, seed=1)
    check(expected)
    check(actual)
    assert actual.profiles == expected.profiles
    assert actual.identities.keys() == expected.identities.keys()
    assert {pair: row["segment"] for pair, row in actual.members.items()} == {
        pair: row["segment"] for pair, row in expected.members.items()
    }
    alone = {profile_id for profile_id, profile in expected.profiles.items() if profile["identifiers_total"] == 1}
    assert len(alone) >= PEOPLE // 2
    before, after = by_profile(expected.segment_changes), by_profile(actual.segment_changes)
    for profile_id in alone:
        if linked:
            assert list(map(told, after.get(profile_id, []))) == list(map(told, before.get(profile_id, [])))
        else:
            assert after.get(profile_id) == before.get(profile_id)
    assert sum(p["totals"].get("Bought", {"count": 0})["count"] for p in actual.profiles.values()) > EVENTS // 4
