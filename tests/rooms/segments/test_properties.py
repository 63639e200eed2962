"""Properties of the plan on a scale at which every millisecond can be looked at: windows of 1 to 40 ms, times from 0
to 60.

The reference below keeps all events and looks at them anew at each instant; it knows nothing of leaves or deadlines.
"""

import copy
import itertools
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.profile import Fragment, decode_fragment, encode_fragment
from pipeline.records import Event
from pipeline.segments import SegmentsPlan, compile_plan, rules
from tests.rooms.segments.helpers import Facts, as_values

NAMES = ("A", "B")
END = 130
SLOW = settings(
    max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

# ------------------------------------------------------------------------------------------------------- definitions

_numbers = st.sampled_from((0, 1, 2, 3))
_where = st.sampled_from(
    (
        None,
        rules.Check(("properties", "v"), rules.Comparison((rules.Test("at_least", 2),))),
        rules.Check(("properties", "v"), rules.Comparison((rules.Test("equals", 1),))),
        rules.Check(("properties", "k"), rules.Comparison((rules.Test("in", ("x", "y")),))),
    )
)
_selections = st.builds(rules.Selection, st.sampled_from((("A",), ("B",), ("A", "B"), ("*",))), _where)
_lengths = st.integers(1, 40)
_windows = st.one_of(
    _lengths.map(rules.Within),
    st.just(rules.Ever()),
    st.tuples(st.integers(0, 30), st.integers(31, 60)).map(lambda pair: rules.Between(*pair)),
)
_operators = st.sampled_from(("at_least", "at_most", "more_than", "less_than", "exactly"))
_comparisons = st.builds(lambda op, n: rules.Comparison((rules.Test(op, n),)), _operators, _numbers)


@st.composite
def _performed(draw: st.DrawFn) -> rules.Performed:
    function = draw(st.sampled_from(("count", "count", "count", "sum", "average", "min", "max", "distinct")))
    of = () if function == "count" else ("properties", "v")
    return rules.Performed(rules.Measure(draw(_selections), draw(_windows), function, of), draw(_comparisons))


@st.composite
def _sequences(draw: st.DrawFn) -> rules.Sequence:
    by = draw(st.sampled_from(((), ("properties", "k"))))
    steps = [rules.Step(draw(_selections), by=by)]
    for _ in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            steps.append(rules.Step(draw(_selections), within_ms=draw(st.sampled_from((0, 5, 20))), by=by))
        else:
            steps.append(rules.Step(draw(_selections), True, draw(st.sampled_from((4, 15))), by))
            if draw(st.booleans()):
                steps[-1] = rules.Step(steps[-1].selection, True, 0, by)
                steps.append(rules.Step(draw(_selections), by=by))
    within = draw(st.sampled_from((0, 30)))
    return rules.Sequence(tuple(steps), within, draw(st.sampled_from((0, 3))))


_leaves = st.one_of(
    _performed(),
    _performed(),
    _sequences(),
    st.just(rules.TraitIs(("t",), rules.Comparison((rules.Test("within_last", 20),)))),
    st.just(rules.InSegment("other")),
    st.tuples(st.integers(0, 40), st.integers(41, 80)).map(lambda pair: rules.Period(*pair)),
)
_rules = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        inner.map(rules.NotOf),
        st.lists(inner, max_size=3).map(lambda parts: rules.AllOf(tuple(parts))),
        st.lists(inner, max_size=3).map(lambda parts: rules.AnyOf(tuple(parts))),
    ),
    max_leaves=5,
)


@st.composite
def _events(draw: st.DrawFn) -> list[Event]:
    """In order of arrival; each up to 25 ms late."""
    made = []
    received = 0
    for number in range(draw(st.integers(0, 10))):
        received += draw(st.integers(0, 8))
        time = max(0, received - draw(st.sampled_from((0, 0, 0, 3, 25))))
        properties: dict[str, Any] = {}
        for name, values in (("v", (0, 1, 2, 3, -1, "2")), ("k", ("x", "y", 1, True))):
            if draw(st.integers(0, 5)):
                properties[name] = draw(st.sampled_from(values))
        made.append(
            Event(str(number), "track", draw(st.sampled_from(NAMES)), ["a:1"], time, received, properties=properties)
        )
    return made


# --------------------------------------------------------------------------------------------------------- reference


def _same(a: Any, b: Any) -> bool:
    return type(a) in (int, float, str, bool) and (isinstance(a, bool) is isinstance(b, bool)) and a == b


def _number(value: Any) -> bool:
    return type(value) in (int, float)


