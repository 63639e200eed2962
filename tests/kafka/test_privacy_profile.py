"""Somebody who is known only by a spelling of before a normaliser changed, on a real broker: exported and forgotten by
their profile, and what comes of them later does not bring them back, however it is spelled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

CARD, EVE = "loyalty:AB-1", "user_id:eve"


def bought(number: int, **identifiers: str) -> dict[str, Any]:
    return {"type": "track", "event": "Bought", "messageId": f"m{number}", "identifiers": identifiers}


def test_who_is_known_by_a_spelling_of_before_is_exported_and_forgotten_by_their_profile(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    keys = Keys(settings.secret_bytes())
    profile_id = keys.profile_id(CARD)
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify", "privacy"):
            running.start(role)

        def shown() -> set[str]:
            found = [one for one in running.table("profiles").values() if one is not None]
            return {f"{each['namespace']}:{each['value']}" for one in found for each in one["identifiers"]}

        def receipts() -> dict[str, dict[str, Any]]:
            return running.table("privacy-receipts")

        running.produce([bought(1, loyalty="AB-1"), bought(2, user_id="eve")])
        running.wait_until(lambda: shown() == {CARD, EVE}, "the profiles")
        running.apply("identity: {namespaces: {loyalty: {normaliser: lower}}}\n")
        running.command("profile", profile_id)
        assert profile_id in running.command("profile", CARD).stdout, "as it is printed on the card"
        running.command("privacy", "export", CARD, "--to", str(tmp_path / "card"))
        export = json.loads((tmp_path / "card" / "export.json").read_text())
        assert export["identifiers"] == [CARD] and [one["message_id"] for one in export["events"]] == ["m1"]
        assert [json.loads(one["value"])["messageId"] for one in export["sources"]["raw"]] == ["m1"]
        assert [one["action"] for one in export["audit"]] == ["looked_up", "looked_up"]

        done = running.command("privacy", "erase", profile_id, "--wait", "150").stdout
        request_id = done.split()[1]
        receipt = receipts()[request_id]
        assert (receipt["state"], receipt["subject"]) == ("done", keys.actor(CARD).decode())
        assert profile_id not in running.table("profiles")

        def spelled() -> list[dict[str, Any]]:
            return [one for name, one in receipts().items() if name.startswith(f"{request_id}-")]

        running.wait_until(lambda: [one["state"] for one in spelled()] == ["done"], "the spelling of today")
        assert spelled()[0]["subject"] == keys.actor("loyalty:ab-1").decode()
        # The same event from a file, a late one, and somebody else's that carries the card.
        late = [bought(1, loyalty="AB-1"), bought(3, loyalty="ab-1"), bought(4, user_id="eve", loyalty="AB-1")]
        running.produce(late)

        def bought_by_eve() -> bool:
            found = running.table("profiles").get(keys.profile_id(EVE))
            return found is not None and found["totals"]["Bought"]["count"] == 2

        running.wait_until(bought_by_eve, "Eve's")
        assert shown() == {EVE}
