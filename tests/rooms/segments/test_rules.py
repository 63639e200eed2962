"""The language, line by line: a rule, what happened, whether the rule is true at the end."""

import random
from typing import Any

import pytest

from pipeline.segments import atoms
from pipeline.segments.leaves import PathEntries
from tests.rooms.segments.helpers import DAY, HOUR, MINUTE, SECOND, Profile, event, plan_of, plan_of_rule

NOW = 1_750_000_000_000  # 2025-06-15T15:06:40Z
ORDER = "Order Completed"


def orders(*totals: Any, city: str | None = None) -> list[Any]:
    made = []
    for number, total in enumerate(totals):
        properties = {} if total is None else {"total": total}
        made.append(event(ORDER, NOW - (len(totals) - number) * HOUR, **properties, **({"city": city} if city else {})))
    return made


PERFORMED = [
    ("{event: Order Completed}", [], False),
    ("{event: Order Completed}", orders(1), True),
    ("{event: Order Completed, count: {at_least: 0}}", [], True),
    ("{event: Order Completed, count: {at_most: 0}}", [], True),
    ("{event: Order Completed, count: {at_most: 0}}", orders(1), False),
    ("{event: Order Completed, count: {exactly: 2}}", orders(1, 1), True),
    ("{event: Order Completed, count: {exactly: 2}}", orders(1, 1, 1), False),
    ("{event: Order Completed, count: {more_than: 1, less_than: 3}}", orders(1, 1), True),
    ("{event: Order Completed, count: {between: [2, 3]}, within: 1d}", orders(1, 1, 1), True),
    ("{event: Order Completed, count: {between: [2, 3]}, within: 1d}", orders(1, 1, 1, 1), False),
    ("{event: Order Completed, count: {at_least: 3}, within: 2h}", orders(1, 1, 1), False),
    ("{event: [Order Completed, Mail Opened], count: {at_least: 2}}", [*orders(1), event("Mail Opened", NOW)], True),
    ('{event: "*", count: {at_least: 2}}', [*orders(1), event("Anything", NOW)], True),
    ("{event: Order Completed, where: {properties.total: 3}}", orders("3"), False),
    ("{event: Order Completed, where: {properties.total: {as: number, equals: 3}}}", orders("3"), True),
    (
        "{event: Order Completed, where: {properties.total: {as: number, equals: -9223372036854775807}}}",
        orders("-9223372036854775807"),
        True,
    ),
    ("{event: Order Completed, where: {properties.total: {as: number, at_least: 1e30}}}", orders("1" + 30 * "0"), True),
    ("{event: Order Completed, where: {properties.total: {as: number, exists: true}}}", orders("1" + 400 * "0"), False),
    (
        "{event: Order Completed, where: {properties.total: {as: number, exists: true}}}",
        orders("-" + 5_000 * "1"),
        False,
    ),
    ("{event: Order Completed, where: {properties.total: {as: number, exists: true}}}", orders("1e400"), False),
    ("{event: Order Completed, where: {properties.total: {greater_than: 10}}}", orders(10, 10.5), True),
    ("{event: Order Completed, where: {properties.total: {in: [1, 2]}}}", orders(2.0), True),
    ("{event: Order Completed, where: {properties.total: {in: [1, 2]}}}", orders(True), False),
    ("{event: Order Completed, where: {properties.total: {exists: false}}}", orders(None), True),
    ("{event: Order Completed, where: {any: [{properties.total: 1}, {properties.total: 2}]}}", orders(2), True),
    ("{event: Order Completed, where: {not: {properties.total: 2}}}", orders(2), False),
    ("{event: Order Completed, where: {any: []}}", orders(2), False),
    ("{event: Order Completed, where: {all: []}}", orders(2), True),
    ("{event: Order Completed, sum: {of: properties.total, exactly: 0.3}}", orders(0.1, 0.2), True),
    ("{event: Order Completed, sum: {of: properties.total, exactly: 0.3}, within: 1d}", orders(0.1, 0.2), True),
    ("{event: Order Completed, sum: {of: properties.total, at_most: 0}}", [], True),
    ("{event: Order Completed, sum: {of: properties.total, at_least: 1.7e308}}", orders(1.7e308, 1.7e308, 0.1), True),
    ("{event: Order Completed, sum: {of: properties.total, less_than: 0}}", orders(-1.7e308, -1.7e308, 0.1), True),
    ("{event: Order Completed, average: {of: properties.total, less_than: 1.7e308}}", orders(1.7e308, 0.1), True),
    ("{event: Order Completed, sum: {of: properties.total, at_least: 30}, within: 150m}", orders(20, 10, 20), True),
    ("{event: Order Completed, sum: {of: properties.total, at_least: 31}, within: 150m}", orders(20, 10, 20), False),
    ("{event: Order Completed, average: {of: properties.total, exactly: 2.5}}", orders(2, 3, "9", None), True),
    ("{event: Order Completed, average: {of: properties.total, at_most: 100}}", [], False),
    ("{event: Order Completed, min: {of: properties.total, exactly: -1}, within: 1d}", orders(2, -1), True),
    ("{event: Order Completed, max: {of: properties.total, exactly: 2}, within: 1d}", orders(2, -1), True),
    ("{event: Order Completed, distinct: {of: properties.total, exactly: 3}}", orders(3, 3.0, "3", True), True),
    (
        "{event: Order Completed, distinct: {of: properties.total, exactly: 3}, within: 1d}",
        orders(3, 3.0, "3", 1),
        True,
    ),
    ("{event: Order Completed, first: {within_last: 90m}}", orders(1, 1), False),
    ("{event: Order Completed, last: {within_last: 90m}}", orders(1, 1), True),
    ("{event: Order Completed, last: {before: now-59m}}", orders(1), True),
    ("{event: Order Completed, last: {exists: false}}", [], True),
    ("{event: Order Completed, between: {from: 2025-06-15T14:06:40Z, to: 2025-06-16}}", orders(1), True),
    ("{event: Order Completed, between: {from: 2025-06-15, to: 2025-06-15T14:06:40Z}}", orders(1), False),
    ("{event: Order Completed, between: {from: 2025-06-15T16:06:40, time_zone: Europe/Berlin}}", orders(1), True),
    ("{event: Order Completed, calendar: {unit: month, current: false}}", [event(ORDER, NOW - 15 * DAY)], True),
    ("{event: Order Completed, calendar: {unit: month}}", [event(ORDER, NOW - 15 * DAY)], False),
    ("{event: Order Completed, calendar: {unit: month, last: 2}}", [event(ORDER, NOW - 15 * DAY)], True),
    ("{event: Order Completed, calendar: {unit: year}, count: {at_least: 2}}", orders(1, 1), True),
    ("{event: Order Completed, within: 1h}", orders(1), False),
    ("{event: Order Completed, within: 1h, grace: 1ms}", orders(1), True),
    ("{event: Order Completed, where: {properties.city: {not_equals: {trait: home}}}}", orders(1, city="Oslo"), True),
    ("{event: Order Completed, where: {properties.city: {not_equals: {trait: home}}}}", orders(1, city="Rome"), False),
    (
        "{event: Order Completed, where: {properties.city: {equals: {trait: home}}}, within: 1d}",
        orders(1, city="Rome"),
        True,
    ),
]


