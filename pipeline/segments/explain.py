"""Why a profile is, or is not, in a segment: the rule as a tree, with what each part sees and what would change it."""

from typing import Any

from msgspec import Struct

from pipeline.at_rest import awake
from pipeline.segments import rules
from pipeline.segments.accounts import hidden_name
from pipeline.segments.atoms import score_at
from pipeline.segments.describe import describe, describe_window
from pipeline.segments.leaves import Counter, NewestTimes
from pipeline.segments.measures import in_window, sooner
from pipeline.segments.nodes import Atom
from pipeline.segments.plan import SegmentsPlan
from pipeline.segments.values import trait_at

_LONGEST_SEARCH = 10_000


class Explained(Struct, omit_defaults=True):
    """One part of a rule at a clock.

    `rule` says it in words, `value` is what it sees, `changes_at` the first instant (ms) at which time alone changes
    its truth (0: never), `needed` what else would.
    """

    rule: str
    true: bool
    value: Any = None
    changes_at: int = 0
    needed: str = ""
    parts: list["Explained"] = []


def explain(plan: SegmentsPlan, facts: Any, now_ms: int, segment: str) -> Explained:
    """The tree of a segment's rule for the facts of a profile. Raises KeyError for a segment that isn't there."""
    source = plan.sources[segment]
    root = plan.segments[segment].node
    inner = _explain(plan, facts, now_ms, source.when)
    parts = [inner]
    if source.valid is not None:
        parts.append(_explain(plan, facts, now_ms, source.valid))
    return Explained(
        f"segment {segment}",
        _judge(plan, facts, now_ms, root)[0],
        changes_at=_changes_at(plan, facts, now_ms, root),
        parts=parts,
    )


def _explain(plan: SegmentsPlan, facts: Any, now_ms: int, rule: Any) -> Explained:
    node = plan.node_of[rules.canonical(rule)]
    truth = _judge(plan, facts, now_ms, node)[0]
    changes_at = _changes_at(plan, facts, now_ms, node)
    if isinstance(rule, rules.AllOf | rules.AnyOf):
        parts = [_explain(plan, facts, now_ms, part) for part in rule.parts]
        return Explained(describe(rule), truth, changes_at=changes_at, parts=parts)
    if isinstance(rule, rules.NotOf):
        return Explained("not", truth, changes_at=changes_at, parts=[_explain(plan, facts, now_ms, rule.part)])
    if isinstance(rule, rules.InSegment):
        inner = explain(plan, facts, now_ms, rule.segment)
        return Explained(describe(rule), truth, changes_at=changes_at, parts=inner.parts)
    value = _value(plan, facts, now_ms, rule, node)
    return Explained(describe(rule), truth, value, changes_at, _needed(rule, truth, value))


def _judge(plan: SegmentsPlan, facts: Any, now_ms: int, node: int) -> tuple[bool, int]:
    """(truth, an instant before which time alone does not change it) of any node."""
    held = plan.nodes[node]
    if isinstance(held, Atom):
        awake(facts.leaves, held.leaf)  # a state that was read back is at rest
        return held.judge.says(facts.leaves, facts, now_ms)
    count, next_ms = 0, 0
    for child in held.children:
        truth, child_next_ms = _judge(plan, facts, now_ms, child)
        count += truth
        next_ms = sooner(next_ms, child_next_ms)
    return held.low <= count <= held.high, next_ms


def _changes_at(plan: SegmentsPlan, facts: Any, now_ms: int, node: int) -> int:
    """The first instant at which time alone changes a node's truth; 0 for never."""
    truth, next_ms = _judge(plan, facts, now_ms, node)
    for _ in range(_LONGEST_SEARCH):
        if not next_ms:
            return 0
        at_ms = next_ms
        changed, next_ms = _judge(plan, facts, at_ms, node)
        if changed is not truth:
            return at_ms
    return next_ms


def _leaf_below(plan: SegmentsPlan, node: int) -> str:
    held = plan.nodes[node]
    if isinstance(held, Atom):
        return held.leaf
    return next((leaf for child in held.children if (leaf := _leaf_below(plan, child))), "")


def _value(plan: SegmentsPlan, facts: Any, now_ms: int, rule: Any, node: int) -> Any:
    if isinstance(rule, rules.TraitIs):
        return trait_at(facts.traits, rule.path)
    if isinstance(rule, rules.Members):
        return facts.people.get(hidden_name(rule.match), 0)
    if isinstance(rule, rules.AccountIs):
        return sorted(facts.accounts)
    if isinstance(rule, rules.ConsentIs):
        held = facts.consents.get(rule.purpose)
        return "unknown" if held is None else "granted" if held[1] else "denied"
    if isinstance(rule, rules.ComputedIs):
        return plan.computed(facts, now_ms).get(rule.name)
    leaf_id = _leaf_below(plan, node)
    spec, state = plan.leaves.get(leaf_id), awake(facts.leaves, leaf_id)
    if spec is None:
        return None
    if isinstance(rule, rules.Performed):
        measure = plan.measures.get(rules.canonical(rule.measure))
        if measure is not None and measure[0] == leaf_id:
            return measure[1](state, now_ms)[0]
        if isinstance(spec.leaf, NewestTimes):
            low, high, _ = in_window([[time_ms] for time_ms in state or ()], spec.window, now_ms)
            # Only as many times are kept as the rule asks about.
            return high - low if high - low < spec.leaf.keep else f"{spec.leaf.keep} or more"
        return state or 0 if isinstance(spec.leaf, Counter) else None
    if isinstance(rule, rules.Score):
        if state is None:
            return 0.0
        low, high, _ = in_window(state[0], spec.window, now_ms)
        return round(score_at(state[0][low:high], rule.half_life_ms, now_ms), 9)
    if isinstance(rule, rules.Sequence):
        count = sum(map(len, state[0].values())) if state else 0
        return f"{count} event{'' if count == 1 else 's'} of its steps"
    return None


def _needed(rule: Any, truth: bool, value: Any) -> str:
    """What an event, or a change of the profile, would have to bring for the truth to change."""
    if isinstance(rule, rules.Performed) and rule.measure.function == "count":
        for test in rule.comparison.tests:
            wanted = int(test.operand) + (test.operator == "more_than")
            if test.operator in ("at_least", "more_than", "exactly") and isinstance(value, int) and value < wanted:
                return f"{wanted - value} more {_names(rule)}{describe_window(rule.measure.window)}"
            most = int(test.operand) - (test.operator == "less_than")
            if test.operator in ("at_most", "less_than", "exactly") and isinstance(value, int) and truth:
                return f"{most - value + 1} more {_names(rule)}"
        return ""
    if isinstance(rule, rules.Performed):
        return f"another value of {'.'.join(rule.measure.of) or 'the time'} over {_names(rule)}"
    if isinstance(rule, rules.TraitIs):
        return f"another value of the trait {'.'.join(rule.path)}"
    if isinstance(rule, rules.Members):
        return "another number of people it is true for"
    if isinstance(rule, rules.AccountIs):
        return "news of an account of theirs"
    if isinstance(rule, rules.ConsentIs):
        return f"another consent for {rule.purpose}"
    if isinstance(rule, rules.Bucket | rules.Period):
        return ""
    if isinstance(rule, rules.Sequence | rules.Score):
        return "an event of its steps" if isinstance(rule, rules.Sequence) else "an event with a weight"
    return ""


def _names(rule: rules.Performed) -> str:
    return " or ".join(rule.measure.selection.events)
