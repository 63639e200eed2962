"""What a destination said itself is not said to it again: a CRM that is synced both ways hears no echo."""

from typing import Any

import pytest

from pipeline.activation import ActivationPlan, Destination
from pipeline.records import Delivery, Event, IdentifierPair
from tests.rooms.activation.test_activation import ADA, NOW, document, profile_change

CRM = Destination("crm", "webhook", mode="audience", profile_sections=frozenset({"traits", "computed", "identifiers"}))
SYNCED = Destination(
    "crm",
    "webhook",
    mode="audience",
    profile_sections=CRM.profile_sections,
    events=("*",),
    own_sources=frozenset({"crm_changes"}),
)


def said(traits: dict[str, Any] | None = None, source: str = "crm_changes/0/7", **more: Any) -> Event:
    return Event("m1", "identify", "Identify", ["user_id:ada"], NOW, NOW, source, traits=traits or {}, **more)


def told(event: Event, destination: Destination = SYNCED, **change: Any) -> list[Delivery]:
    plan = ActivationPlan((destination,))
    return plan.for_profile_change(profile_change(**change), document, "crm_changes/0/7", said=event)


PRO = {"traits": {"plan": "pro"}}


@pytest.mark.parametrize(
    ("event", "change", "left"),
    [
        (said({"plan": "pro"}), {"set": PRO}, None),  # the echo itself
        (said({"plan": "pro"}, origin="crm_changes", source="raw/0/1"), {"set": PRO}, None),  # by a write key
        (said({"plan": "pro"}, source="/crm_changes/0/7"), {"set": PRO}, None),  # by a topic outside of the workspace
        (said({"plan": "pro"}, source="raw/0/1"), {"set": PRO}, PRO),  # somebody else said it
        (said({"plan": "free"}), {"set": PRO}, PRO),  # it said something else, and did not prevail
        (said({}), {"set": PRO}, PRO),  # it did not say this
        (said({"plan": "pro"}), {"set": {**PRO, "computed": {"n": 2}}}, {"computed": {"n": 2}}),  # what follows is news
        (said({"plan": "pro"}), {"set": {"traits": {"plan": "pro", "vip": True}}}, {"traits": {"vip": True}}),
        (said({"plan": "pro"}), {"set": {**PRO, "identifiers": ADA}, "change": "created"}, None),  # a contact of theirs
        (
            said({"plan": "pro"}),
            {"set": {"identifiers": [*ADA, IdentifierPair("email", "a@x.io")]}},
            {"identifiers": [*ADA, IdentifierPair("email", "a@x.io")]},
        ),
    ],
)
def test_of_a_change_it_made_it_hears_what_it_did_not_say(
    event: Event, change: dict[str, Any], left: dict[str, Any] | None
) -> None:
    deliveries = told(event, **change)
    assert [one.body.get("set") for one in deliveries] == ([] if left is None else [left])


def test_what_is_taken_away_is_said_whoever_did_it() -> None:
    [one] = told(said({"plan": "pro"}), set=PRO, unset={"traits": ["vip"]})
    assert one.body == {"entity": "person", "change": "updated", "unset": {"traits": ["vip"]}}


def test_without_own_sources_everything_is_said() -> None:
    assert len(told(said({"plan": "pro"}), CRM, set=PRO)) == 1


@pytest.mark.parametrize(
    ("event", "leaves"),
    [
        (said(), False),
        (said(source="raw/0/1"), True),
        (said(source="raw/0/1", context={"origin": {"destination": "crm"}}), False),
        (said(source="raw/0/1", context={"origin": {"destination": "mails"}}), True),
        (said(source="raw/0/1", context={"origin": "crm"}), True),
    ],
)
def test_its_own_events_are_not_passed_on_to_it(event: Event, leaves: bool) -> None:
    assert bool(ActivationPlan((SYNCED,)).for_event(event, "p1", ADA, NOW, document)) is leaves