@pytest.mark.parametrize(("rule", "events", "expected"), PERFORMED)
def test_performed(rule: str, events: list[Any], expected: bool) -> None:
    for stated, true in ((f"{{performed: {rule}}}", expected), (f"{{not: {{performed: {rule}}}}}", not expected)):
        profile = Profile(plan_of_rule(stated), NOW - 10 * DAY)
        profile.set_trait("home", "Rome")
        for one in events:
            profile.send(one)
        profile.wait(NOW)
        assert ("s" in profile.members) is true


COMPARISONS = [
    ("{equals: free}", "free", True),
    ("free", "free", True),
    ("{equals: 3}", 3.0, True),
    ("{equals: 3}", "3", False),
    ("{equals: '3'}", 3, False),
    ("{equals: 1}", True, False),
    ("{equals: true}", 1, False),
    ("{equals: true}", True, True),
    ("{not_equals: free}", "pro", True),
    ("{not_equals: free}", None, True),
    ("{equals: free}", None, False),
    ("{in: [free, 3]}", 3, True),
    ("{in: []}", 3, False),
    ("{not_in: [free, 3]}", None, True),
    ("{contains: re}", "free", True),
    ("{contains: 3}", "a3", False),
    ("{contains: 3}", [1, 3.0], True),
    ("{contains: 1}", [True], False),
    ("{contains: re}", ["free"], False),
    ("{not_contains: re}", 7, True),
    ("{starts_with: fr, ends_with: ee}", "free", True),
    ("{starts_with: fr, ends_with: x}", "free", False),
    ("{regex: 'r.e'}", "free", True),
    ("{regex_full: 'r.e'}", "free", False),
    ("{regex_full: '(?i)FRE+'}", "free", True),
    ("{regex: '3'}", 3, False),
    ("{greater_than: 3}", 3, False),
    ("{at_least: 3}", 3, True),
    ("{less_than: 3}", "2", False),
    ("{less_than: b}", "a", True),
    ("{at_most: 3}", True, False),
    ("{between: [1, 2]}", 2, True),
    ("{exists: true}", 0, True),
    ("{exists: true}", None, False),
    ("{exists: false}", None, True),
    ("{before: 2025-06-15}", "2025-06-14T23:59:59.999Z", True),
    ("{before: 2025-06-15}", "2025-06-15", False),
    ("{after: 2025-06-15T00:00:00+02:00}", "2025-06-14 22:00", False),
    ("{after: 2025-06-15}", "soon", False),
    ("{before: now}", NOW - 1, True),
    ("{before: now}", NOW, False),
    ("{after: now-1d}", NOW - DAY, False),
    ("{after: now-1d}", NOW - DAY + 1, True),
    ("{within_last: 1d}", NOW - DAY, False),
    ("{within_last: 1d}", NOW, True),
    ("{within_last: 1d}", NOW + 1, False),
    ("{within_next: 1d}", NOW, False),
    ("{within_next: 1d}", NOW + DAY, True),
    ("{within_next: 1d}", float(NOW + DAY) + 0.5, True),
    ("{as: number, at_least: 3}", " 3.50 ", True),
    ("{as: number, at_least: 3}", "0x4", False),
    ("{as: number, exists: true}", "3,5", False),
    ("{as: text, equals: '3'}", 3.0, True),
    ("{as: text, equals: 'true'}", True, True),
    ("{equals: {trait: other}}", "o", True),
    ("{greater_than: {trait: number}}", 8, True),
    ("{greater_than: {trait: missing}}", 8, False),
    ("{not_equals: {trait: missing}}", 8, True),
    ("{equals: {trait: address.city}}", "Rome", True),
]


