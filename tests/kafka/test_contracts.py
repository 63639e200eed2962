"""A contract inferred from the sample shop, broken on purpose: it catches exactly the broken events; after a fix they
are replayed, and end where they belong."""

import json
from collections.abc import Callable
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.sample import raw_events
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

SAMPLE = Path(__file__).parents[2] / "deploy" / "sample" / "cdnow.csv.gz"
COMPUTED = """
---
computed: last_total
compute: {function: last, of: properties.total, event: Order Completed}
---
computed: orders
compute: {function: count, event: Order Completed}
"""


def wounded(number: int, event: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The event, broken in one of several ways, and the field that is wrong then."""
    properties = dict(event["properties"])
    kind = number % 4
    if kind == 0:
        properties["total"] = f"{properties['total']} USD"
    elif kind == 1:
        del properties["currency"]
    elif kind == 2:
        properties["quantity"] = 1.5
    else:
        properties["quantity"] = None
    return {**event, "properties": properties}, ("total", "currency", "quantity", "quantity")[kind]


def test_exactly_the_broken_events_are_caught_and_a_replay_puts_them_right(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    events = [json.loads(value) for _, value in islice(raw_events(SAMPLE, date(2026, 11, 20)), 600)]
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    broken = {number: wounded(number, events[number]) for number in range(0, 600, 37)}
    sent = [broken[number][0] if number in broken else event for number, event in enumerate(events)]

    settings = new_workspace(partitions=2)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        inferred = running.command(
            "contracts", "infer", "--events", str(tmp_path / "good.jsonl"), "--name", "shop"
        ).stdout
        strict = yaml.safe_load(inferred) | {"on_violation": "reject"}
        for role in ("ingest", "identity", "unify"):
            running.start(role)
        running.apply(yaml.safe_dump(strict) + COMPUTED)
        running.produce(sent)
        running.wait_until(
            lambda: len(running.values("dead-letters")) + len(shop_events(running)) == len(sent), "all is decided"
        )
        letters = running.values("dead-letters")
        assert {(letter["topic"], letter["reason"]) for letter in letters} == {("raw", "contract_violation")}
        refused = {json.loads(_decoded(letter["value"]))["messageId"]: letter["pointer"] for letter in letters}
        assert refused == {events[number]["messageId"]: f"/properties/{field}" for number, (_, field) in broken.items()}
        assert {event["contract"] for event in shop_events(running)} == {"shop/1"}

        # The fix: what the shop really sends is allowed.
        mended = strict
        order = mended["events"]["Order Completed"]
        order["required"] = []
        order["properties"]["total"] = {"type": ["number", "string"]}
        order["properties"]["quantity"] = {"type": ["number", "null"]}
        running.apply(yaml.safe_dump(mended))
        running.command("dead-letters", "replay", "--reason", "contract_violation")
        running.wait_until(lambda: len(shop_events(running)) == len(sent), "every event is there")
        assert len(running.values("dead-letters")) == len(broken), "none is refused again"
        again = {event["message_id"]: event for event in shop_events(running) if event["contract"] == "shop/2"}
        assert set(again) == set(refused)

        keys = Keys(settings.secret_bytes())
        expected = {
            keys.profile_id(f"user_id:{user}"): (sum(each["userId"] == user for each in sent), last_total(sent, user))
            for user in {event["userId"] for event in sent}
        }

        def computed() -> dict[str, tuple[Any, Any]]:
            profiles = running.table("profiles").items()
            return {
                key: (profile["computed"].get("orders"), profile["computed"].get("last_total"))
                for key, profile in profiles
            }

        # The last total is that of the last order in event time, not of what came last.
        running.wait_until(lambda: computed() == expected, "profiles as if nothing had ever been refused")


def shop_events(running: Deployment) -> list[dict[str, Any]]:
    return [value for value in running.values("events") if value["kind"] == "event"]


def last_total(events: list[dict[str, Any]], user: str) -> Any:
    own = [event for event in events if event["userId"] == user]
    return max(own, key=lambda event: event["timestamp"])["properties"]["total"]


def _decoded(text: str) -> bytes:
    import base64

    return base64.b64decode(text)
