"""The rules of what may leave, one case per line."""

from typing import Any

import pytest

from pipeline.activation import HOUR_MS, ActivationPlan, Destination
from pipeline.records import (
    Cause,
    Event,
    IdentifierPair,
    ProfileChange,
    ProfileDocument,
    SegmentChange,
    SegmentMember,
)

NOW = 1_800_000_000_000
ADA = [IdentifierPair("user_id", "ada")]


def change(**changed: Any) -> SegmentChange:
    fields: dict[str, Any] = dict(
        profile_id="p1",
        entity="person",
        segment="trial",
        version=1,
        change="entered",
        at=NOW,
        decided_at=NOW,
        sequence=1,
        cause="event",
        evidence=Cause("m1", 0, 7),
        late=False,
        identifiers=ADA,
    )
    return SegmentChange(**{**fields, **changed})


def profile_change(**changed: Any) -> ProfileChange:
    fields: dict[str, Any] = dict(
        profile_id="p1",
        entity="person",
        change="updated",
        at=NOW,
        decided_at=NOW,
        cause="event",
        evidence=Cause("m1", 0, 7),
        set={"traits": {"plan": "pro"}},
    )
    return ProfileChange(**{**fields, **changed})


def document(**changed: Any) -> ProfileDocument:
    fields: dict[str, Any] = dict(profile_id="p1", entity="person", identifiers=ADA, identifiers_total=1)
    return ProfileDocument(**{**fields, **changed})


TRIGGER = Destination(name="hook", kind="webhook", mode="trigger", segments=None)
AUDIENCE = Destination(name="list", kind="file", mode="audience", segments=None)

# change, does a trigger get it, does an audience get it
SEGMENT_CASES = [
    ("an entry", change(), True, True),
    ("an exit", change(change="exited"), True, True),
    ("a timer", change(change="exited", cause="timer"), True, True),
    ("a backfill", change(cause="backfill"), False, True),
    ("a new definition", change(cause="definition"), False, True),
    ("a split", change(cause="split"), False, True),
    ("a merge that makes 2 + 1 = 3", change(cause="merge"), True, True),
    ("a merge that only continues", change(cause="merge", continues=["p0"]), False, True),
    ("an exit into another profile", change(change="exited", cause="merge", moved_to="p2"), False, True),
    ("an exit by a merged purchase", change(change="exited", cause="merge"), True, True),
    ("just within the max age", change(at=NOW - HOUR_MS), True, True),
    ("just past the max age", change(at=NOW - HOUR_MS - 1), False, True),
    ("an erased person", change(change="exited", cause="erase"), True, True),
]


@pytest.mark.parametrize(("name", "case", "trigger", "audience"), SEGMENT_CASES, ids=[c[0] for c in SEGMENT_CASES])
def test_segment_changes(name: str, case: SegmentChange, trigger: bool, audience: bool) -> None:
    decided = {d.destination for d in ActivationPlan((TRIGGER, AUDIENCE)).for_segment_change(case)}
    assert decided == {n for n, takes in (("hook", trigger), ("list", audience)) if takes}


FILTER_CASES = [
    ("named segment", Destination("d", "webhook", segments=frozenset({"trial"})), True),
    ("another segment", Destination("d", "webhook", segments=frozenset({"other"})), False),
    ("no segments", Destination("d", "webhook"), False),
    ("entries only", Destination("d", "webhook", segments=None, changes=frozenset({"entered"})), True),
    ("exits only", Destination("d", "webhook", segments=None, changes=frozenset({"exited"})), False),
    ("accounts only", Destination("d", "webhook", segments=None, entity="account"), False),
    ("people only", Destination("d", "webhook", segments=None, entity="person"), True),
    ("paused: it waits in the topic", Destination("d", "webhook", segments=None, paused=True), True),
    ("longer max age", Destination("d", "webhook", segments=None, max_age_ms=2 * HOUR_MS), True),
]


@pytest.mark.parametrize(("name", "destination", "expected"), FILTER_CASES, ids=[c[0] for c in FILTER_CASES])
def test_filters(name: str, destination: Destination, expected: bool) -> None:
    assert bool(ActivationPlan((destination,)).for_segment_change(change())) is expected


PROFILE_CASES = [
    ("a trait", profile_change(), True, True),
    ("only totals", profile_change(set={"totals": {"A": {"count": 1}}, "last_seen": NOW}), False, False),
    ("a removed trait", profile_change(set={}, unset={"traits": ["plan"]}), True, True),
    ("a list emptied", profile_change(set={"accounts": []}), True, True),
    ("merged away", profile_change(change="merged", set={}, cause="merge", into="p2"), False, True),
    ("split off", profile_change(change="split", cause="split"), False, True),
    ("by a backfill", profile_change(cause="backfill"), False, True),
    ("created", profile_change(change="created"), True, True),
    ("erased", profile_change(change="erased", set={}, cause="erase"), True, True),
    ("too old", profile_change(at=NOW - HOUR_MS - 1), False, True),
]