@pytest.mark.parametrize(("comparison", "value", "expected"), COMPARISONS)
def test_comparison(comparison: str, value: Any, expected: bool) -> None:
    profile = Profile(plan_of_rule(f"{{trait: {{t: {comparison}}}}}"), NOW)
    for name, held in (("other", "o"), ("number", 7), ("address", {"city": "Rome"}), ("t", value)):
        profile.set_trait(name, held)
    assert ("s" in profile.members) is expected


CART, PAID, SENT = "Cart Viewed", "Order Completed", "Order Sent"
ABANDONED = "{steps: [{event: Cart Viewed}, {not: {event: Order Completed}, within: 2h}]}"
PER_CART = "{steps: [{event: Cart Viewed}, {event: Order Completed, within: 1h}], by: properties.cart}"
SEQUENCES = [
    (ABANDONED, [(CART, 0, 1)], 2 * HOUR - 1, False),
    (ABANDONED, [(CART, 0, 1)], 2 * HOUR, True),
    (ABANDONED, [(CART, 0, 1), (PAID, 2 * HOUR, 1)], 2 * HOUR, False),
    (ABANDONED, [(CART, 0, 1), (PAID, HOUR, 1)], 9 * HOUR, False),
    (ABANDONED, [(CART, 0, 1), (PAID, HOUR, 1), (CART, 3 * HOUR, 1)], 9 * HOUR, True),
    (ABANDONED, [(CART, HOUR, 1), (PAID, HOUR, 1)], 9 * HOUR, True),
    (ABANDONED[:-1] + ", grace: 5m}", [(CART, 0, 1)], 2 * HOUR + 5 * MINUTE - 1, False),
    (ABANDONED[:-1] + ", grace: 5m}", [(CART, 0, 1)], 2 * HOUR + 5 * MINUTE, True),
    (ABANDONED[:-1] + ", within: 3h}", [(CART, 0, 1)], 3 * HOUR - 1, True),
    (ABANDONED[:-1] + ", within: 3h}", [(CART, 0, 1)], 3 * HOUR, False),
    (PER_CART, [(CART, 0, 1), (PAID, HOUR, 1)], HOUR, True),
    (PER_CART, [(CART, 0, 1), (PAID, HOUR + 1, 1)], 2 * HOUR, False),
    (PER_CART, [(CART, 0, 1), (PAID, HOUR, 2)], HOUR, False),
    (PER_CART, [(CART, 0, 1), (PAID, HOUR, "1")], HOUR, False),
    (PER_CART, [(CART, 0, 1), (PAID, HOUR, 1.0)], HOUR, True),
    (PER_CART, [(CART, 0, None), (PAID, HOUR, None)], HOUR, False),
    (PER_CART, [(CART, 5, 1), (PAID, 5, 1)], HOUR, False),
    (PER_CART, [(PAID, 4, 1), (CART, 5, 1)], HOUR, False),
    (
        "{steps: [{event: Cart Viewed}, {not: {event: Order Sent}}, {event: Order Completed}]}",
        [(CART, 0, 1), (SENT, 1, 1), (PAID, 2, 1)],
        HOUR,
        False,
    ),
    (
        "{steps: [{event: Cart Viewed}, {not: {event: Order Sent}}, {event: Order Completed}]}",
        [(CART, 0, 1), (SENT, 1, 1), (CART, 2, 1), (SENT, 3, 1), (PAID, 3, 1)],
        HOUR,
        True,
    ),
    (
        "{steps: [{event: Cart Viewed}, {not: {event: Order Completed}, within: 1h}, {event: Order Sent, within: 1h}]}",
        [(CART, 0, 1), (SENT, HOUR, 1)],
        DAY,
        False,
    ),
    (
        "{steps: [{event: Cart Viewed}, {not: {event: Order Completed}, within: 1h}, {event: Order Sent, within: 1h}]}",
        [(CART, 0, 1), (SENT, 2 * HOUR, 1)],
        DAY,
        True,
    ),
]