def _holds(test: rules.Test, value: Any) -> bool:
    operand = test.operand
    if test.operator in ("equals", "exactly"):
        return _same(value, operand)
    if test.operator == "in":
        return any(_same(value, one) for one in operand)
    return (
        _number(value)
        and {
            "at_least": value >= operand,
            "more_than": value > operand,
            "at_most": value <= operand,
            "less_than": value < operand,
        }[test.operator]
    )


def _selected(selection: rules.Selection, event: Event) -> bool:
    if event.event not in selection.events and "*" not in selection.events:
        return False
    where = selection.where
    return where is None or _holds(where.comparison.tests[0], event.properties.get(where.path[1]))


def _in_window(window: Any, time: int, now: int) -> bool:
    if isinstance(window, rules.Within):
        return now - window.window_ms < time <= now
    if isinstance(window, rules.Between):
        return window.start <= time < window.end and time <= now
    return time <= now


def _match(rule: rules.Sequence, events: list[Event], now: int) -> bool:
    events = [one for one in events if one.time <= now]
    keyed = [(one, one.properties.get(rule.steps[0].by[1]) if rule.steps[0].by else 0) for one in events]
    keyed = [(one, key) for one, key in keyed if key is not None]
    positive = [step for step in rule.steps if not step.absent]
    for chosen in itertools.product(keyed, repeat=len(positive)):
        key = chosen[0][1]
        if not all(_same(key, other) for _, other in chosen):
            continue
        if rule.within_ms and chosen[0][0].time <= now - rule.within_ms:
            continue
        if all(_selected(step.selection, one) for step, (one, _) in zip(positive, chosen, strict=True)):
            same = [one for one, other in keyed if _same(key, other)]
            if _walks(rule, [one.time for one, _ in chosen], same, now):
                return True
    return False


def _walks(rule: rules.Sequence, times: list[int], events: list[Event], now: int) -> bool:
    anchor, rest = times[0], times[1:]
    for step in rule.steps[1:]:
        against = [one.time for one in events if step.absent and _selected(step.selection, one)]
        if not step.absent:
            time, rest = rest[0], rest[1:]
            if time <= anchor or (step.within_ms and time > anchor + step.within_ms):
                return False
            anchor = time
        elif step.within_ms:
            if any(anchor < time <= anchor + step.within_ms for time in against):
                return False
            anchor += step.within_ms
            if anchor + rule.grace_ms > now:
                return False
        elif any(anchor < time < rest[0] for time in against):
            return False
    return True


def true_at(rule: Any, events: list[Event], trait: int | None, other: Any, now: int) -> bool:
    """The rule over everything known, at an instant."""
    if isinstance(rule, rules.AllOf):
        return all(true_at(one, events, trait, other, now) for one in rule.parts)
    if isinstance(rule, rules.AnyOf):
        return any(true_at(one, events, trait, other, now) for one in rule.parts)
    if isinstance(rule, rules.NotOf):
        return not true_at(rule.part, events, trait, other, now)
    if isinstance(rule, rules.InSegment):
        return true_at(other, events, trait, other, now)
    if isinstance(rule, rules.Period):
        return rule.start <= now < rule.end
    if isinstance(rule, rules.TraitIs):
        return trait is not None and now - 20 < trait <= now
    if isinstance(rule, rules.Sequence):
        return _match(rule, events, now)
    measure = rule.measure
    held = [one for one in events if _selected(measure.selection, one) and _in_window(measure.window, one.time, now)]
    if measure.function == "count":
        value: Any = len(held)
    else:
        seen = [one.properties.get("v") for one in held]
        numbers = [one for one in seen if _number(one)]
        if measure.function == "distinct":
            value = len({(type(one) is str, one) for one in seen if one is not None})
        elif measure.function == "sum":
            value = sum(numbers)
        elif not numbers:
            return False
        else:
            value = {"average": sum(numbers) / len(numbers), "min": min(numbers), "max": max(numbers)}[measure.function]
    return all(_holds(test, value) for test in rule.comparison.tests)


# -------------------------------------------------------------------------------------------------------- properties

OTHER = rules.NotOf(
    rules.Performed(
        rules.Measure(rules.Selection(("B",)), rules.Within(7)), rules.Comparison((rules.Test("at_least", 1),))
    )
)


def _plan(rule: Any) -> SegmentsPlan:
    return compile_plan([rules.Segment("s", rule), rules.Segment("other", OTHER)])


def _expected(rule: Any, events: list[Event], trait: int | None, now: int) -> set[str]:
    both = (("s", rule), ("other", OTHER))
    return {name for name, one in both if true_at(one, events, trait, OTHER, now)}


