"""The judge of the attack from outside: who must lead somewhere, and what the collector writes into an event."""

import json
import random
from typing import Any

import pytest

from tests.blackbox.collected import BROWSER, ROBOT, Door
from tests.blackbox.judge import Output, Verdict, _who_is_who
from tests.blackbox.people import Known, Sent, World

WEAK, STRONG = "phone:1", "email:a"


@pytest.mark.parametrize(
    ("ids", "groups", "found"),
    [
        ({STRONG: "p"}, [{WEAK}, {STRONG}], []),
        ({WEAK: "q"}, [{WEAK}, {STRONG}], ["['email:a'] are one, but lead to [('email:a', None)]"]),
        ({STRONG: "p"}, [{WEAK, STRONG}], ["['email:a', 'phone:1'] are one, but lead to"]),
        ({}, [{WEAK, STRONG}], ["['email:a', 'phone:1'] are one, but lead to"]),
        ({WEAK: "p", STRONG: "p"}, [{WEAK}, {STRONG}], ["are two, but both are p"]),
    ],
    ids=["never linked", "has an event", "linked", "nobody leads", "two"],
)
def test_who_is_who(ids: dict[str, str], groups: list[set[str]], found: list[str]) -> None:
    """The one event is that of the stronger one."""
    truth = World(events={frozenset(group): [Sent(1, b"", "")] if STRONG in group else [] for group in groups})
    truth.people = dict.fromkeys(truth.events)  # type: ignore[arg-type]  # nobody looks at what they did
    verdict = Verdict()
    _who_is_who(verdict, Known(), truth, ids, Output(0, 0, {}, {}, {}, [], [], []))
    assert len(verdict.findings) == len(found)
    assert all(text in finding for text, finding in zip(found, verdict.findings, strict=True)), verdict.findings


@pytest.mark.parametrize(
    ("stated", "agent", "written"),
    [
        ({}, ROBOT, {"userAgent": ROBOT, "bot": True}),
        ({"userAgent": BROWSER}, ROBOT, {"userAgent": BROWSER}),
        ({"userAgent": ROBOT, "bot": True}, BROWSER, {"userAgent": ROBOT, "bot": True}),
    ],
    ids=["the caller's", "a robot sends a browser's once more", "a browser sends a robot's once more"],
)
def test_the_user_agent_that_an_event_states_stands(
    monkeypatch: pytest.MonkeyPatch, stated: dict[str, Any], agent: str, written: dict[str, Any]
) -> None:
    monkeypatch.setattr(Door, "__post_init__", lambda door: None)
    nobody: Any = None
    sent = Sent(7, json.dumps({"type": "track", "event": "A", "messageId": "m", "context": stated}).encode(), "ada")
    Door(nobody, random.Random(1))._body(sent, agent)
    assert sent.context == {"tag": 7, **written}
