"""`headwater features export --as-of`: what a deployment had when it was stopped, whatever came later."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

DEFINITIONS = """
computed: views
compute: {function: count, event: Page Viewed, within: 7d}
---
segment: buyer
when: {performed: {event: Order Completed}}
---
segment: warm
entity: account
when: {members: {match: {performed: {event: Page Viewed, within: 7d}}, at_least: 2}}
---
segment: of_a_warm_one
when: {account: {in_segment: warm}}
---
accounts: default
"""


def exported(running: Deployment, at: str, entity: str) -> list[dict[str, Any]]:
    out = running.folder / f"{entity}.parquet"
    running.command("features", "export", "--as-of", at, "--entity", entity, "--out", str(out))
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(out).to_pylist()
    return rows


def test_features_are_those_of_a_deployment_stopped_then(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify"):
            running.start(role)
        running.apply(DEFINITIONS)
        views = [{"type": "page", "anonymousId": f"a-{n % 6}", "messageId": f"v-{n}"} for n in range(40)]
        logins = [
            {"type": "identify", "anonymousId": f"a-{n}", "userId": f"u-{n // 2}", "messageId": f"l-{n}"}
            | {"traits": {"email": f"u{n // 2}@acme.example"}}
            for n in range(4)
        ]
        orders = [{"type": "track", "event": "Order Completed", "userId": "u-0", "messageId": "o-0"}]
        running.produce([*views, *logins, *orders])
        running.wait_until(lambda: _is_whole(running.table("profiles"), 4), "four people, two of them of an account")
        running.wait_until_idle()
        stopped = running.table("profiles")
        as_of = str(time.time_ns() // 1_000_000)
        time.sleep(0.01)
        # What comes later: a merge of two people, more views, an order, somebody who was nobody yet.
        later = [
            {"type": "identify", "anonymousId": "a-4", "userId": "u-0", "messageId": "m-1"},
            {"type": "page", "userId": "u-1", "messageId": "m-2"},
            {"type": "track", "event": "Order Completed", "userId": "u-1", "messageId": "m-3"},
            {"type": "page", "userId": "u-9", "messageId": "m-4"},
        ]
        running.produce(later)
        running.wait_until(lambda: _is_whole(running.table("profiles"), 4, orders=2), "what came later")
        people = {row["profile_id"]: row for row in exported(running, as_of, "person")}
        accounts = exported(running, as_of, "account")
    of_people = {one: document for one, document in stopped.items() if document["entity"] == "person"}
    assert people.keys() == of_people.keys()
    assert sum(row["segment.of_a_warm_one"] for row in people.values()) == 2
    for profile_id, document in of_people.items():
        row = people[profile_id]
        assert row["computed.views"] == document["computed"]["views"]
        for name in ("buyer", "of_a_warm_one"):
            assert row[f"segment.{name}"] is (name in document.get("segments", {}))
        assert row["count.Page Viewed"] == document["totals"]["Page Viewed"]["count"]
        assert row["trait.email"] == document.get("traits", {}).get("email")
    [account] = accounts
    assert (account["identifier.account"], account["computed.people"], account["segment.warm"]) == (
        "acme.example",
        2,
        True,
    )


def _is_whole(profiles: dict[str, Any], people: int, orders: int = 1) -> bool:
    """Whether everything that was sent has come: so many people, and an account with two of them."""
    found = [one for one in profiles.values() if one["entity"] == "person"]
    bought = sum("Order Completed" in one["totals"] for one in found)
    counts = [one["computed"]["people"] for one in profiles.values() if one["entity"] == "account"]
    return len(found) == people and bought == orders and counts == [2]
