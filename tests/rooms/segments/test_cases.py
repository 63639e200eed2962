"""CASES 24 to 46, as far as they concern rules over one profile; the others are the engine's and identity's."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.errors import DefinitionError
from pipeline.segments import NO_SEGMENTS
from tests.rooms.segments.helpers import DAY, HOUR, MINUTE, SECOND, Profile, changes, event, plan_of, plan_of_rule

NOW = 1_750_000_000_000


def joined(*profiles: Profile) -> Profile:
    """The profile that several make together, judged at the latest of their clocks."""
    plan = profiles[0].plan
    whole = Profile(plan, max(one.now for one in profiles))
    for one in profiles:
        whole.facts.leaves = plan.join(whole.facts.leaves, one.facts.leaves)
    whole.standing = plan.begin(whole.facts, whole.now)
    return whole


def test_case_24_an_event_exactly_at_the_end_of_its_window() -> None:
    for rule in (
        "{performed: {event: A, within: 1h}}",
        "{performed: {event: A, within: 1h, sum: {of: properties.v, at_least: 1}}}",
        "{performed: {event: A, within: 1h, distinct: {of: properties.v, at_least: 1}}}",
    ):
        profile = Profile(plan_of_rule(rule), NOW)
        profile.send(event("A", NOW, v=1))
        assert profile.wait(NOW + HOUR - 1) == []
        assert profile.members == {"s"}
        assert changes(profile.wait(NOW + HOUR)) == [(NOW + HOUR, "s", False)]


def test_case_25_a_future_dated_event_counts_as_received() -> None:
    profile = Profile(plan_of_rule("{performed: {event: A, within: 1h}}"), NOW)
    profile.send(event("A", NOW + DAY, received=NOW))
    assert profile.members == {"s"}
    assert changes(profile.wait(NOW + 2 * DAY)) == [(NOW + HOUR, "s", False)]


@pytest.mark.parametrize("result", ["count: {at_least: 2}", "sum: {of: properties.v, at_least: 2}"])
def test_case_25_an_entry_from_the_future_is_not_there_yet(result: str) -> None:
    profile = Profile(plan_of_rule(f"{{performed: {{event: A, within: 1h, {result}}}}}"), NOW)
    profile.plan.fold(profile.facts.leaves, event("A", NOW + 10, v=1))
    profile.plan.fold(profile.facts.leaves, event("A", NOW, v=1))
    profile.standing = profile.plan.begin(profile.facts, NOW)
    assert profile.members == set()
    assert changes(profile.wait(NOW + DAY)) == [(NOW + 10, "s", True), (NOW + HOUR, "s", False)]


@pytest.mark.parametrize(("spring", "hours"), [("2026-03-28", 23), ("2026-10-24", 25), ("2026-06-01", 24)])
def test_case_26_calendar_days_across_a_daylight_saving_change(spring: str, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = int(datetime.fromisoformat(spring).replace(tzinfo=zone).timestamp() * 1000) + DAY
    plan = plan_of(
        "segment: calendar\nwhen: {performed: {event: A, calendar: {unit: day, time_zone: Europe/Berlin}}}\n---\n"
        "segment: before\nwhen:\n"
        "  performed: {event: A, calendar: {unit: day, current: false, time_zone: Europe/Berlin}}\n---\n"
        "segment: rolling\nwhen: {performed: {event: A, within: 1d}}"
    )
    profile = Profile(plan, start)
    profile.send(event("A", start))
    assert sorted(changes(profile.wait(start + 3 * DAY))) == sorted(
        [
            (start + hours * HOUR, "calendar", False),
            (start + hours * HOUR, "before", True),
            (start + DAY, "rolling", False),
            (start + (hours + 24) * HOUR, "before", False),
        ]
    )


def test_case_26_a_day_whose_midnight_does_not_occur_begins_after_the_gap() -> None:
    rule = "{performed: {event: A, calendar: {unit: day, time_zone: America/Sao_Paulo}}}"
    # On 2018-11-04 clocks went from 00:00 to 01:00, so the day before ended at 03:00Z, as any other.
    before = 1_541_300_400_000 - HOUR
    profile = Profile(plan_of_rule(rule), before)
    profile.send(event("A", before))
    [(at, _, entered)] = changes(profile.wait(before + 2 * DAY))
    assert (at, entered) == (1_541_300_400_000, False)


def test_case_26_a_day_that_a_zone_left_out_counts_as_an_empty_one() -> None:
    calendar = "{unit: day, last: 2, current: %s, time_zone: Pacific/Apia}"
    rules = [f"{{performed: {{event: A, calendar: {calendar % current}}}}}" for current in ("true", "false")]
    plan = plan_of(f"segment: with_today\nwhen: {rules[0]}\n---\nsegment: whole\nwhen: {rules[1]}\n")
    # In Samoa, 2011-12-31 came right after 2011-12-29, at 10:00Z.
    start = 1_325_239_200_000
    profile = Profile(plan, start - 1)
    profile.send(event("A", start - 1))
    assert sorted(changes(profile.wait(start + 3 * DAY))) == [
        (start, "whole", True),
        (start, "with_today", False),
        (start + DAY, "whole", False),
    ]


@pytest.mark.parametrize("at", [-(10**17), -(10**14), -1, 0, 10**15, 10**17])
@pytest.mark.parametrize("unit", ["day", "week", "month", "year"])
def test_case_25_a_time_no_calendar_knows_is_no_accident(at: int, unit: str) -> None:
    for current in ("true", "false"):
        calendar = f"{{unit: {unit}, last: 1000, current: {current}, time_zone: Asia/Tokyo}}"
        profile = Profile(plan_of_rule(f"{{performed: {{event: A, calendar: {calendar}}}}}"), min(at, NOW))
        profile.send(event("A", at, received=max(at, NOW)))
        assert profile.members in (set(), {"s"})


def test_case_27_a_merge_that_makes_three_visits_of_two_and_one() -> None:
    plan = plan_of_rule("{performed: {event: Page Viewed, within: 7d, count: {at_least: 3}}}")
    two, one = Profile(plan, NOW), Profile(plan, NOW)
    two.send(event("Page Viewed", NOW))
    two.send(event("Page Viewed", NOW + DAY))
    one.send(event("Page Viewed", NOW + HOUR))
    assert not two.members and not one.members
    whole = joined(two, one)
    assert whole.members == {"s"}
    assert changes(whole.wait(NOW + 30 * DAY)) == [(NOW + 7 * DAY, "s", False)]
    assert two.facts.leaves != whole.facts.leaves and len(one.facts.leaves) == 1


def test_case_28_a_merge_that_brings_a_purchase_ends_an_absence() -> None:
    plan = plan_of_rule("{not: {performed: {event: Order Completed, within: 30d}}}")
    visitor, buyer = Profile(plan, NOW), Profile(plan, NOW)
    buyer.send(event("Order Completed", NOW))
    assert visitor.members == {"s"} and buyer.members == set()
    assert joined(visitor, buyer).members == set()


def test_case_29_a_split_restores_the_absence() -> None:
    plan = plan_of_rule("{not: {performed: {event: Order Completed, within: 30d}}}")
    visitor, buyer = Profile(plan, NOW), Profile(plan, NOW)
    buyer.send(event("Order Completed", NOW))
    visitor.send(event("Page Viewed", NOW))
    assert joined(visitor, buyer).members == set()
    # Taking a fragment out is joining the others again.
    assert joined(visitor).members == {"s"}


def test_case_30_a_late_purchase_after_its_absence_was_believed() -> None:
    rule = "{sequence: {steps: [{event: Cart Viewed}, {not: {event: Order Completed}, within: 2h}]}}"
    profile = Profile(plan_of_rule(rule), NOW)
    profile.send(event("Cart Viewed", NOW))
    assert changes(profile.wait(NOW + 3 * HOUR)) == [(NOW + 2 * HOUR, "s", True)]
    [flip] = profile.send(event("Order Completed", NOW + HOUR, received=NOW + 3 * HOUR))
    assert not flip.entered and profile.members == set()


def test_case_31_a_rule_that_is_all_negative_has_everyone_for_its_universe() -> None:
    plan = plan_of_rule("{all: [{not: {performed: {event: A}}}, {not: {trait: {plan: pro}}}]}")
    assert plan.default_members == {"s"}
    profile = Profile(plan, NOW)
    assert profile.members == {"s"}
    profile.set_trait("plan", "pro")
    assert profile.members == set()
    profile.set_trait("plan", None)
    assert profile.members == {"s"}


def test_case_32_empty_all_is_everyone_and_empty_any_is_no_one() -> None:
    plan = plan_of("segment: everyone\nwhen: {all: []}\n---\nsegment: nobody\nwhen: {any: []}")
    assert Profile(plan).members == {"everyone"} == plan.default_members


def test_case_33_segments_that_refer_to_each_other_in_a_cycle_are_refused() -> None:
    with pytest.raises(DefinitionError, match="a → b → c → a"):
        plan_of(
            "segment: a\nwhen: {in_segment: b}\n---\nsegment: b\nwhen: {not: {in_segment: c}}\n---\n"
            "segment: c\nwhen: {any: [{in_segment: a}]}"
        )
    with pytest.raises(DefinitionError, match="no segment 'nobody'"):
        plan_of_rule("{in_segment: nobody}")


def test_case_34_entry_and_exit_at_the_same_instant_are_judged_together() -> None:
    plan = plan_of(
        "segment: recent\nwhen: {performed: {event: A, within: 1h}}\n---\n"
        "segment: lapsed\nwhen: {all: [{performed: {event: A}}, {not: {in_segment: recent}}]}\n---\n"
        "segment: either\nwhen: {any: [{in_segment: recent}, {in_segment: lapsed}]}"
    )
    profile = Profile(plan, NOW)
    profile.send(event("A", NOW))
    # One instant, both changes, and nothing for the segment that is true before and after.
    assert sorted(changes(profile.wait(NOW + DAY))) == [(NOW + HOUR, "lapsed", True), (NOW + HOUR, "recent", False)]


def test_case_34_a_segment_entered_and_left_in_one_wait_says_both_in_order() -> None:
    rule = "{all: [{performed: {event: A, within: 2h}}, {not: {performed: {event: A, within: 1h}}}]}"
    profile = Profile(plan_of_rule(rule), NOW)
    profile.send(event("A", NOW))
    assert changes(profile.wait(NOW + DAY)) == [(NOW + HOUR, "s", True), (NOW + 2 * HOUR, "s", False)]


def test_case_35_a_deadline_that_passed_while_everything_was_down_keeps_its_instant() -> None:
    profile = Profile(plan_of_rule("{performed: {event: A, within: 5s}}"), NOW)
    profile.send(event("A", NOW))
    assert changes(profile.wait(NOW + 400 * DAY)) == [(NOW + 5 * SECOND, "s", False)]


def test_case_36_an_exit_needs_no_further_event() -> None:
    profile = Profile(plan_of_rule("{performed: {event: A, within: 5s}}"), NOW)
    profile.send(event("A", NOW))
    assert profile.standing.deadline == NOW + 5 * SECOND
    profile.wait(profile.standing.deadline)
    assert profile.members == set() and profile.standing.deadline == 0


def test_case_38_a_numeric_text_is_no_number() -> None:
    plan = plan_of(
        "segment: number\nwhen: {performed: {event: A, where: {properties.v: {equals: 3}}}}\n---\n"
        "segment: text\nwhen: {performed: {event: A, where: {properties.v: {equals: '3'}}}}\n---\n"
        "segment: cast\nwhen: {performed: {event: A, where: {properties.v: {as: number, at_least: 3}}}}"
    )
    for value, expected in ((3, {"number", "cast"}), ("3", {"text", "cast"}), (3.0, {"number", "cast"}), (None, set())):
        profile = Profile(plan, NOW)
        profile.send(event("A", NOW, v=value))
        assert profile.members == expected


@pytest.mark.parametrize(
    ("text", "is_instant"),
    [
        ("2026-03-01", True),
        ("2026-03-01T09:30", True),
        ("2026-03-01 09:30:00.123456Z", True),
        ("2026-03-01T09:30:00+0130", True),
        ("2026-03-01T09:30:00-01:30", True),
        ("2026-03-01T09:30:00,5Z", False),
        ("2026-03-01Z", False),
        ("2026-03-01T09", False),
        ("2026-03-01t09:30:00z", False),
        ("2026-02-30", False),
        ("2026-03-01T24:00:00Z", False),
        ("2026-03-01T09:30:60Z", False),
        ("2026-03-01T09:30:00+24:00", False),
        ("2026-03-01 ", False),
        ("20260301", False),
        ("0000-01-01", False),
        ("٢٠٢٦-٠٣-٠١", False),
    ],
)
def test_what_is_an_instant_and_what_is_only_a_text(text: str, is_instant: bool) -> None:
    rule = "{any: [{trait: {seen: {before: 2030-01-01}}}, {trait: {seen: {after: 2030-01-01}}}]}"
    profile = Profile(plan_of_rule(rule), NOW)
    profile.set_trait("seen", text)
    assert profile.members == ({"s"} if is_instant else set())


def test_case_39_a_rule_deleted_in_mid_backfill_leaves_nothing_behind() -> None:
    old, new = plan_of_rule("{performed: {event: A}}"), NO_SEGMENTS
    profile = Profile(old, NOW)
    profile.send(event("A", NOW))
    assert new.join(profile.facts.leaves, {}) == {}
    assert new.begin(profile.facts, NOW).members == set()
    assert new.prune(profile.facts.leaves) and profile.facts.leaves == {}
    assert not new.prune(profile.facts.leaves)


def test_case_40_a_rule_edited_and_edited_back_counts_anew() -> None:
    first = plan_of("segment: s\nwhen: {performed: {event: A, count: {at_least: 2}, within: 1d}}", 1)
    edited = plan_of("segment: s\nwhen: {performed: {event: B, within: 1d}}", 2, first.births)
    back = plan_of("segment: s\nwhen: {performed: {event: A, count: {at_least: 2}, within: 1d}}", 3, edited.births)
    unchanged = plan_of("segment: s\nwhen: {performed: {event: A, count: {at_least: 2}, within: 1d}}", 2, first.births)
    assert set(unchanged.leaves) == set(first.leaves)
    assert set(back.leaves).isdisjoint(first.leaves)
    assert back.births.keys() == first.births.keys()


def test_case_40_both_generations_are_folded_once_until_ready() -> None:
    old = plan_of("segment: s\nwhen: {performed: {event: A, count: {at_least: 2}}}", 1)
    new = plan_of(
        "segment: s\nwhen: {performed: {event: [A, B], count: {at_least: 2}}}\n---\n"
        "segment: t\nwhen: {performed: {event: A, count: {at_least: 3}}}",
        2,
        old.births,
    )
    both = old.with_leaves_of(new)
    profile = Profile(both, NOW)
    profile.send(event("A", NOW))
    profile.send(event("B", NOW))
    assert profile.members == set() and len(profile.facts.leaves) == 2
    assert new.begin(profile.facts, NOW).members == {"s"}
    fresh = new.restricted(set(new.leaves) - set(old.leaves))
    assert len(fresh.fold({}, event("A", NOW))) == 1


def test_case_41_two_values_with_the_same_time_are_settled_by_the_values() -> None:
    plan = plan_of("computed: c\ncompute: {function: last, event: A, of: properties.v}")
    for values in (("a", "b"), ("b", "a")):
        profile = Profile(plan, NOW)
        for value in values:
            profile.send(event("A", NOW, v=value))
        assert plan.computed(profile.facts, NOW) == {"c": "b"}


def test_case_44_members_of_an_edited_rule_that_no_longer_match() -> None:
    old = plan_of_rule("{performed: {event: A}}")
    new = plan_of_rule("{performed: {event: A, count: {at_least: 2}}}")
    profile = Profile(old, NOW)
    profile.send(event("A", NOW))
    assert profile.members - new.begin(profile.facts, NOW).members == {"s"}


def test_case_46_a_counter_goes_down_when_events_age_out_of_its_window() -> None:
    profile = Profile(plan_of_rule("{performed: {event: A, within: 1h, count: {at_least: 2}}}"), NOW)
    for minutes in (0, 10, 20):
        profile.send(event("A", NOW + minutes * MINUTE))
    assert changes(profile.wait(NOW + DAY)) == [(NOW + 70 * MINUTE, "s", False)]
    profile.send(event("A", NOW + DAY))
    assert profile.members == set()


MISTAKES = [
    ("segment: s\nwhen:\n  all:\n    - performd: {event: A}", 4, "did you mean `performed`"),
    ("segment: s\nwhen:\n  not:\n    not:\n      performed:\n        event: A\n        within: 3", 7, "30s, 15m"),
    ("segment: s\nwhen: {performed: {event: A, count: {at_least: 1.5}}}", 2, "whole number"),
    ("segment: s\nwhen: {performed: {event: A, count: {at_least: '3'}}}", 2, "number"),
    ("segment: s\nwhen: {trait: {plan: {equals: null}}}", 2, "exists: false"),
    ("segment: s\nwhen: {trait: {plan: {regex: '('}}}", 2, "RE2"),
    ("segment: s\nwhen: {performed: {event: A, where: {total: 3}}}", 2, "properties.total"),
    ("segment: s\nwhen: {performed: {event: A, where: {properties.at: {before: now}}}}", 2, "clock"),
    ("segment: S\nwhen: {all: []}", 1, "small letters"),
    ("segment: s\nwhen: {all: [], any: []}", 2, "one key"),
    ("segment: s\nwhen: {performed: {event: A, within: 1d, between: {from: 2026-01-01}}}", 2, "only one of"),
    ("segment: s\nwhen: {performed: {event: A, between: {from: 2026-01-01, to: 2026-01-01}}}", 2, "before to"),
    ("segment: s\nwhen: {performed: {event: A, calendar: {unit: day, time_zone: Berlin}}}", 2, "IANA"),
    ("segment: s\nwhen: {sequence: {steps: [{event: A}, {not: {event: B}}]}}", 2, "for how long"),
    ("segment: s\nwhen: {sequence: {steps: [{not: {event: B}, within: 1h}, {event: A}]}}", 2, "begins with an event"),
    ("segment: s\nentity: account\nwhen: {consent: marketing}", 1, "about people"),
    ("segment: s\nentity: account\nwhen: {account: {in_segment: x}}", 1, "about people"),
    ("segment: s\nwhen: {members: {match: {all: []}}}", 1, "about accounts"),
    ("segment: s\nentity: account\nwhen: {members: {match: {all: []}, any: true, at_least: 2}}", 3, "in one way"),
    ("segment: s\nentity: account\nwhen: {members: {match: {members: {match: {all: []}}}}}", 3, "about accounts"),
    ("segment: s\nentity: account\nwhen: {members: {match: {all: []}, all: yes}}", 3, "true is expected here"),
    ("segment: s\nwhen: {account: {}}", 2, "say what the account has"),
    ("segment: s\nwhen: {account: {trait: {plan: {equals: {trait: plan}}}}}", 2, "another trait"),
    (
        "segment: s\nwhen: {performed: {event: A, sum: {of: properties.v, at_least: 1}, count: {at_least: 1}}}",
        2,
        "one result",
    ),
    ("computed: c\ncompute: {function: sum, event: A}", 2, "needs `of`"),
    ("segment: s\nwhen:\n  performed:\n    event: A\n    count: {between: [5, 2]}", 5, "the smaller one first"),
    ("segment: s\nwhen:\n  trait:\n    age: {between: [b, a]}", 4, "the smaller one first"),
]


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(InvalidDefinitionsError) as caught:
        load_text(text)
    assert any(problem.line == line and words in problem.what for problem in caught.value.problems), caught.value


LEAF_IDS = {
    "{performed: {event: A, count: {at_least: 3}, within: 7d}}": "VMvDlbjXF_Ky",
    "{performed: {event: A, count: {at_least: 3}, calendar: {unit: day, current: false}}}": "KukoDculAb8T",
    "{performed: {event: [B, A], where: {properties.v: 3}}}": "v4aGDaTwXXX-",
    "{performed: {event: A, sum: {of: properties.v, at_least: 1}, calendar: {unit: month}}}": "s9_DzVBOVhRM",
    "{performed: {event: A, where: {properties.c: {not_equals: {trait: home}}}}}": "YCwRfnJ8VSgW",
    "{sequence: {steps: [{event: A}, {not: {event: B}, within: 1h}], by: properties.k}}": "FYp4gx8JYFgh",
    "{score: {events: [{event: A, weight: 1}], half_life: 1d, at_least: 2}}": "u5B0TpyzEcpu",
}


@pytest.mark.parametrize(("rule", "hashed"), LEAF_IDS.items())
def test_the_id_of_a_leaf_stays_what_it_is(rule: str, hashed: str) -> None:
    """States in stores go by these: where one changes, every profile's history of the leaf is lost."""
    assert list(plan_of_rule(rule).births) == [hashed]