@SLOW
@given(_rules, _events(), st.one_of(st.none(), st.integers(0, 60)))
def test_every_millisecond_is_what_all_events_say(rule: Any, events: list[Event], trait: int | None) -> None:
    plan, facts, known = _plan(rule), Facts(), []
    if trait is not None:
        facts.traits["t"] = (0, trait)
    standing = plan.begin(facts, 0)
    now = 0
    for event in [*events, None]:
        until = END if event is None else event.received
        members = {now: set(standing.members)}
        for at, flips in plan.settle(standing, facts, until):
            assert max(members) <= at <= until
            present = set(members[max(members)])
            for flip in flips:
                assert flip.entered is (flip.segment not in present)
                (present.add if flip.entered else present.remove)(flip.segment)
            members[at] = present
        for instant in range(now, until + 1):
            stood = members[max(at for at in members if at <= instant)]
            assert stood == _expected(rule, known, trait, instant), instant
            assert plan.begin(facts, instant).members == stood
        now = until
        if event is not None:
            known.append(event)
            before = set(standing.members)
            for flip in plan.update(standing, facts, now, plan.fold(facts.leaves, event)):
                assert flip.entered is (flip.segment not in before)
                (before.add if flip.entered else before.remove)(flip.segment)
            assert before == standing.members == _expected(rule, known, trait, now)
            assert standing.members == plan.begin(facts, now).members


@SLOW
@given(_rules, _events(), st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=10, max_size=10))
def test_a_standing_goes_on_from_what_was_kept_of_it(
    rule: Any, events: list[Event], breaks: list[tuple[bool, int]]
) -> None:
    """With a deadline that is too early, as the one kept may be; beside a standing that has been at hand all along."""
    plan, facts = _plan(rule), Facts()
    at_hand, resumed = plan.begin(facts, 0), plan.begin(facts, 0)
    for event, (breaks_off, early) in zip(events, breaks, strict=False):
        if breaks_off:
            first = max(resumed.deadline - early, 1) if resumed.deadline else 0
            found = plan.resume(resumed.kept, resumed.now, first)
            assert found is not None
            resumed = found
        now = event.received
        assert _settled(plan, resumed, facts, now) == _settled(plan, at_hand, facts, now)
        leaf_ids = plan.fold(facts.leaves, event)
        flips = plan.update(resumed, facts, now, leaf_ids)
        assert as_values(flips) == as_values(plan.update(at_hand, facts, now, leaf_ids))
        assert resumed.kept == at_hand.kept == plan.begin(facts, now).kept
        plan.tighten(resumed, facts, now)
        plan.tighten(at_hand, facts, now)
        assert resumed.deadline == at_hand.deadline == plan.begin(facts, now).deadline
        resumed.rest()
    assert _settled(plan, resumed, facts, END) == _settled(plan, at_hand, facts, END)


def _settled(plan: Any, standing: Any, facts: Facts, until: int) -> list[tuple[int, list[tuple[str, bool, bool]]]]:
    return [(at, as_values(flips)) for at, flips in plan.settle(standing, facts, until)]


def test_what_was_kept_of_another_plan_is_not_gone_on_from() -> None:
    seen, bought = (
        rules.Performed(
            rules.Measure(rules.Selection((name,)), rules.Ever()), rules.Comparison((rules.Test("at_least", 1),))
        )
        for name in ("Seen", "Bought")
    )
    one, other = (compile_plan([rules.Segment("s", rules.AnyOf(parts))]) for parts in ((seen, bought), (bought, seen)))
    kept = one.begin(Facts(), 0).kept
    assert one.resume(kept, 0, 0) is not None
    assert other.resume(kept, 0, 0) is None and one.resume(b"", 0, 0) is None


@SLOW
@given(_rules, _events(), st.lists(st.integers(0, 2), min_size=10, max_size=10), st.permutations(range(3)))
def test_a_history_in_parts_is_the_whole(rule: Any, events: list[Event], places: list[int], order: list[int]) -> None:
    plan = _plan(rule)
    parts: list[dict[str, Any]] = [{}, {}, {}]
    for event, place in zip(events, places, strict=False):
        # As between batches: what was stored is read again, and folded into.
        stored = decode_fragment(encode_fragment(Fragment(leaves=parts[place])))
        assert stored.leaves == parts[place]
        parts[place] = stored.leaves
        plan.fold(parts[place], event)
    before = copy.deepcopy(parts)
    left = plan.join(plan.join(parts[order[0]], parts[order[1]]), parts[order[2]])
    right = plan.join(parts[order[2]], plan.join(parts[order[1]], parts[order[0]]))
    assert left == right
    now = max((event.received for event in events), default=0)
    facts = Facts(leaves=left)
    for instant in range(now, END):
        assert plan.begin(facts, instant).members == _expected(rule, events, None, instant)
    # What was joined is on its own: folding into it changes none of its parts.
    plan.fold(left, Event("x", "track", "A", ["a:1"], now, now, properties={"v": 2, "k": "x"}))
    assert parts == before


