"""A rule added to a running system: its members over history are those it would always have had."""

import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment, Role

BEFORE = """
segment: seen
when: {performed: {event: Page Viewed}}
"""
NEW = """
segment: five_pricing_pages
when: {performed: {event: Page Viewed, where: {properties.path: /pricing}, count: {exactly: 5}}}
"""
PEOPLE = 200


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        running.start("ingest")
        running.start("identity")
        yield running


class Shop:
    """Visits of people on two devices, some of them sent twice, and how many pricing pages each of them saw."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.number = 0
        self.pricing: Counter[str] = Counter()

    def logins(self) -> Iterator[dict[str, Any]]:
        for person in range(PEOPLE):
            yield {**self._event("identify"), "userId": f"u{person}", "anonymousId": f"a{person}"}

    def visits(self, count: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            person, path = f"u{self.rng.randrange(PEOPLE)}", self.rng.choice(("/pricing", "/", "/docs", "/blog", "/x"))
            who = {"userId": person} if self.rng.random() < 0.5 else {"anonymousId": f"a{person[1:]}"}
            visit = {**self._event("page"), "properties": {"path": path}, **who}
            self.pricing[person] += path == "/pricing"
            yield visit
            if self.rng.random() < 0.1:
                yield visit

    def _event(self, kind: str) -> dict[str, Any]:
        self.number += 1
        return {"type": kind, "messageId": f"m-{self.number}"}

    def members(self, keys: Keys) -> set[str]:
        return {keys.profile_id(f"user_id:{person}") for person, count in self.pricing.items() if count == 5}


def keys_of(deployment: Deployment) -> Keys:
    return Keys(deployment.settings.secret_bytes())


def with_history(deployment: Deployment, shop: Shop) -> Role:
    """A running system in which people have visited before and after they logged in."""
    unify = deployment.start("unify")
    deployment.apply(BEFORE)
    deployment.produce(shop.visits(1_500))
    deployment.produce(shop.logins())
    deployment.produce(shop.visits(1_500))
    deployment.wait_until_idle(120)
    return unify


def test_a_new_segment_has_the_members_of_all_history(deployment: Deployment) -> None:
    shop = Shop(1)
    with_history(deployment, shop)
    assert shop.members(keys_of(deployment)), "the rule would be nobody's"
    deployment.apply(BEFORE + "---" + NEW)
    deployment.wait_until(lambda: deployment.members("five_pricing_pages") == shop.members(keys_of(deployment)), "all")
    deployment.wait_until_idle()
    changes = [one for one in deployment.values("segment-changes") if one["segment"] == "five_pricing_pages"]
    assert {(one["cause"], one["change"]) for one in changes} == {("backfill", "entered")}
    assert len(changes) == len(shop.members(keys_of(deployment)))

    deployment.command("segments", "pause", "five_pricing_pages")
    assert deployment.values("audit")[-1]["what"] == "pause segment/five_pricing_pages"
    deployment.wait_until_idle()
    deployment.produce(shop.visits(300))
    deployment.wait_until_idle(120)
    changes = [one for one in deployment.values("segment-changes") if one["segment"] == "five_pricing_pages"]
    assert {one["cause"] for one in changes} == {"backfill"}, "nothing is said of a paused segment"
    deployment.command("segments", "resume", "five_pricing_pages")
    deployment.wait_until(lambda: deployment.members("five_pricing_pages") == shop.members(keys_of(deployment)), "all")


def test_killed_in_mid_backfill_it_goes_on_and_counts_nothing_twice(deployment: Deployment) -> None:
    shop = Shop(2)
    with_history(deployment, shop).kill()
    definitions = deployment.folder / "new.yaml"
    definitions.write_text(BEFORE + "---" + NEW)
    deployment.command("apply", str(definitions), "--wait", "0")
    deployment.produce(shop.visits(200))
    for hit in (1, 2):
        unify = deployment.start("unify", HEADWATER_FAILPOINT=f"mid_history:{hit}")
        try:
            killed = unify.process.wait(25) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            # It had fewer slices left than that.
            killed = False
            unify.kill()
        assert killed or hit > 1, "nothing of its history was read"
    deployment.start("unify")
    deployment.wait_until(
        lambda: deployment.members("five_pricing_pages") == shop.members(keys_of(deployment)), "all of them", 120
    )
    deployment.wait_until_idle()
    assert deployment.members("five_pricing_pages") == shop.members(keys_of(deployment))