@pytest.mark.parametrize(("rule", "events", "at", "expected"), SEQUENCES)
def test_sequence(rule: str, events: list[Any], at: int, expected: bool) -> None:
    plan = plan_of_rule(f"{{sequence: {rule}}}")
    for order in (events, events[::-1]):  # the second as if all but the last had come late
        profile = Profile(plan, NOW)
        for name, time, cart in order:
            profile.send(event(name, NOW + time, max(profile.now, NOW + time), cart=cart))
        if profile.now <= NOW + at:
            profile.wait(NOW + at)
            assert ("s" in profile.members) is expected


def test_score_decays_to_the_millisecond() -> None:
    profile = Profile(plan_of_rule("{score: {events: [{event: A, weight: 10}], half_life: 1h, at_least: 5}}"), NOW)
    profile.send(event("A", NOW))
    assert profile.members == {"s"}
    # At exactly one half-life it is 5; one millisecond later less, in the ninth place before the rounding shows it.
    assert profile.wait(NOW + HOUR) == []
    [(at, [flip])] = profile.wait(NOW + 2 * HOUR)
    assert (at, flip.entered) == (NOW + HOUR + 1, False)


def test_score_may_rise_as_what_is_negative_decays() -> None:
    rule = "{score: {events: [{event: A, weight: -8}], half_life: 1h, more_than: -2}}"
    profile = Profile(plan_of_rule(rule), NOW)
    assert profile.members == {"s"}
    assert [flip.entered for flip in profile.send(event("A", NOW))] == [False]
    [(at, [flip])] = profile.wait(NOW + DAY)
    assert (at, flip.entered) == (NOW + 2 * HOUR + 1, True)


def test_bucket_is_a_share_of_all_profiles() -> None:
    plan = plan_of(
        "segment: low\nwhen: {bucket: {salt: a, to: 30}}\n---\nsegment: high\nwhen: {not: {in_segment: low}}"
    )
    profile = Profile(plan)
    inside = 0
    for number in range(2_000):
        profile.facts.profile_id = str(number)
        members = plan.begin(profile.facts, 0).members
        assert len(members) == 1
        inside += "low" in members
    assert 500 < inside < 700


def test_consent_is_granted_denied_or_unknown() -> None:
    plan = plan_of(
        "segment: yes_\nwhen: {consent: mail}\n---\nsegment: no_\nwhen: {consent: {purpose: mail, is: denied}}\n"
        "---\nsegment: unknown_\nwhen: {consent: {purpose: mail, is: unknown}}"
    )
    profile = Profile(plan)
    for held, expected in (((1, True), "yes_"), ((2, False), "no_")):
        assert len(profile.members) == 1
        profile.facts.consents["mail"] = held
        plan.update(profile.standing, profile.facts, 0, (), (), ("mail",))
        assert profile.members == {expected}


def test_valid_from_and_until_bound_everybody() -> None:
    text = "segment: s\nvalid_from: 2025-06-15T16:00:00Z\nvalid_until: 2025-06-15T17:00:00Z\nwhen: {all: []}"
    profile = Profile(plan_of(text), NOW)
    assert profile.members == set()
    passed = profile.wait(NOW + DAY)
    assert [(at % DAY, flips[0].entered) for at, flips in passed] == [(16 * HOUR, True), (17 * HOUR, False)]


