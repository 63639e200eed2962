"""What of people's data leaves to a destination, and in which form: one case per line."""

from hashlib import sha256
from typing import Any

import pytest

from pipeline.activation import ActivationPlan, DataRules, Destination, Fields, Rule
from pipeline.records import Event, IdentifierPair, ProfileDocument
from tests.rooms.activation.test_activation import NOW, change, document, profile_change

PII = Rule(frozenset({"pii"}))
WARRANTY = Rule(purposes=frozenset({"warranty"}))
DATA = DataRules(
    events={"Warranty Registered": WARRANTY, "Order Completed": Rule()},
    parts={
        ("Order Completed", "properties"): Fields(
            said={("to", "email"): PII, ("lines", "*", "note"): PII, ("serial",): WARRANTY}
        )
    },
    traits=Fields(Rule(), {("email",): PII, ("serial",): WARRANTY}, apart=True),
    computed={"claims": WARRANTY},
    segments={"owners": WARRANTY, "known": PII},
)
ORDER = Event(
    message_id="m1",
    type="track",
    event="Order Completed",
    identifiers=["user_id:ada"],
    time=NOW,
    received=NOW,
    properties={
        "total": 9,
        "serial": "X1",
        "to": {"email": "ada@example.org", "city": "Lima"},
        "lines": [{"sku": "a", "note": "for Ada"}, {"sku": "b"}],
    },
    context={"ip": "203.0.113.9"},
)
KNOWN = [IdentifierPair("user_id", "ada"), IdentifierPair("email", "ada@example.org")]
PERSON: dict[str, Any] = {
    "identifiers": KNOWN,
    "traits": {"email": "Ada@Example.org ", "plan": "pro", "serial": "X1", "phones": ["0170 1", None]},
    "computed": {"claims": 2, "orders": 3},
}
EVERYTHING = frozenset({"identifiers", "traits", "computed", "segments"})


def to(data: DataRules = DATA, **fields: Any) -> ActivationPlan:
    return ActivationPlan((Destination("d", "webhook", mode="audience", **fields),), data=data)


def person() -> ProfileDocument:
    return document(**PERSON)


def test_a_destination_gets_what_has_no_label_and_no_purpose_but_its_own() -> None:
    [one] = to(segments=None, traits=("email", "plan", "serial", "claims", "orders")).for_segment_change(
        change(identifiers=KNOWN), person
    )
    assert one.body["traits"] == {"plan": "pro", "orders": 3}
    assert one.identifiers == [IdentifierPair("user_id", "ada")], "an address is as the trait of that name"


def test_with_the_label_and_the_purpose_it_gets_that_too() -> None:
    fields: dict[str, Any] = {"labels": frozenset({"pii"}), "traits": ("email", "plan", "serial", "claims")}
    both = ActivationPlan((Destination("d", "webhook", segments=None, purposes=("warranty",), **fields),), data=DATA)
    consents = {"consents": {"warranty": True}}
    [one] = both.for_segment_change(change(identifiers=KNOWN), lambda: document(**PERSON, **consents))
    assert one.body["traits"] == {"email": "Ada@Example.org ", "plan": "pro", "serial": "X1", "claims": 2}
    assert one.identifiers == KNOWN


def test_of_an_event_the_parts_it_may_have_leave_whatever_they_are_in() -> None:
    [one] = to(events=("*",)).for_event(ORDER, "p1", KNOWN, NOW, person)
    assert one.body["properties"] == {"total": 9, "to": {"city": "Lima"}, "lines": [{"sku": "a"}, {"sku": "b"}]}
    assert ORDER.properties["to"]["email"] and ORDER.properties["lines"][0]["note"], "the event itself stays as it is"


def test_an_event_that_was_collected_for_something_else_does_not_leave() -> None:
    warranty = Event("m2", "track", "Warranty Registered", ["user_id:ada"], NOW, NOW)
    assert to(events=("*",)).for_event(warranty, "p1", KNOWN, NOW, person) == []


@pytest.mark.parametrize(("segment", "leaves"), [("owners", False), ("known", False), ("buyers", True)])
def test_who_is_in_a_segment_is_known_by_what_its_rule_looks_at(segment: str, leaves: bool) -> None:
    plan = to(segments=None)
    assert bool(plan.for_segment_change(change(segment=segment), person)) is leaves
    mirror = to(profile_sections=EVERYTHING)
    there = mirror.for_profile_change(profile_change(set={"segments": {segment: {}}}), person)
    gone = mirror.for_profile_change(profile_change(set={}, unset={"segments": [segment]}), person)
    assert bool(there) is bool(gone) is leaves


def test_not_even_the_name_of_a_trait_that_was_taken_back() -> None:
    mirror = to(profile_sections=EVERYTHING)
    [one] = mirror.for_profile_change(profile_change(set={}, unset={"traits": ["email", "plan"]}), person)
    assert one.body["unset"] == {"traits": ["plan"]}


def test_fields_are_hashed_masked_and_dropped() -> None:
    transforms = (
        ("context.ip", "mask"),
        ("identifiers.email", "sha256"),
        ("identifiers.user_id", "drop"),
        ("properties.lines.*.sku", "drop"),
        ("properties.to.city", "sha256"),
        ("traits.email", "sha256"),
        ("traits.orders", "mask"),
        ("traits.phones", "sha256"),
        ("traits.plan", "drop"),
    )
    fields: dict[str, Any] = {"segments": None, "events": ("*",), "transforms": transforms, "data": DataRules()}
    plan = to(traits=("email", "orders", "phones", "plan"), **fields)
    hashed = lambda text: sha256(text.encode()).hexdigest()  # noqa: E731
    [one] = plan.for_segment_change(change(identifiers=KNOWN), person)
    assert one.identifiers == [IdentifierPair("email", hashed("ada@example.org"))]
    assert one.body["traits"] == {
        "email": hashed("ada@example.org"),
        "orders": "*",
        "phones": [hashed("0170 1"), None],
    }
    [event] = plan.for_event(ORDER, "p1", KNOWN, NOW, person)
    assert event.body["context"] == {"ip": "*********.9"}
    assert event.body["properties"]["to"] == {"email": "ada@example.org", "city": hashed("lima")}
    assert event.body["properties"]["lines"] == [{"note": "for Ada"}, {}]


def test_what_several_contracts_say_counts_together() -> None:
    one = Fields(Rule(), {("a",): Rule(frozenset({"pii"}), frozenset({"x", "y"}))})
    other = Fields(Rule(purposes=frozenset({"y", "z"})))
    assert one.joined(other).outer(("a",)) == Rule(frozenset({"pii"}), frozenset({"y"}))
    assert one.joined(other).outer(("b",)) == Rule(frozenset(), frozenset({"y", "z"}))


def test_what_stands_inside_says_more_than_what_it_is_in() -> None:
    fields = Fields(Rule(purposes=frozenset({"x"})), {("a",): PII, ("a", "b"): WARRANTY})
    assert fields.outer(("a",)) == Rule(frozenset({"pii"}), frozenset({"x"}))
    assert fields.outer(("a", "b")) == Rule(frozenset({"pii"}), frozenset({"warranty"}))
    assert fields.whole(("a",)) == Rule(frozenset({"pii"}), frozenset())