@pytest.mark.parametrize(("name", "case", "trigger", "audience"), PROFILE_CASES, ids=[c[0] for c in PROFILE_CASES])
def test_profile_changes(name: str, case: ProfileChange, trigger: bool, audience: bool) -> None:
    sections = frozenset({"traits", "accounts", "identifiers"})
    plan = ActivationPlan(
        (
            Destination("hook", "webhook", profile_sections=sections),
            Destination("list", "file", mode="audience", profile_sections=sections),
        )
    )
    decided = {d.destination for d in plan.for_profile_change(case, document)}
    assert decided == {n for n, takes in (("hook", trigger), ("list", audience)) if takes}


def test_profile_changes_carry_only_the_named_traits() -> None:
    plan = ActivationPlan((Destination("d", "webhook", profile_sections=frozenset({"traits"}), traits=("plan",)),))
    [delivery] = plan.for_profile_change(profile_change(set={"traits": {"plan": "pro", "salary": 3}}), document)
    assert delivery.body["set"] == {"traits": {"plan": "pro"}}
    assert delivery.identifiers == ADA
    assert plan.for_profile_change(profile_change(set={"traits": {"salary": 3}}), document) == []
    assert plan.for_profile_change(profile_change(set={}, unset={"traits": ["salary"]}), document) == []


def test_segment_changes_carry_the_named_traits_and_nothing_else() -> None:
    plan = ActivationPlan((Destination("d", "webhook", segments=None, traits=("email", "orders", "absent")),))
    known = document(traits={"email": "a@b.c", "salary": 3}, computed={"orders": 2})
    [delivery] = plan.for_segment_change(change(), lambda: known)
    assert delivery.body["traits"] == {"email": "a@b.c", "orders": 2}


def test_the_profile_is_asked_for_only_when_needed() -> None:
    def never() -> ProfileDocument:
        raise AssertionError("asked")

    assert ActivationPlan((TRIGGER, AUDIENCE)).for_segment_change(change(), never)


CONSENT_CASES = [
    ("granted", {"ads": True}, True),
    ("granted in words", {"ads": "granted"}, True),
    ("granted, with detail", {"ads": {"granted": True, "time": 1}}, True),
    ("denied", {"ads": False}, False),
    ("denied, with detail", {"ads": {"granted": False}}, False),
    ("unclear", {"ads": "perhaps"}, False),
    ("never asked", {}, False),
]


@pytest.mark.parametrize(("name", "consents", "expected"), CONSENT_CASES, ids=[c[0] for c in CONSENT_CASES])
def test_consent(name: str, consents: dict[str, Any], expected: bool) -> None:
    plan = ActivationPlan((Destination("d", "webhook", mode="audience", segments=None, purposes=("ads",)),))
    profile = lambda: document(consents=consents)  # noqa: E731
    assert bool(plan.for_segment_change(change(), profile)) is expected
    # What takes a person out always passes.
    assert plan.for_segment_change(change(change="exited", cause="consent"), profile)


def test_delivery_ids_are_stable_and_tell_changes_apart() -> None:
    plan = ActivationPlan((TRIGGER, AUDIENCE))
    first = [d.delivery_id for d in plan.for_segment_change(change())]
    # Who holds the change, or how late it was decided, does not make another delivery of it.
    again = [d.delivery_id for d in plan.for_segment_change(change(decided_at=NOW + 1, identifiers=[]))]
    others = [
        d.delivery_id
        for other in (change(sequence=2), change(segment="x"), change(profile_id="p2"))
        for d in plan.for_segment_change(other)
    ]
    assert first == again
    assert len({*first, *others}) == 8


def test_events_are_forwarded_by_name_and_not_when_old() -> None:
    plan = ActivationPlan(
        (
            Destination("hook", "webhook", events=("Order Completed",)),
            Destination("all", "file", mode="audience", events=("*",)),
        )
    )
    event = Event("m1", "track", "Order Completed", ["user_id:ada"], NOW, NOW, "raw/0/1", {"total": 3})
    assert plan.wants_event("Order Completed") and plan.wants_event("Anything")
    both = plan.for_event(event, "p1", ADA, NOW)
    assert {d.destination for d in both} == {"hook", "all"}
    assert both[0].action == "event" and both[0].body["properties"] == {"total": 3}
    late = plan.for_event(event, "p1", ADA, NOW + HOUR_MS + 1)
    assert {d.destination for d in late} == {"all"}
    assert not ActivationPlan().wants_event("Order Completed")


def test_an_audience_learns_again_of_a_membership_under_the_id_it_knows() -> None:
    plan = ActivationPlan(
        (
            TRIGGER,
            AUDIENCE,
            Destination("asked", "file", mode="audience", segments=None, purposes=("ads",)),
            Destination("other", "file", mode="audience", segments=frozenset({"other"})),
            Destination("leavers", "file", mode="audience", segments=None, changes=frozenset({"exited"})),
        )
    )
    live = {d.destination: d for d in plan.for_segment_change(change(sequence=3), document)}
    member = SegmentMember("trial", "p1", "person", version=1, since=NOW, sequence=3)
    again = plan.for_member("list", member, NOW + 5, document)
    assert again is not None and again.delivery_id == live["list"].delivery_id
    assert (again.cause, again.at, again.action) == ("sync", NOW, "segment_entered")
    for name in ("hook", "asked", "other", "leavers", "absent"):
        assert plan.for_member(name, member, NOW, document) is None
    assert plan.for_member("asked", member, NOW, lambda: document(consents={"ads": True})) is not None
