"""Rules in words, for people who ask why."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline.segments import rules

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_OPERATORS = {
    "equals": "is",
    "not_equals": "is not",
    "in": "is one of",
    "not_in": "is none of",
    "not_contains": "does not contain",
    "starts_with": "starts with",
    "ends_with": "ends with",
    "regex": "matches in part",
    "regex_full": "matches",
    "greater_than": ">",
    "more_than": ">",
    "at_least": "≥",
    "less_than": "<",
    "at_most": "≤",
    "exactly": "=",
    "within_last": "within the last",
    "within_next": "within the next",
}
# Texts that look like a number, a word of JSON or nothing; and those with blanks at an end, which nobody would see.
_ANOTHER_KIND = re.compile(r"(\s.*|.*\s|true|false|null|[-+]?[0-9.]+([eE][-+]?[0-9]+)?)?", re.DOTALL)
_MOST_LINES = 3
_MOST_CHARACTERS = 400


def duration(ms: int) -> str:
    """A length of time as definitions write it."""
    text = ""
    for unit, length in _UNITS:
        count, ms = divmod(ms, length)
        text += f"{count}{unit}" if count else ""
    return text or "0ms"


def instant(ms: int) -> str:
    """An instant, UTC."""
    seconds, rest = divmod(ms, 1_000)
    fraction = f".{rest:03d}" if rest else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def shown(value: Any) -> str:
    """A value as JSON; a text without its quotes, unless it would be taken for something else then."""
    if isinstance(value, str) and not _ANOTHER_KIND.fullmatch(value):
        return value
    return msgspec.json.encode(value).decode()


def describe(rule: Any) -> str:
    """A rule in one line; of all and any only the head."""
    if isinstance(rule, rules.AllOf):
        return "all" if rule.parts else "everyone"
    if isinstance(rule, rules.AnyOf):
        return "any" if rule.parts else "no one"
    if isinstance(rule, rules.NotOf):
        return "not"
    if isinstance(rule, rules.InSegment):
        return f"in segment {rule.segment}"
    if isinstance(rule, rules.TraitIs):
        return f"trait {'.'.join(rule.path)} {describe_comparison(rule.comparison)}"
    if isinstance(rule, rules.ComputedIs):
        return f"computed {rule.name} {describe_comparison(rule.comparison)}"
    if isinstance(rule, rules.ConsentIs):
        return f"consent for {rule.purpose} is {rule.state}"
    if isinstance(rule, rules.Bucket):
        return f"bucket {rule.salt} from {rule.start:g} to {rule.end:g} percent"
    if isinstance(rule, rules.Period):
        return "valid" + describe_window(rules.Between(rule.start, rule.end))
    if isinstance(rule, rules.Members):
        who = in_full(rule.match)
        return f"all people: {who}" if rule.every else f"people: {who} {describe_comparison(rule.comparison)}"
    if isinstance(rule, rules.AccountIs):
        asked = [describe(one) for one in rule.traits] + ([f"in segment {rule.segment}"] if rule.segment else [])
        return "an account of theirs: " + " and ".join(asked)
    if isinstance(rule, rules.Score):
        return _score(rule)
    if isinstance(rule, rules.Sequence):
        return _sequence(rule)
    assert isinstance(rule, rules.Performed), rule
    measure = rule.measure
    what = measure.function + (f" of {'.'.join(measure.of)}" if measure.of else "")
    events = f"{_selection(measure.selection)}{describe_window(measure.window)}"
    return f"{what} of {events} {describe_comparison(rule.comparison)}"


def in_full(rule: Any) -> str:
    """A rule that stands inside another one's line, its parts too."""
    if isinstance(rule, rules.NotOf):
        return f"not {in_full(rule.part)}"
    if not isinstance(rule, rules.AllOf | rules.AnyOf) or not rule.parts:
        return describe(rule)
    word = " and " if isinstance(rule, rules.AllOf) else " or "
    said = word.join(in_full(part) for part in rule.parts)
    return f"({said[:_MOST_CHARACTERS]}…)" if len(said) > _MOST_CHARACTERS else f"({said})"


