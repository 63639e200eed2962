"""Workers of unify were away: what others of them forward, late, was received in time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

WITHIN_S = 5
LEFT_BEHIND = f"""
segment: left_behind
when:
  sequence:
    steps: [{{event: Cart Viewed}}, {{not: {{event: Order Completed}}, within: {WITHIN_S}s}}]
"""
BUYERS, OTHERS = [f"buyer-{number}" for number in range(24)], ["other-0", "other-1"]


def track(event: str, **who: str) -> dict[str, Any]:
    return {"type": "track", "event": event, "messageId": f"m{time.monotonic_ns()}", **who}


def browser(person: str) -> str:
    return f"browser-of-{person}"


def test_who_bought_under_another_identifier_while_workers_were_away_never_entered(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=4)
    create_topics(settings)
    with Deployment(settings, tmp_path) as deployment:
        for role in ("ingest", "identity"):
            deployment.start(role)
        workers = [deployment.start("unify", slot=slot) for slot in ("0", "1")]
        deployment.apply(LEFT_BEHIND)
        deployment.produce(track("Page Viewed", userId=one, anonymousId=browser(one)) for one in BUYERS)
        deployment.wait_until_idle()
        deployment.produce(track("Cart Viewed", userId=one) for one in (*BUYERS, *OTHERS))
        deployment.wait_until_idle()
        for worker in workers:
            worker.kill()
        deployment.produce(track("Order Completed", anonymousId=browser(one)) for one in BUYERS)
        until = time.monotonic() + WITHIN_S + 1
        while time.monotonic() < until:
            deployment.produce(track("Page Viewed", userId=f"passer-by-{number}") for number in range(50))
            time.sleep(0.5)
        deployment.start("unify", slot="0")
        # Meanwhile the first has read all of its own, and the deadlines of these partitions have passed.
        time.sleep(3)
        deployment.start("unify", slot="1")
        deployment.wait_until(lambda: len(deployment.values("segment-changes")) >= len(OTHERS), "who has not bought")
        deployment.wait_until_idle()
        changes = deployment.values("segment-changes")
    keys = Keys(settings.secret_bytes())
    assert {each["profile_id"] for each in changes} == {keys.profile_id(f"user_id:{one}") for one in OTHERS}
    assert [each["change"] for each in changes] == ["entered"] * len(OTHERS)


def test_a_worker_that_is_stopped_past_its_session_keeps_its_stores_and_the_others_go_on(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    """All have one state folder, as on one machine. Before, whoever got its partitions ended over its stores, again and
    again, until it went on."""
    settings = new_workspace(partitions=4)
    create_topics(settings)
    people = [f"user-{number}" for number in range(100)]
    with Deployment(settings, tmp_path) as deployment:
        for role in ("ingest", "identity"):
            deployment.start(role)
        workers = [deployment.start("unify", slot=slot) for slot in ("0", "1")]

        def visits() -> list[int]:
            return [each["totals"]["Page Viewed"]["count"] for each in deployment.table("profiles").values()]

        deployment.produce(track("Page Viewed", userId=one) for one in people)
        deployment.wait_until(lambda: visits() == [1] * 100, "all have been seen")
        workers[0].pause()
        deployment.produce(track("Page Viewed", userId=one) for one in people)
        deployment.wait_until(lambda: visits() == [2] * 100, "the other worker has all", 60)
        workers[0].resume()
        deployment.produce(track("Page Viewed", userId=one) for one in people)
        deployment.wait_until(lambda: visits() == [3] * 100, "both are there")
        deployment.wait_until_idle()
        changes = deployment.values("profile-changes")
        assert [worker.process.poll() for worker in workers] == [None, None]
    assert len(changes) == 300