COMPUTED = [
    ("{function: count, event: A}", [], 0),
    ("{function: count, event: A}", [1, 1], 2),
    ("{function: count, event: A, within: 90s}", [1, 1, 1], 2),
    ("{function: sum, event: A, of: properties.v}", [0.1, 0.2, "x"], 0.3),
    ("{function: sum, event: A, of: properties.v, within: 1d}", [0.1, 0.2, 10**18, -(10**18)], 0.3),
    ("{function: sum, event: A, of: properties.v}", [1.7e308, 1.7e308, 0.1], 1.7976931348623157e308),
    ("{function: sum, event: A, of: properties.v, within: 1d}", [-1.7e308, -1.7e308], -1.7976931348623157e308),
    ("{function: average, event: A, of: properties.v}", [1.7e308, 1.7e308, 0.5], 1.1333333333333334e308),
    ("{function: average, event: A, of: properties.v}", ["x"], None),
    ("{function: min, event: A, of: properties.v, within: 1d}", [3, 1.0], 1),
    ("{function: max, event: A, of: properties.v}", [3, 1.0], 3),
    ("{function: distinct, event: A, of: properties.v}", [3, 3.0, "3"], 2),
    ("{function: first, event: A, of: properties.v}", [None, "b", "a"], "b"),
    ("{function: last, event: A, of: properties.v, within: 1d}", ["b", "a", [1]], "a"),
    ("{function: first_time, event: A}", [1, 1], NOW),
    ("{function: last_time, event: A, within: 90s}", [1, 1], NOW + MINUTE),
    ("{function: most_frequent, event: A, of: properties.v}", ["b", "a", "b", "a"], "a"),
    ("{function: most_frequent, event: A, of: properties.v, within: 1d}", ["b", "a", "b"], "b"),
    ("{function: unique, event: A, of: properties.v}", ["b", True, 3, "a", "b"], ["a", "b", 3, True]),
    ("{function: unique, event: A, of: properties.v, limit: 2}", ["b", "c", "a", "b"], ["a", "b"]),
    ("{function: unique, event: A, of: properties.v, limit: 2, within: 1d}", ["b", "c", "a", "b"], ["a", "b"]),
    ("{function: preferred_hour, event: A}", [1], 15),
    ("{function: preferred_hour, event: A, time_zone: Asia/Kolkata, within: 1d}", [1], 20),
]


@pytest.mark.parametrize(("compute", "values", "expected"), COMPUTED)
def test_computed_trait(compute: str, values: list[Any], expected: Any) -> None:
    plan = plan_of(f"computed: c\ncompute: {compute}")
    profile = Profile(plan, NOW)
    for number, value in enumerate(values):
        profile.send(event("A", NOW + number * MINUTE, v=value))
    assert plan.computed(profile.facts, profile.now).get("c") == expected


def test_a_sum_is_a_number_that_every_reader_of_json_can_hold() -> None:
    """A whole one too: 1e300 written out has 301 digits, and what is beyond 2^53 is no double."""
    plan = plan_of("computed: c\ncompute: {function: sum, event: A, of: properties.v}")
    for values, expected in (([1e300], 1e300), ([2**53, 1], 2.0**53), ([2**53], 2**53), ([3, -1.0], 2)):
        profile = Profile(plan, NOW)
        for value in values:
            profile.send(event("A", NOW, v=value))
        found = plan.computed(profile.facts, NOW)["c"]
        assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("value", [1e300, -1e300, 1.7e308, 2**63 - 1, -(2**63), 1e18])
@pytest.mark.parametrize("operator", ["within_next: 20s", "within_last: 100y", "before: now-30d", "after: now+100y"])
def test_an_instant_that_no_clock_will_reach_makes_no_deadline_that_nothing_can_hold(value: Any, operator: str) -> None:
    plan = plan_of_rule(f"{{trait: {{trial_end: {{{operator}}}}}}}")
    profile = Profile(plan, NOW)
    profile.set_trait("trial_end", value)
    expected = {"within_next": False, "within_last": False, "before": value < 0, "after": value > 0}
    assert ("s" in profile.members) is expected[operator.partition(":")[0]]
    assert 0 <= profile.standing.deadline < 2**63


@pytest.mark.parametrize("function", ["first", "last", "most_frequent"])
@pytest.mark.parametrize("window", ["", ", within: 1d"])
def test_a_value_that_was_kept_comes_back_as_the_number_it_was(function: str, window: str) -> None:
    plan = plan_of(f"computed: c\ncompute: {{function: {function}, event: A, of: properties.v{window}}}")
    for value in (1e300, -1.7e308, 2.0**63, 2**63 - 1, 0.1, 3):
        profile = Profile(plan, NOW)
        profile.send(event("A", NOW, v=value))
        found = plan.computed(profile.facts, NOW)["c"]
        assert (found, type(found)) == (value, type(value))