def describe_window(window: rules.Window) -> str:
    """A window in words, with a blank before; nothing for ever."""
    if isinstance(window, rules.Within):
        return f" within {duration(window.window_ms)}"
    if isinstance(window, rules.Between):
        start = "" if window.start is None else f" from {instant(window.start)}"
        return start + ("" if window.end is None else f" until {instant(window.end)}")
    if isinstance(window, rules.Calendar):
        return f" in {_units(window)} ({window.time_zone})"
    if isinstance(window, rules.Kept):
        return f"{describe_window(window.window)}, kept for {duration(window.kept_ms)}"
    return ""


def _units(window: rules.Calendar) -> str:
    unit, last = window.unit, window.last
    if window.current:
        return f"this {unit}" if last == 1 else f"the last {last} {unit}s, this one among them"
    return f"the last whole {unit}" if last == 1 else f"the last {last} whole {unit}s"


def describe_comparison(comparison: rules.Comparison) -> str:
    """A comparison in words."""
    cast = f"as {comparison.cast} " if comparison.cast else ""
    return cast + " and ".join(_test(test) for test in comparison.tests)


def _test(test: rules.Test) -> str:
    operand = test.operand
    if test.operator == "exists":
        return "exists" if operand else "is missing"
    if isinstance(operand, rules.TraitValue):
        said = f"trait {'.'.join(operand.path)}"
    elif isinstance(operand, rules.Instant):
        sign = "+" if operand.ms > 0 else "-"
        moved = f"{sign}{duration(abs(operand.ms))}" if operand.ms else ""
        said = f"now{moved}" if operand.relative else instant(operand.ms)
    elif test.operator in ("within_last", "within_next"):
        said = duration(operand)
    elif isinstance(operand, tuple):
        said = ", ".join(map(shown, operand))
    else:
        said = shown(operand)
    return f"{_OPERATORS.get(test.operator, test.operator)} {said}"


def _selection(selection: rules.Selection) -> str:
    names = "any event" if selection.events == ("*",) else " or ".join(selection.events)
    return names if selection.where is None else f"{names} where {_condition(selection.where)}"


def _condition(condition: Any) -> str:
    if isinstance(condition, rules.Check):
        return f"{'.'.join(condition.path)} {describe_comparison(condition.comparison)}"
    if isinstance(condition, rules.NotOf):
        return f"not ({_condition(condition.part)})"
    word = " and " if isinstance(condition, rules.AllOf) else " or "
    return "(" + word.join(_condition(part) for part in condition.parts) + ")"


def _score(rule: rules.Score) -> str:
    lines = [f"{weight.weight:.15g} × {_selection(weight.selection)}" for weight in rule.weights]
    more = f" and {len(lines) - _MOST_LINES} more" if len(lines) > _MOST_LINES else ""
    events = " + ".join(lines[:_MOST_LINES]) + more
    within = describe_window(rules.Within(rule.within_ms))
    return f"score of {events} {describe_comparison(rule.comparison)}, half-life {duration(rule.half_life_ms)},{within}"


def _sequence(rule: rules.Sequence) -> str:
    paths = {step.by for step in rule.steps}
    by = next(iter(paths)) if len(paths) == 1 else ()
    said = "sequence: " + ", then ".join(_step(step, not by) for step in rule.steps)
    if by:
        said += f", of the same {'.'.join(by)}"
    if rule.within_ms:
        said += f", within {duration(rule.within_ms)}"
    return said + (f", believed after {duration(rule.grace_ms)} more" if rule.grace_ms else "")


def _step(step: rules.Step, with_path: bool) -> str:
    by = f" by {'.'.join(step.by)}" if with_path and step.by else ""
    within = f" within {duration(step.within_ms)}" if step.within_ms else ""
    return f"{'no ' if step.absent else ''}{_selection(step.selection)}{by}{within}"
