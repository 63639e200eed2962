"""Somebody is erased while a destination is dead: what waits there about them does not go out when it is back."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.contracts.webhook_receiver import WebhookReceiver
from tests.kafka.deployment import Deployment
from tests.kafka.test_api import view

DEFINITIONS = """
segment: readers
when: {performed: {event: Page Viewed}}
---
destination: dead
kind: http
mode: audience
segments: "*"
profiles: true
events: "*"
url: URL/told
body: {action: "{action}", who: "{identifiers.user_id}"}
erase: {url: "URL/delete/{identifiers.user_id}", method: POST}
allow_private: true
delivery: {first_retry: 1s, longest_retry: 1s}
"""


def test_what_waits_for_a_dead_destination_is_overtaken_by_the_erasure(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings, ["dead"])
    receiver = WebhookReceiver(lambda request: (503, {}, b"down"))
    try:
        with Deployment(settings, tmp_path) as running:
            roles = {role: running.start(role) for role in ("ingest", "identity", "unify", "deliver", "privacy")}
            running.apply(DEFINITIONS.replace("URL", receiver.url.rstrip("/")))
            running.produce([view(who, messageId=f"{who}{n}") for who in ("ada", "bob") for n in range(5)])
            running.wait_until(lambda: len(receiver.refused) >= 2, "it is tried")
            explain = ("explain", "user_id:bob", "--destination", "dead", "--json")

            def became() -> set[str]:
                return {one["state"] for one in json.loads(running.command(*explain).stdout)["history"]}

            assert became() == {"waits"}
            erased = running.command("privacy", "erase", "user_id:ada", "--wait", "120")
            assert "destination dead" in erased.stdout and "waiting" in erased.stdout
            # Another process knows it too, and reads the queue from where the dead one had come.
            roles["deliver"].kill()
            receiver.answer = lambda request: (200, {}, b"")
            running.start("deliver")
            running.wait_until(lambda: any("/delete/" in one.path for one in receiver.requests), "the request")
            running.wait_until(
                lambda: sum(b"bob" in one.body for one in receiver.requests) == 7, "all of the other one"
            )
            running.wait_until(lambda: became() == {"delivered"}, "what is committed is said to have arrived")
            with pytest.raises(AssertionError, match="was erased at"):
                running.command("explain", "user_id:ada", "--destination", "dead")
            told = [json.loads(one.body) for one in receiver.requests if one.path.endswith("/told")]
            assert {one["action"] for one in told if one.get("who") == "ada"} <= {"segment_exited", "profile_deleted"}
            assert [one.path.rpartition("/")[2] for one in receiver.requests if "/delete/" in one.path] == ["ada"]

            def states() -> dict[str, str]:
                [receipt] = running.table("privacy-receipts").values()
                return {entry["store"]: entry["state"] for entry in receipt["stores"]}

            running.wait_until(lambda: states()["destination dead"] == "done", "the receipt says so")
    finally:
        receiver.close()