def test_computed_trait_is_used_in_a_rule_and_ages() -> None:
    computed = "computed: c\ncompute: {function: count, event: A, within: 1d}"
    plan = plan_of(f"{computed}\n---\nsegment: s\nwhen: {{computed: {{c: {{at_least: 2}}}}}}")
    profile = Profile(plan, NOW)
    profile.send(event("A", NOW))
    profile.send(event("A", NOW + 5))
    assert profile.members == {"s"}
    assert plan.computed_deadline(profile.facts, profile.now) == NOW + DAY
    assert [at for at, _ in profile.wait(NOW + 2 * DAY)] == [NOW + DAY]
    assert plan.computed(profile.facts, profile.now) == {"c": 0}


def test_preferred_channel_reads_the_context() -> None:
    plan = plan_of("computed: c\ncompute: {function: preferred_channel, event: '*'}")
    profile = Profile(plan, NOW)
    for number, channel in enumerate(("app", "web", "web")):
        one = event("A", NOW + number * SECOND)
        one.context = {"channel": channel}
        profile.send(one)
    assert plan.computed(profile.facts, profile.now) == {"c": "web"}


def test_a_sum_grows_when_something_negative_leaves_its_window() -> None:
    rule = "{performed: {event: A, within: 1h, sum: {of: properties.v, at_least: 5}}}"
    profile = Profile(plan_of_rule(rule), NOW)
    profile.send(event("A", NOW, v=-3))
    profile.send(event("A", NOW + MINUTE, v=6))
    assert profile.members == set()
    passed = profile.wait(NOW + DAY)
    assert [(at, flips[0].entered) for at, flips in passed] == [(NOW + HOUR, True), (NOW + HOUR + MINUTE, False)]


def test_a_late_event_inside_a_full_window_keeps_it_open_longer() -> None:
    profile = Profile(plan_of_rule("{performed: {event: A, within: 1h, count: {at_least: 2}}}"), NOW)
    profile.send(event("A", NOW))
    profile.send(event("A", NOW + 20 * MINUTE))
    profile.send(event("A", NOW + 10 * MINUTE, received=NOW + 30 * MINUTE))
    assert [at for at, _ in profile.wait(NOW + DAY)] == [NOW + 70 * MINUTE]


def test_relative_tests_of_a_trait_flip_one_after_the_other() -> None:
    profile = Profile(plan_of_rule("{trait: {t: {after: now-2h, before: now-1h}}}"), NOW)
    profile.set_trait("t", NOW)
    passed = profile.wait(NOW + DAY)
    assert [(at, flips[0].entered) for at, flips in passed] == [(NOW + HOUR + 1, True), (NOW + 2 * HOUR, False)]


@pytest.mark.parametrize("within", ["", ", within: 1d"])
def test_a_sequence_that_holds_does_not_ask_every_cart_there_ever_was(
    monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    walked = []
    walk = atoms._walk
    monkeypatch.setattr(atoms, "_walk", lambda *given: walked.append(given) or walk(*given))
    steps = "[{event: Cart}, {not: {event: Order}, within: 2h}]"
    profile = Profile(plan_of_rule(f"{{sequence: {{steps: {steps}, by: properties.cart{within}}}}}"), NOW)
    for number in range(200):
        profile.send(event("Cart", NOW + number * MINUTE, cart=number))
    assert profile.members == {"s"}
    # Those of the last two hours may still be ordered; of those before, the first that is asked holds.
    walked.clear()
    profile.send(event("Cart", NOW + 201 * MINUTE, cart=201))
    assert len(walked) <= 2 * 60 + 2
    # It holds for as long as the last of them does, whichever held it before.
    passed = profile.wait(NOW + 9 * DAY)
    left_at = [at for at, flips in passed if not flips[0].entered]
    assert left_at == ([NOW + 201 * MINUTE + DAY] if within else [])


def test_what_is_compared_with_a_trait_is_compared_once_for_all_events_that_say_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared = []
    values = PathEntries.values
    monkeypatch.setattr(PathEntries, "values", lambda leaf, kept: compared.append(kept) or values(leaf, kept))
    away = "where: {properties.city: {not_equals: {trait: home}}}, count: {at_least: 200}"
    profile = Profile(plan_of_rule(f"{{performed: {{event: A, {away}, within: 1d}}}}"), NOW)
    profile.set_trait("home", "Oslo")
    for number in range(299):
        profile.send(event("A", NOW + number, city=("Rome", "Oslo", "Bonn")[number % 3]))
    assert not profile.members
    compared.clear()
    profile.send(event("A", NOW + 299, city="Bonn"))
    assert profile.members == {"s"} and len(compared) < 10
    profile.set_trait("home", "Rome")
    profile.send(event("A", NOW + 300, city="Rome"))
    assert profile.members == {"s"}
    profile.set_trait("home", "Bonn")
    profile.send(event("A", NOW + DAY + 150, city="Bonn"))
    assert profile.members == set()


def test_a_window_past_its_cap_says_that_it_is_approximate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 100)
    plan = plan_of_rule("{performed: {event: A, within: 1d, sum: {of: properties.v, at_least: 1000}}}")
    profile = Profile(plan, NOW)
    flips = []
    for number in range(1_000):
        flips += profile.send(event("A", NOW + number * SECOND, v=1))
    assert [(flip.entered, flip.approximate) for flip in flips] == [(True, True)]
    [(at, [flip])] = profile.wait(NOW + 3 * DAY)
    # The oldest lie in tiles of a thousandth of the window, and leave with their tile.
    assert not flip.entered and flip.approximate and NOW + DAY <= at <= NOW + DAY + DAY // 1_000
    halves: list[dict[str, Any]] = [{}, {}]
    for number in range(1_000):
        plan.fold(halves[number % 2], event("A", NOW + number * SECOND, v=1))
    profile.facts.leaves = plan.join(*halves)
    profile.now = NOW + 1_000 * SECOND
    profile.standing = plan.begin(profile.facts, profile.now)
    assert profile.members == {"s"}


