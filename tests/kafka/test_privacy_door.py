"""Requests about people through the API, on a real broker: who is left alone leaves every destination, and returns."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.admin import create_topics
from pipeline.api.client import ApiClient
from pipeline.identifiers import Keys
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment
from tests.kafka.test_api import Api, view

DEFINITIONS = """
segment: readers
when: {performed: {event: Page Viewed}}
---
destination: kept
kind: file
segments: "*"
path: PATH
"""


def test_who_is_suppressed_leaves_every_destination_and_comes_back(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings, ["kept"])
    out = tmp_path / "kept.jsonl"
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify", "deliver", "privacy"):
            running.start(role)
        running.apply(DEFINITIONS.replace("PATH", str(out)))
        api = Api(running)
        api.start()

        def told() -> list[tuple[str, str]]:
            lines = [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []
            return [(line["action"], line.get("cause", "event")) for line in lines]

        def state(request_id: str) -> Any:
            receipt = client.get_receipt(request_id)
            return receipt and receipt["state"]

        with ApiClient(api.url, api.token) as client:
            running.produce([view("ada", messageId="1")])
            running.wait_until(lambda: told() == [("segment_entered", "event")], "the entry")
            asked = client.ask_privacy("suppress", "user_id:ada")
            running.wait_until(lambda: told()[1:] == [("segment_exited", "consent")], "the exit")
            running.produce([view("ada", messageId="2")])
            assert client.get_receipt("nothing") is None
            running.wait_until(lambda: state(asked) == "done", "the receipt")
            lifted = running.command("privacy", "suppress", "user_id:ada", "--lift", "--wait", "120")
            assert "done" in lifted.stdout
            running.wait_until(lambda: told()[2:] == [("segment_entered", "consent")], "the way back")
            rectified = client.ask_privacy("rectify", "user_id:ada", {"last_name": "Lovelace"})
            running.wait_until(lambda: state(rectified) == "done", "the receipt")

            def named() -> bool:
                found = client.get_profile("user_id:ada")
                return found is not None and "Lovelace" in str(found)

            running.wait_until(named, "the correction")
            # Nobody is made up, and nobody is let in, by a request about somebody nobody knows.
            made_up = client.ask_privacy("rectify", "user_id:eve", {"a": 1})
            lifted_up = client.ask_privacy("suppress", "user_id:eve", lift=True)
            for request in (made_up, lifted_up):
                running.wait_until(lambda request=request: state(request) == "failed", "it fails")  # type: ignore[misc]
            assert client.get_profile("user_id:eve") is None
        subject = Keys(settings.secret_bytes()).actor("user_id:ada").decode()
        done = [(one["by"], one["action"], one["subject"]) for one in running.values("audit") if one.get("request_id")]
        assert done[0] == ("test-0", "suppressed", subject) and done[2] == ("test-0", "rectified", subject)
        # As a word: it is a number too, and the ids of requests are such.
        assert not re.search(r"\bada\b", json.dumps(running.values("audit")))
