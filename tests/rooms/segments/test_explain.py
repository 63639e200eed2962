"""Why a profile is in a segment, and rules on a fixture."""

import pytest

from pipeline.at_rest import rest
from pipeline.cli._explained import tree
from pipeline.records import Event
from pipeline.segments import explain, run_fixture
from pipeline.segments.describe import describe
from tests.rooms.segments.helpers import DAY, HOUR, Profile, event, plan_of

NOW = 1_750_000_000_000
TEXT = """
segment: intent
when:
  all:
    - performed:
        event: Page Viewed
        where: {properties.path: {starts_with: /pricing}}
        count: {at_least: 3}
        within: 7d
    - not: {performed: {event: Order Completed, within: 30d}}
    - trait: {plan: free}
---
segment: spender
when: {performed: {event: Order Completed, sum: {of: properties.total, at_least: 100}, within: 30d}}
---
segment: both
when: {any: [{in_segment: intent}, {in_segment: spender}]}
"""


def test_explain_tells_values_deadlines_and_what_is_needed() -> None:
    plan = plan_of(TEXT)
    profile = Profile(plan, NOW)
    profile.set_trait("plan", "pro")
    for hours in (0, 1):
        profile.send(event("Page Viewed", NOW + hours * HOUR, path="/pricing"))
    profile.send(event("Order Completed", NOW + 2 * HOUR, total=60))
    profile.send(event("Order Completed", NOW + 3 * HOUR, total=60.5))
    tree = explain(plan, profile.facts, profile.now, "intent")
    assert not tree.true
    views, order, trait = tree.parts[0].parts
    assert (views.true, views.value, views.needed) == (False, 2, "1 more Page Viewed within 7d")
    assert views.rule == "count of Page Viewed where properties.path starts with /pricing within 7d ≥ 3"
    assert (order.rule, order.true, order.changes_at) == ("not", False, NOW + 3 * HOUR + 30 * DAY)
    assert (trait.rule, trait.value, trait.true) == ("trait plan is free", "pro", False)
    spender = explain(plan, profile.facts, profile.now, "spender").parts[0]
    # Both orders together are 120.5; when the first leaves the window, they are no longer enough.
    assert (spender.true, spender.value, spender.changes_at) == (True, 120.5, NOW + 2 * HOUR + 30 * DAY)
    both = explain(plan, profile.facts, profile.now, "both").parts[0]
    assert [part.rule for part in both.parts] == ["in segment intent", "in segment spender"]


def test_states_that_were_read_back_are_explained_like_those_in_memory() -> None:
    rule = "segment: left\nwhen: {sequence: {steps: [{event: Page Viewed}, {not: {event: Bought}, within: 2h}]}}"
    plan = plan_of(f"{TEXT}---\n{rule}\n")
    profile = Profile(plan, NOW)
    for hours in (0, 1, 5):
        profile.send(event("Page Viewed", NOW + hours * HOUR, path="/pricing"))
    profile.send(event("Order Completed", NOW + 6 * HOUR, total=120))
    for segment in ("intent", "spender", "both", "left"):
        awake = explain(plan, profile.facts, profile.now, segment)
        rest(profile.facts.leaves)
        assert explain(plan, profile.facts, profile.now, segment) == awake, segment


@pytest.mark.parametrize("segment", ["intent", "spender", "both"])
def test_explain_says_exactly_when_time_will_change_it(segment: str) -> None:
    plan = plan_of(TEXT)
    profile = Profile(plan, NOW)
    profile.set_trait("plan", "free")
    for hours in (0, 1, 5):
        profile.send(event("Page Viewed", NOW + hours * HOUR, path="/pricing"))
    for hours in (6, 30):
        profile.send(event("Order Completed", NOW + hours * HOUR, total=99))
    said = explain(plan, profile.facts, profile.now, segment).changes_at
    expected = [at for at, flips in profile.wait(NOW + 90 * DAY) if any(flip.segment == segment for flip in flips)]
    assert said == (expected[0] if expected else 0)


def test_a_fixture_plays_events_and_time() -> None:
    plan = plan_of(TEXT)
    mail, cookie = "email:a@example.com", "anonymous_id:1"
    events = [
        Event("1", "track", "Page Viewed", [cookie], NOW, NOW, properties={"path": "/pricing"}),
        Event("2", "track", "Page Viewed", [cookie], NOW + 1, NOW + 1, properties={"path": "/pricing/team"}),
        Event("3", "identify", "Identify", [mail, cookie], NOW + 2, NOW + 2, traits={"plan": "free"}),
        Event("4", "track", "Page Viewed", [mail], NOW + 3, NOW + 3, properties={"path": "/pricing"}),
        Event("5", "track", "Order Completed", ["email:b@example.com"], NOW + 4, NOW + 4, properties={"total": 500}),
    ]
    result = run_fixture(plan, events, (NOW + 2, NOW + 3, NOW + 7 * DAY, NOW + 40 * DAY))
    assert result.members[NOW + 2] == {cookie: frozenset()}
    assert result.members[NOW + 3][cookie] == {"intent", "both"}
    assert result.members[NOW + 7 * DAY] == {cookie: frozenset(), "email:b@example.com": {"spender", "both"}}
    assert result.members[NOW + 40 * DAY] == {cookie: frozenset(), "email:b@example.com": frozenset()}
    assert [(one.at - NOW, one.segment, one.entered) for one in result.changes if one.segment == "intent"] == [
        (3, "intent", True),
        (7 * DAY, "intent", False),
    ]


