"""Consent is taken back under load, on a real broker, to real HTTP servers: the exit is at each destination that held
the person, nothing comes after it, and one that never held them hears nothing. How long it takes is printed."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.admin import create_topics
from pipeline.settings import Settings
from tests.contracts.webhook_receiver import Request, WebhookReceiver
from tests.kafka.deployment import Deployment

PEOPLE = 40
NAMES = ("ads", "mails", "research", "everybody")
DEFINITIONS = """
segment: visitors
when: {performed: {event: Page Viewed, within: 1h}}
---
segment: buyers
when: {performed: {event: Order Completed}}
---
destination: ads
kind: webhook
mode: audience
segments: [visitors, buyers]
profiles: [traits]
purposes: [marketing]
URL ads
---
destination: mails
kind: webhook
events: [Order Completed]
segments: [visitors, buyers]
purposes: [marketing]
channel: email
URL mails
---
destination: research
kind: webhook
mode: audience
segments: "*"
events: "*"
profiles: true
purposes: [research]
URL research
---
destination: everybody
kind: webhook
mode: audience
segments: [visitors, buyers]
URL everybody
"""


class Receiver:
    """Keeps when each delivery about whom came."""

    def __init__(self) -> None:
        self.came: list[tuple[float, str, str, str]] = []
        self._server = WebhookReceiver(self._take)
        self.url, self.close = self._server.url, self._server.close

    def _take(self, request: Request) -> Any:
        body = json.loads(request.body)
        data = body["data"]
        who = next((pair["value"] for pair in data["identifiers"] if pair["namespace"] == "user_id"), "")
        self.came.append((time.time(), who, body["type"], data.get("cause", "")))
        return 204, {}, b""

    def about(self, who: str) -> list[tuple[float, str, str]]:
        return [(at, kind, cause) for at, about, kind, cause in self.came if about == who]


@contextmanager
def load(running: Deployment) -> Iterator[list[int]]:
    """Others go on meanwhile, 200 events a second, in members and out of them."""
    done, sent = threading.Event(), [0]

    def go_on() -> None:
        while not done.wait(0.1):
            first = sent[0]
            sent[0] += 20
            running.produce(
                {
                    "type": "page",
                    "messageId": f"o-{number}",
                    "userId": f"other-{number % 500}",
                    "context": {"consent": {"marketing": number % 3 > 0}},
                }
                for number in range(first, sent[0])
            )

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield sent
    finally:
        done.set()
        thread.join()


def event(who: str, number: int, name: str = "Page Viewed", **more: Any) -> dict[str, Any]:
    return {"type": "track", "event": name, "userId": who, "messageId": f"{who}-{number}", **more}


def consent(who: str, number: int, given: bool) -> dict[str, Any]:
    return event(who, number, "Preferences", context={"consent": {"marketing": given}})


def test_a_consent_taken_back_under_load_is_told_to_whom_it_was_given_and_nothing_follows(
    new_workspace: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings, list(NAMES))
    receivers = {name: Receiver() for name in NAMES}
    text = DEFINITIONS
    for name, receiver in receivers.items():
        text = text.replace(f"URL {name}", f"url: {receiver.url}\nallow_private: true\nunsigned: true")
    people = [f"person-{number}" for number in range(PEOPLE)]
    affected = ("ads", "mails")
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify", "deliver"):
            running.start(role)
        running.apply(text)
        running.produce(
            each for who in people for each in (consent(who, 0, True), event(who, 1, context={"traits": {"n": 1}}))
        )

        def all_hold() -> bool:
            return all(
                any(kind == "segment.entered" for _, kind, _ in receivers[name].about(who))
                for name in (*affected, "everybody")
                for who in people
            )

        with load(running) as sent:
            running.wait_until(all_hold, "everybody is at each destination")
            time.sleep(1)
            revoked: dict[str, float] = {}
            for who in people:
                revoked[who] = time.time()
                running.produce([consent(who, 2, False)])
                # What follows at once may not reach anybody either.
                running.produce([event(who, 3, "Order Completed"), event(who, 4, context={"traits": {"n": 2}})])
                time.sleep(0.05)

            def left(name: str, who: str) -> list[float]:
                return [
                    at
                    for at, kind, cause in receivers[name].about(who)
                    if kind == "segment.exited" and cause == "consent"
                ]

            running.wait_until(
                lambda: all(left(name, who) for name in affected for who in people), "each exit is at each destination"
            )
            running.produce(event(who, 5, "Order Completed", context={"traits": {"n": 3}}) for who in people)
            running.wait_until(
                lambda: all(
                    sum(kind == "segment.entered" for _, kind, _ in receivers["everybody"].about(who)) == 2
                    for who in people
                ),
                "who needs no consent hears of the orders",
            )
            time.sleep(1)

        taken = {name: [left(name, who)[0] - revoked[who] for who in people] for name in affected}
        for name in affected:
            for who in people:
                about = receivers[name].about(who)
                kinds = [kind for _, kind, _ in about]
                ended = kinds.index("segment.exited")
                after = kinds[ended + 1 :]
                assert kinds.count("segment.exited") == 1 and after in ([], ["profile.deleted"]), f"{name}: {kinds}"
                assert "event" not in kinds
        assert not receivers["research"].came, "it never held anybody"
        exits = [one for one in receivers["everybody"].came if one[2] == "segment.exited"]
        assert not exits, "it asks nobody, and goes on"
    for name, times in taken.items():
        slowest, middle = max(times), statistics.median(times)
        print(
            f"{name}: {PEOPLE} revocations beside {sent[0]} other events: half after {middle * 1000:.0f} ms, "
            f"all after {slowest * 1000:.0f} ms"
        )
    for receiver in receivers.values():
        receiver.close()