@pytest.mark.parametrize(
    "rule",
    [
        "computed: c\ncompute: {function: sum, event: A, of: properties.v, within: 1d}",
        "computed: c\ncompute: {function: count, event: A, within: 1d}",
        "computed: c\ncompute: {function: distinct, event: A, of: properties.v, within: 1d}",
        "computed: c\ncompute: {function: unique, event: A, of: properties.v, within: 1d}",
        "segment: s\nwhen: {performed: {event: A, where: {properties.v: {equals: {trait: t}}}}}",
        "segment: s\nwhen: {score: {events: [{event: A, weight: 2}], half_life: 1h, at_least: 5}}",
        "segment: s\nwhen: {sequence: {steps: [{event: A}, {event: A}], by: properties.by}}",
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_past_its_cap_a_state_is_of_the_newest_in_whatever_parts_they_came(
    monkeypatch: pytest.MonkeyPatch, rule: str, seed: int
) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 30)
    plan, rng = plan_of(rule), random.Random(seed)
    came = [
        event("A", NOW + rng.randrange(300) * SECOND, NOW + HOUR, v=rng.randrange(50), by=rng.randrange(3))
        for _ in range(100)
    ]
    at_once: dict[str, Any] = {}
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for one in came:
        plan.fold(at_once, one)
        plan.fold(rng.choice(parts), one)
    rng.shuffle(parts)
    assert plan.join(plan.join(parts[0], parts[1]), parts[2]) == at_once
    in_order: dict[str, Any] = {}
    for one in sorted(came, key=lambda one: one.time):
        plan.fold(in_order, one)
    assert in_order == at_once
    [state] = at_once.values()
    kept = state[0] if isinstance(state[0], list) else [entry for chain in state[0].values() for entry in chain]
    assert sorted(entry[0] for entry in kept) == sorted(one.time for one in came)[-30:]


@pytest.mark.parametrize("function", ["count", "sum", "min", "max", "average", "distinct", "unique", "first", "last"])
@pytest.mark.parametrize("window", ["within: 1h", "calendar: {unit: day}", "calendar: {unit: day, current: false}"])
def test_past_its_cap_a_window_says_the_same_in_whatever_parts_its_events_came(
    monkeypatch: pytest.MonkeyPatch, function: str, window: str
) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 10)
    monkeypatch.setattr("pipeline.segments.leaves.TILES", 5)
    of = "" if function == "count" else ", of: properties.v"
    plan, rng = plan_of(f"computed: c\ncompute: {{function: {function}, event: A{of}, {window}}}"), random.Random(1)
    every = HOUR // 20 if window == "within: 1h" else 2 * HOUR
    for _ in range(10):
        at_once, facts, now = Profile(plan, NOW).facts, Profile(plan, NOW).facts, NOW
        parts: list[dict[str, Any]] = [{}, {}, {}]
        for _ in range(100):
            now += rng.randrange(every)
            one = event("A", now - rng.choice((0, rng.randrange(20 * every))), now, v=rng.randrange(100))
            plan.fold(at_once.leaves, one)
            plan.fold(rng.choice(parts), one)
            facts.leaves = plan.join(plan.join(parts[0], parts[1]), parts[2])
            assert plan.computed(facts, now) == plan.computed(at_once, now)