@SLOW
@given(_rules, _events(), st.integers(0, 60), st.integers(1, 70))
def test_passing_time_in_steps_is_passing_it_at_once(rule: Any, events: list[Event], first: int, step: int) -> None:
    plan, facts = _plan(rule), Facts()
    for event in events:
        plan.fold(facts.leaves, event)
    now = max((event.received for event in events), default=0)
    at_once = _settled(plan, plan.begin(facts, now), facts, now + END)
    standing, stepwise = plan.begin(facts, now), []
    for until in range(now + min(first, END), now + END, step):
        stepwise += _settled(plan, standing, facts, until)
    stepwise += _settled(plan, standing, facts, now + END)
    assert stepwise == at_once


@SLOW
@given(
    _events(),
    st.integers(1, 30),
    st.sampled_from(((3.0, 1.0), (-3.0, 1.0), (1.0, 0.0))),
    _operators,
    st.integers(-2, 6),
)
def test_a_score_crosses_at_its_millisecond(
    events: list[Event], half_life: int, weights: tuple[float, float], operator: str, threshold: int
) -> None:
    lines = tuple(rules.Weight(rules.Selection((name,)), weight) for name, weight in zip(NAMES, weights, strict=True))
    score = rules.Score(lines, half_life, 50, rules.Comparison((rules.Test(operator, threshold),)))
    plan, facts = compile_plan([rules.Segment("s", score)]), Facts()
    for event in events:
        plan.fold(facts.leaves, event)
    now = max((event.received for event in events), default=0)
    standing = plan.begin(facts, now)
    for instant in range(now, now + END):
        plan.settle(standing, facts, instant)
        total = sum(
            dict(zip(NAMES, weights, strict=True))[one.event] * 2.0 ** (-(instant - one.time) / half_life)
            for one in events
            if instant - 50 < one.time
        )
        assert ("s" in standing.members) is _holds(score.comparison.tests[0], round(total, 9)), instant


@SLOW
@given(_events(), st.integers(1, 3), st.sampled_from(("not_equals", "equals")), st.sampled_from((None, 5, 30)))
def test_a_trait_compared_with_events_is_that_of_now(
    events: list[Event], threshold: int, operator: str, window: int | None
) -> None:
    where = rules.Check(("properties", "k"), rules.Comparison((rules.Test(operator, rules.TraitValue(("home",))),)))
    measure = rules.Measure(rules.Selection(("A",), where), rules.Within(window) if window else rules.Ever())
    rule = rules.Performed(measure, rules.Comparison((rules.Test("at_least", threshold),)))
    plan, facts = compile_plan([rules.Segment("s", rule)]), Facts()
    standing = plan.begin(facts, 0)
    for number, event in enumerate(events):
        plan.settle(standing, facts, event.received)
        plan.update(standing, facts, event.received, plan.fold(facts.leaves, event))
        home = ("x", "y", None, 1)[number % 4]
        facts.traits["home"] = (event.received, home)
        plan.update(standing, facts, event.received, (), ("home",))
        count = sum(
            one.event == "A"
            and (window is None or event.received - window < one.time)
            and (home is not None and _same(one.properties.get("k"), home)) is (operator == "equals")
            for one in events[: number + 1]
        )
        assert ("s" in standing.members) is (count >= threshold)


_counts = st.builds(
    lambda selection, window, comparison: rules.Performed(rules.Measure(selection, window), comparison),
    st.just(rules.Selection(("A",))),
    _lengths.map(rules.Within),
    _comparisons,
)
_sums = st.builds(
    lambda window, function, comparison: rules.Performed(
        rules.Measure(rules.Selection(("A",)), window, function, ("properties", "v")), comparison
    ),
    _lengths.map(rules.Within),
    st.sampled_from(("sum", "sum", "min", "distinct")),
    _comparisons,
)
_many_late = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 25), st.integers(-3, 3)), min_size=3, max_size=12)


@settings(SLOW, max_examples=200)
@given(st.one_of(_counts, _sums), _many_late)
def test_one_window_with_many_late_events(rule: Any, sent: list[tuple[int, int, int]]) -> None:
    plan, facts, known = compile_plan([rules.Segment("s", rule)]), Facts(), []
    standing, now = plan.begin(facts, 0), 0
    for number, (gap, late, value) in enumerate([*sent, (60, 0, 0)]):
        for instant in range(now, now + gap + 1):
            plan.settle(standing, facts, instant)
            assert ("s" in standing.members) is true_at(rule, known, None, None, instant), instant
        now += gap
        event = Event(str(number), "track", "A", ["a:1"], max(0, now - late), now, properties={"v": value})
        known.append(event)
        plan.update(standing, facts, now, plan.fold(facts.leaves, event))
        assert ("s" in standing.members) is true_at(rule, known, None, None, now)