ONE_LINE = "[{event: A, weight: 1.7e308}]"
SEVERAL = (
    "[{event: [A, C], weight: 1.7e308}, {event: A, weight: 1.7e308}, "
    "{event: [B, C], weight: -1.7e308}, {event: B, weight: -1.7e308}]"
)


@pytest.mark.parametrize("lines", [ONE_LINE, SEVERAL])
def test_a_score_beyond_all_doubles_is_the_last_of_them(lines: str) -> None:
    profile = Profile(plan_of_rule(f"{{score: {{events: {lines}, half_life: 1h, at_least: 1e308}}}}"), NOW)
    profile.send(event("A", NOW))
    profile.send(event("A", NOW + 1))
    assert profile.members == {"s"}
    assert changes(profile.wait(NOW + 100 * HOUR))[0][1:] == ("s", False)
    if lines == SEVERAL:
        for number, name in enumerate("ABCBA"):
            profile.send(event(name, NOW + 100 * HOUR + number))
        assert profile.members == set()


def test_an_event_called_by_the_sign_for_any_event_counts_once_in_a_score() -> None:
    profile = Profile(plan_of_rule("{score: {events: [{event: '*', weight: 2}], half_life: 1d, at_least: 3}}"), NOW)
    profile.send(event("*", NOW))
    assert profile.members == set()
    profile.send(event("A", NOW + 1))
    assert profile.members == {"s"}
