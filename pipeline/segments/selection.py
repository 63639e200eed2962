"""Parts of rules, prepared for the plan: counts as thresholds, conditions as predicates and keys of the index."""

from typing import Any

from pipeline.segments import rules
from pipeline.segments.values import Getter, Predicate, compile_condition, event_getter, scalar_key


def thresholds(test: rules.Test) -> tuple[int | None, int | None]:
    """A test of a count as (at least this many, and not at least that many)."""
    number = int(test.operand)
    return {
        "at_least": (number, None),
        "more_than": (number + 1, None),
        "at_most": (None, number + 1),
        "less_than": (None, number),
        "exactly": (number, number + 1),
    }[test.operator]


def event_predicate(where: Any, between: rules.Between | None) -> Predicate:
    """A condition, and dates between which an event must lie, as one predicate. At least one is given."""
    passes = None if where is None else compile_condition(where)
    if between is None:
        assert passes is not None
        return passes
    start, end = between.start, between.end

    def in_dates(event: Any) -> bool:
        time_ms = min(event.time, event.received)
        if (start is not None and time_ms < start) or (end is not None and time_ms >= end):
            return False
        return passes is None or passes(event)

    return in_dates


def split_equality(where: Any) -> tuple[tuple[tuple[str, ...], Getter, tuple[Any, ...]] | None, Any]:
    """Take one test by equality out of a condition, for the index; gives it and the rest (None: nothing is left)."""
    if where is None:
        return None, None
    parts = where.parts if isinstance(where, rules.AllOf) else (where,)
    for place, part in enumerate(parts):
        if not isinstance(part, rules.Check) or part.comparison.cast:
            continue
        for test in part.comparison.tests:
            if test.operator not in ("equals", "in") or isinstance(test.operand, rules.TraitValue):
                continue
            operands = test.operand if test.operator == "in" else (test.operand,)
            others = tuple(one for one in part.comparison.tests if one is not test)
            rest = [*parts[:place], *parts[place + 1 :]]
            if others:
                rest.append(rules.Check(part.path, rules.Comparison(others)))
            table = (part.path, event_getter(part.path), tuple(dict.fromkeys(scalar_key(one) for one in operands)))
            return table, rules.AllOf(tuple(rest)) if rest else None
    return None, where
