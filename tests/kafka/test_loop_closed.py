"""On a real broker: what became of deliveries comes back as events with their origin, and a CRM that is synced both
ways hears no echo."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.contracts.webhook_receiver import WebhookReceiver
from tests.kafka.deployment import Deployment

DEFINITIONS = """
segment: trial
when: {performed: {event: Trial Started}}
---
segment: reminded
when: {performed: {event: Delivery Succeeded, where: {properties.destination: mails}}}
---
segment: unreachable
when: {performed: {event: Delivery Failed, where: {properties.reason: rejected}}}
---
destination: mails
kind: webhook
segments: [trial]
outcomes: true
URL
---
destination: crm
kind: webhook
mode: audience
segments: [reminded]
profiles: [traits]
events: "*"
own_sources: [crm_changes]
outcomes: true
URL
"""


def test_outcomes_come_back_and_nothing_echoes(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = new_workspace(partitions=2, sources=("raw", "crm_changes"))
    create_topics(settings, ["mails", "crm"])
    receiver = WebhookReceiver(lambda request: (422 if b'"u-2"' in request.body else 200, {}, b""))
    options = f"url: {receiver.url}\nallow_private: true\nunsigned: true"
    sources = {"HEADWATER_SOURCES": "raw,crm_changes"}
    events: list[dict[str, Any]] = [
        {
            "type": "track",
            "event": "Trial Started",
            "userId": f"u-{n}",
            "messageId": f"t-{n}",
            "context": {"traits": {"n": n}},
        }
        for n in range(4)
    ]
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify", "deliver"):
            running.start(role, **sources)
        running.apply(DEFINITIONS.replace("URL", options))
        running.produce(events)
        # The CRM's own change, and one that somebody else makes of the same person.
        running.produce([_traits("u-1", "plan", "pro", "c-1")], "crm_changes")
        running.wait_until(lambda: len(running.members("reminded")) == 3, "three know that they were reminded")
        running.wait_until(lambda: len(running.members("unreachable")) == 1, "and one that could not be")
        running.produce([_traits("u-1", "size", 5, "w-1")])

        def crm() -> list[dict[str, Any]]:
            found = [json.loads(one.body) for one in list(receiver.requests)]
            return [one for one in found if one["data"].get("segment") != "trial"]

        running.wait_until(
            lambda: any('"size"' in json.dumps(one) for one in crm()), "the CRM hears of what others say"
        )
        running.wait_until_idle()
        entered = [one["data"]["profile_id"] for one in crm() if one["type"] == "segment.entered"]
        assert len(entered) == len(set(entered)) == 3
        assert not any('"plan"' in json.dumps(one) for one in crm()), "an echo"
        # Of its own deliveries it is told nothing; nobody is told of what was told.
        forwarded = [one["data"] for one in crm() if one["type"] == "event"]
        outcomes = [one for one in forwarded if one["event"].startswith("Delivery ")]
        assert outcomes and {one["properties"]["destination"] for one in outcomes} == {"mails"}
        raw = [json.loads(one.value or b"") for one in running.read("raw")]
        told = [one for one in raw if one.get("event", "").startswith("Delivery ")]
        of_outcomes = [one for one in told if one["properties"]["action"] == "event"]
        assert len(told) < 60 and len(of_outcomes) <= len(events) + 2, "it goes round and round"
        assert len({one["messageId"] for one in told}) == len(told)
    receiver.close()


def _traits(who: str, name: str, value: Any, message_id: str) -> dict[str, Any]:
    return {"type": "identify", "userId": who, "traits": {name: value}, "messageId": message_id}