def test_a_fixture_tells_of_a_late_event_when_it_happened_and_nothing_before_the_last_change() -> None:
    plan = plan_of(
        "segment: curious\nwhen: {performed: {event: Page Viewed, within: 10s}}\n---\n"
        "segment: quiet\nwhen: {not: {performed: {event: Order Completed}}}"
    )
    ada = ["user_id:ada"]
    events = [
        Event("1", "track", "Page Viewed", ada, NOW, NOW + 5),
        Event("2", "track", "Page Viewed", ada, NOW + 8_000, NOW + 12_000),
        Event("3", "track", "Order Completed", ada, NOW - 7_000, NOW + 13_000),
    ]
    result = run_fixture(plan, events, [NOW + 60_000])
    assert [(one.at - NOW, one.segment, one.entered) for one in result.changes] == [
        (0, "curious", True),
        (0, "quiet", True),
        (0, "quiet", False),
        (10_000, "curious", False),
        (10_000, "curious", True),
        (18_000, "curious", False),
    ]


def test_a_fixture_has_nobody_in_it_before_their_first_event() -> None:
    plan = plan_of("segment: quiet\nwhen: {not: {performed: {event: Order Completed}}}")
    events = [
        Event("1", "track", "Page Viewed", ["user_id:a"], NOW, NOW),
        Event("2", "track", "Order Completed", ["user_id:b"], NOW + 5, NOW + 5),
        Event("3", "track", "Order Completed", ["user_id:a"], NOW + 9, NOW + 9),
    ]
    result = run_fixture(plan, events, (NOW - 1, NOW, NOW + 5, NOW + 9))
    assert result.members[NOW - 1] == {}
    assert result.members[NOW] == {"user_id:a": {"quiet"}}
    assert result.members[NOW + 5] == {"user_id:a": {"quiet"}, "user_id:b": frozenset()}
    # In production too they enter with the event that makes them known, and what is told is what members are.
    assert result.changes == ((NOW, "user_id:a", "quiet", True), (NOW + 9, "user_id:a", "quiet", False))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("{performed: {event: A, calendar: {unit: day}}}", "count of A in this day (UTC) ≥ 1"),
        (
            "{performed: {event: A, calendar: {unit: week, last: 3}}}",
            "count of A in the last 3 weeks, this one among them (UTC) ≥ 1",
        ),
        (
            "{performed: {event: A, calendar: {unit: year, current: false, time_zone: Europe/Berlin}}}",
            "count of A in the last whole year (Europe/Berlin) ≥ 1",
        ),
        (
            "{performed: {event: A, calendar: {unit: month, last: 2, current: false}}}",
            "count of A in the last 2 whole months (UTC) ≥ 1",
        ),
        ("{trait: {n: 3}}", "trait n is 3"),
        ("{trait: {n: '3'}}", 'trait n is "3"'),
        ("{trait: {n: {in: [3, '3', true, 'true', free]}}}", 'trait n is one of 3, "3", true, "true", free'),
        ("{trait: {n: ' pro'}}", 'trait n is " pro"'),
        ("{trait: {n: ''}}", 'trait n is ""'),
        (
            "{sequence: {steps: [{event: A}, {not: {event: B}, within: 1h}], by: properties.cart, grace: 5m}}",
            "sequence: A, then no B within 1h, of the same properties.cart, believed after 5m more",
        ),
        (
            "{sequence: {steps: [{event: A, by: properties.cart}, {event: B, by: properties.of}], within: 2d}}",
            "sequence: A by properties.cart, then B by properties.of, within 2d",
        ),
        (
            "{score: {events: [{event: A, weight: 1}, {event: B, weight: -2}], half_life: 7d, within: 9d, at_most: 2}}",
            "score of 1 × A + -2 × B ≤ 2, half-life 7d, within 9d",
        ),
    ],
)
def test_a_rule_reads_as_what_holds(when: str, said: str) -> None:
    plan = plan_of(f"segment: s\nwhen: {when}\n")
    assert explain(plan, Profile(plan, NOW).facts, NOW, "s").parts[0].rule == said


def test_a_value_that_is_a_text_is_told_from_a_number() -> None:
    plan = plan_of("segment: s\nwhen: {trait: {n: 3}}\n")
    profile = Profile(plan, NOW)
    profile.set_trait("n", "3")
    shown = [str(branch.label) for branch in tree(explain(plan, profile.facts, NOW, "s"), NOW).children]
    assert len(shown) == 1 and 'trait n is 3 · is [bold]"3"[/]' in shown[0]


def test_what_an_account_asks_of_its_people_is_told_in_full() -> None:
    rule = "{members: {match: {all: [{performed: {event: A}}, {not: {trait: {plan: free}}}]}, at_least: 3}}"
    plan = plan_of(f"segment: s\nentity: account\nwhen: {rule}\n").accounts
    assert plan is not None
    assert describe(plan.sources["s"].when) == "people: (count of A ≥ 1 and not trait plan is free) ≥ 3"