def test_a_count_over_whole_units_is_exact_past_the_cap_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 100)
    midnight = NOW - NOW % DAY
    rule = "{performed: {event: A, calendar: {unit: day, current: false, time_zone: %s}, count: {at_least: 6}}}"
    for time_zone, before_ms in (("Asia/Kathmandu", 5 * HOUR + 45 * MINUTE), ("UTC", 0)):
        today = midnight - before_ms
        profile = Profile(plan_of_rule(rule % time_zone), today - DAY)
        flips = []
        for number in range(5):
            flips += profile.send(event("A", today - MINUTE + number * SECOND))
        for number in range(500):
            flips += profile.send(event("A", today + number * SECOND))
        assert flips == [] and not profile.members
        # One that comes late is the sixth of yesterday, and 500 of today are those of yesterday by tomorrow.
        flips = profile.send(event("A", today - 1, today + HOUR))
        assert [(flip.entered, flip.approximate) for flip in flips] == [(True, False)]
        assert [at for at, _ in profile.wait(today + 3 * DAY)] == [today + 2 * DAY]


@pytest.mark.parametrize("seed", range(5))
def test_a_count_over_whole_units_is_the_same_in_whatever_parts_and_order_its_events_came(seed: int) -> None:
    rng = random.Random(seed)
    plan = plan_of_rule("{performed: {event: A, calendar: {unit: day, last: 2, current: false}, count: {at_least: 5}}}")
    facts, parts, times, clock = Profile(plan, NOW).facts, [{}, {}, {}], [], NOW
    for _ in range(200):
        received = clock - rng.randrange(3 * HOUR)
        clock += rng.randrange(5 * HOUR)
        time = received - rng.choice((0, rng.randrange(4 * DAY)))
        times.append(time)
        plan.fold(rng.choice(parts), event("A", time, received))
        facts.leaves = plan.join(plan.join(parts[0], parts[1]), parts[2])
        today = clock - clock % DAY
        due = sum(today - 2 * DAY <= one < today for one in times) >= 5
        assert (plan.begin(facts, clock).members == {"s"}) is due
    # Newest of what is over, and of the days since: not all there ever was.
    assert max(len(state) for part in parts for state in part.values()) <= 4 * 5


def test_a_window_that_is_always_past_its_cap_keeps_no_more_than_its_own_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 50)
    monkeypatch.setattr("pipeline.segments.leaves.TILES", 20)
    plan = plan_of("computed: c\ncompute: {function: count, event: A, within: 1h}")
    profile = Profile(plan, NOW)
    for number in range(2_000):
        plan.fold(profile.facts.leaves, event("A", NOW + number * 20 * SECOND))
    assert 180 <= plan.computed(profile.facts, NOW + 1_999 * 20 * SECOND)["c"] <= 180 + 180 / 20
    [state] = profile.facts.leaves.values()
    assert len(state[2]) <= 2 * 20 + 1


def test_what_becomes_most_frequent_after_ten_thousand_others_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 100)
    plan = plan_of("computed: c\ncompute: {function: most_frequent, event: A, of: properties.v}")
    leaves: dict[str, Any] = {}
    for number in range(150):
        plan.fold(leaves, event("A", NOW + number, v=f"once {number:03}"))
    for number in range(150):
        plan.fold(leaves, event("A", NOW + DAY + number, v="often"))
        plan.fold(leaves, event("A", NOW + DAY + number, v=f"once again {number:03}"))
    profile = Profile(plan, NOW + 2 * DAY)
    profile.facts.leaves = leaves
    assert plan.computed(profile.facts, profile.now) == {"c": "often"}
    [state] = leaves.values()
    assert len(state) == 100


def test_distinct_values_past_their_cap_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.segments.leaves.CAP", 1_000)
    plan = plan_of("computed: c\ncompute: {function: distinct, event: A, of: properties.v}")
    leaves: dict[str, Any] = {}
    for number in range(5_000):
        plan.fold(leaves, event("A", NOW + number, v=number % 4_000))
    profile = Profile(plan, NOW)
    profile.facts.leaves = leaves
    assert 3_600 < plan.computed(profile.facts, NOW)["c"] < 4_400


@pytest.mark.parametrize(
    ("comparison", "now", "later"), [("{after: now-1d}", False, False), ("{before: now}", True, True)]
)
def test_a_sum_of_nothing_is_an_instant_like_any_other(comparison: str, now: bool, later: bool) -> None:
    text = "computed: c\ncompute: {function: sum, event: A, of: properties.v}\n---\nsegment: s\nwhen: {computed: {c: "
    profile = Profile(plan_of(f"{text}{comparison}}}}}"), NOW)
    assert (profile.members == {"s"}) is now
    profile.wait(NOW + 3 * DAY)
    assert (profile.members == {"s"}) is later
    profile.send(event("A", NOW + 4 * DAY, v=NOW + 4 * DAY))
    assert (profile.members == {"s"}) is (comparison == "{after: now-1d}")
    profile.wait(NOW + 6 * DAY)
    assert profile.members == ({"s"} if comparison == "{before: now}" else set())
