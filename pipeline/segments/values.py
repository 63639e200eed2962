"""Values and how they compare: typed, null is missing, a numeric text is no number (docs/segments.md, section 3).

A comparison compiles to a closure once; nothing is parsed when an event comes. `None` stands for missing everywhere.
"""

import json
import math
import re as standard_re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from typing import Any

import re2

from pipeline.segments.rules import AllOf, AnyOf, Check, Comparison, Instant, NotOf, Test, TraitValue

Predicate = Callable[[Any], bool]
PredicateWithTraits = Callable[[Any, Mapping[str, Any]], bool]
Getter = Callable[[Any], Any]
Judge = Callable[[Any, Mapping[str, Any], int], tuple[bool, int]]
"""(value, traits, now) -> (truth, the next instant at which time alone may change it; 0 for never)."""

NEGATED = {"not_equals": "equals", "not_in": "in", "not_contains": "contains"}
ORDERINGS = ("greater_than", "more_than", "at_least", "less_than", "at_most")
_INT64 = 1 << 63
_LONGEST_INT64 = 20
_FARTHEST_MS = 1 << 61
_NUMBER = standard_re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_INSTANT = standard_re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?(Z|[+-]\d{2}:?\d{2})?)?\Z",
    standard_re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL = Context(prec=400, rounding=ROUND_HALF_EVEN, Emax=10_000, Emin=-10_000)
NANO = 10**9
# Up to here every whole number is a double.
_EXACT_WHOLE = 2**53
_LAST_DOUBLE = int(sys.float_info.max)


# ---------------------------------------------------------------------------------------------------------- reading


@lru_cache(maxsize=20_000)
def parse_instant(text: str) -> int | None:
    """A text as ms since the epoch (UTC where it has no offset), or None if it is no instant."""
    found = _INSTANT.match(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        local = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError:
        return None
    ms = (local - _EPOCH) // timedelta(milliseconds=1) + int(((fraction or "") + "000")[:3])
    if offset and offset != "Z":
        hours, minutes = int(offset[1:3]), int(offset[-2:])
        if hours > 23 or minutes > 59:
            return None
        shift = (hours * 60 + minutes) * 60_000
        ms += shift if offset[0] == "-" else -shift
    return ms


def instant_of(value: Any) -> int | None:
    """A value as an instant (ms): numbers are ms since the epoch, texts dates; None if it is neither. What lies further
    off than any clock will get is as far as states and deadlines can say."""
    kind = value.__class__
    if kind is str:
        at: int | None = parse_instant(value)
        return at
    if kind is int or (kind is float and math.isfinite(value)):
        whole: int = math.floor(value)
        return max(-_FARTHEST_MS, min(_FARTHEST_MS, whole))
    return None


def number_of(value: Any) -> int | float | None:
    """A value as a number in one form (3.0 as 3; what 64 bits do not hold as a double), or None if it is none."""
    kind = value.__class__
    if kind is int:
        return int(value) if -_INT64 <= value < _INT64 else _double(value)
    if kind is float:
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    return None


def _double(value: int) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return None


def scalar_key(value: Any) -> Any:
    """A hashable stand-in that is equal exactly for equal values; None for what is no text, number or boolean."""
    kind = value.__class__
    if kind is str or kind is int or kind is float:
        return value
    if kind is bool:
        return (value,)
    return None


def json_text(value: Any) -> str | None:
    """The JSON text of a text, number or boolean, numbers in one form; None for anything else."""
    kind = value.__class__
    if kind is str or kind is bool:
        return json.dumps(value, ensure_ascii=False)
    number = number_of(value)
    return None if number is None else _plain_text(number)


def of_json_text(text: str) -> Any:
    """What `json_text` made a text of. A whole number that 64 bits do not hold is a double again, and not all of its
    digits."""
    value = json.loads(text)
    return number_of(value) if value.__class__ is int else value


def _plain_text(number: int | float) -> str:
    return repr(int(number)) if isinstance(number, int) or number.is_integer() else repr(number)


def to_nano(number: int | float) -> int:
    """A number as a whole count of 10^-9: its shortest decimal, rounded half to even."""
    if number.__class__ is int:
        return int(number) * NANO
    return int(_DECIMAL.to_integral_value(_DECIMAL.scaleb(Decimal(repr(number)), 9)))


def from_nano(nano: int, count: int = 1) -> int | float:
    """The double nearest to nano / 10^9 / count; an int where it is whole and no larger than doubles are exact. What is
    beyond all doubles is the last one: JSON has no infinity."""
    divisor = NANO * count
    whole, rest = divmod(nano, divisor)
    if rest == 0 and -_EXACT_WHOLE <= whole <= _EXACT_WHOLE:
        return whole
    if -_LAST_DOUBLE <= whole < _LAST_DOUBLE:
        return nano / divisor
    return float(_LAST_DOUBLE) if whole > 0 else -float(_LAST_DOUBLE)


def _cast_number(value: Any) -> Any:
    kind = value.__class__
    if kind is int or kind is float:
        return value
    if kind is str:
        text = value.strip()
        if _NUMBER.match(text):
            if len(text) <= _LONGEST_INT64 and text.lstrip("-").isdigit():
                return number_of(int(text))
            number = float(text)
            return number if math.isfinite(number) else None
    return None


def _cast_text(value: Any) -> Any:
    kind = value.__class__
    if kind is str:
        return value
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return _plain_text(value) if math.isfinite(value) else None
    return None


CASTS: dict[str, Getter] = {"number": _cast_number, "text": _cast_text}


# ---------------------------------------------------------------------------------------------------------- testing


def _equals(operand: Any) -> Predicate:
    if isinstance(operand, bool):
        return lambda value: value is operand
    if isinstance(operand, str):
        return lambda value: value == operand
    return lambda value: value == operand and value.__class__ is not bool


def _among(operand: Any) -> Predicate:
    keys = frozenset(scalar_key(one) for one in operand)
    return lambda value: scalar_key(value) in keys


def _contains(operand: Any) -> Predicate:
    wanted = scalar_key(operand)

    def contains(value: Any) -> bool:
        if value.__class__ is str:
            return operand.__class__ is str and operand in value
        return value.__class__ is list and any(scalar_key(one) == wanted for one in value)

    return contains


_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "greater_than": lambda value, operand: value > operand,
    "more_than": lambda value, operand: value > operand,
    "at_least": lambda value, operand: value >= operand,
    "less_than": lambda value, operand: value < operand,
    "at_most": lambda value, operand: value <= operand,
}


def _ordering(operator: str, operand: Any) -> Predicate:
    compare = _COMPARE[operator]
    if isinstance(operand, str):
        return lambda value: value.__class__ is str and compare(value, operand)
    return lambda value: (value.__class__ is int or value.__class__ is float) and compare(value, operand)


def _regex(operand: str, full: bool) -> Predicate:
    options = re2.Options()
    options.log_errors = False
    pattern = re2.compile(operand, options)
    search = pattern.fullmatch if full else pattern.search
    return lambda value: value.__class__ is str and search(value) is not None


def _instant_test(operator: str, operand: int) -> Predicate:
    def test(value: Any) -> bool:
        at = instant_of(value)
        if at is None:
            return False
        return at < operand if operator == "before" else at > operand

    return test


def compile_test(test: Test) -> Predicate:
    """One operator with a fixed operand as a predicate of the value."""
    operator, operand = test.operator, test.operand
    if operator in NEGATED:
        positive = compile_test(Test(NEGATED[operator], operand))
        return lambda value: not positive(value)
    if operator in ("equals", "exactly"):
        return _equals(operand)
    if operator == "in":
        return _among(operand)
    if operator == "contains":
        return _contains(operand)
    if operator == "starts_with":
        return lambda value: value.__class__ is str and value.startswith(operand)
    if operator == "ends_with":
        return lambda value: value.__class__ is str and value.endswith(operand)
    if operator in ("regex", "regex_full"):
        return _regex(operand, operator == "regex_full")
    if operator in ORDERINGS:
        return _ordering(operator, operand)
    if operator == "exists":
        return (lambda value: value is not None) if operand else (lambda value: value is None)
    if operator in ("before", "after"):
        return _instant_test(operator, operand.ms)
    raise ValueError(f"no operator {operator!r}")


def compile_comparison(comparison: Comparison) -> Predicate:
    """A comparison whose operands are all fixed, as a predicate of the value."""
    tests = tuple(compile_test(test) for test in comparison.tests)
    cast = CASTS.get(comparison.cast)
    if cast is None and len(tests) == 1:
        return tests[0]

    def passes(value: Any) -> bool:
        if cast is not None:
            value = cast(value)
        return all(test(value) for test in tests)

    return passes


def trait_at(traits: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path whose first part names a trait; None if missing."""
    held = traits.get(path[0])
    if held is None:
        return None
    value = held[1]
    for key in path[1:]:
        if value.__class__ is not dict:
            return None
        value = value.get(key)
    return value


def _against_trait(test: Test) -> PredicateWithTraits:
    negated = test.operator in NEGATED
    operator = NEGATED.get(test.operator, test.operator)
    path = test.operand.path

    def passes(value: Any, traits: Mapping[str, Any]) -> bool:
        operand = trait_at(traits, path)
        if value is None or scalar_key(operand) is None:
            holds = False
        elif operator == "equals":
            holds = scalar_key(value) == scalar_key(operand)
        elif operand.__class__ is bool:
            holds = False
        else:
            holds = _ordering(operator, operand)(value)
        return holds is not negated

    return passes


def compile_comparison_with_traits(comparison: Comparison) -> PredicateWithTraits:
    """A comparison without relative instants, as a predicate of the value and the profile's traits."""
    fixed = tuple(t for t in comparison.tests if not isinstance(t.operand, TraitValue))
    passes_fixed = compile_comparison(Comparison(fixed))
    against = tuple(_against_trait(t) for t in comparison.tests if isinstance(t.operand, TraitValue))
    cast = CASTS.get(comparison.cast)

    def passes(value: Any, traits: Mapping[str, Any]) -> bool:
        if cast is not None:
            value = cast(value)
        return passes_fixed(value) and all(test(value, traits) for test in against)

    return passes


def _flips_of(test: Test, at: int) -> tuple[bool | None, tuple[int, ...]]:
    """For an instant `at`: the instants at which a relative test changes (it starts true before them if the flag
    says)."""
    operator, operand = test.operator, test.operand
    if operator == "before":
        return False, (at - operand.ms + 1,)
    if operator == "after":
        return True, (at - operand.ms,)
    if operator == "within_last":
        return False, (at, at + operand)
    return False, (at - operand, at)


def is_relative(test: Test) -> bool:
    """Whether time alone changes the test's truth."""
    if test.operator in ("within_last", "within_next"):
        return True
    return isinstance(test.operand, Instant) and test.operand.relative


def compile_judge(comparison: Comparison) -> Judge:
    """Any comparison as a function of value, traits and clock that also tells when time alone may change it."""
    fixed = tuple(t for t in comparison.tests if not is_relative(t))
    relative = tuple(t for t in comparison.tests if is_relative(t))
    cast = CASTS.get(comparison.cast)
    if not any(isinstance(t.operand, TraitValue) for t in fixed):
        simple = compile_comparison(Comparison(fixed))
        with_traits: PredicateWithTraits | None = None
    else:
        with_traits = compile_comparison_with_traits(Comparison(fixed))

    def judge(value: Any, traits: Mapping[str, Any], now_ms: int) -> tuple[bool, int]:
        if cast is not None:
            value = cast(value)
        truth = simple(value) if with_traits is None else with_traits(value, traits)
        if not relative or not truth:
            return truth, 0
        at = instant_of(value)
        if at is None:
            return False, 0
        next_ms = 0
        for test in relative:
            holds, flips = _flips_of(test, at)
            for flip in flips:
                if flip <= now_ms:
                    holds = not holds
                elif not next_ms or flip < next_ms:
                    next_ms = flip
            truth = truth and bool(holds)
        return truth, next_ms

    return judge


# ------------------------------------------------------------------------------------------------ paths, conditions


def event_getter(path: tuple[str, ...]) -> Getter:
    """Reads the value at a path of an event; None if missing."""
    root, keys = path[0], path[1:]
    if root not in ("properties", "traits", "context"):
        raise ValueError(f"a path begins with properties, traits or context, not {root!r}")
    if len(keys) == 1:
        key = keys[0]
        if root == "properties":
            return lambda event: event.properties.get(key)
        if root == "context":
            return lambda event: event.context.get(key)
        return lambda event: event.traits.get(key)

    def get(event: Any) -> Any:
        value = getattr(event, root)
        for key in keys:
            if value.__class__ is not dict:
                return None
            value = value.get(key)
        return value

    return get


def has_trait_values(condition: Any) -> bool:
    """Whether a condition compares with a trait of the profile."""
    if condition is None:
        return False
    if isinstance(condition, Check):
        return any(isinstance(test.operand, TraitValue) for test in condition.comparison.tests)
    if isinstance(condition, NotOf):
        return has_trait_values(condition.part)
    return any(has_trait_values(part) for part in condition.parts)


def trait_names(condition: Any) -> set[str]:
    """The traits a condition or comparison compares with."""
    if isinstance(condition, Comparison):
        return {test.operand.path[0] for test in condition.tests if isinstance(test.operand, TraitValue)}
    if isinstance(condition, Check):
        return trait_names(condition.comparison)
    if isinstance(condition, NotOf):
        return trait_names(condition.part)
    return set().union(*(trait_names(part) for part in condition.parts)) if condition is not None else set()


def paths_of(condition: Any) -> set[tuple[str, ...]]:
    """Every path a condition reads."""
    if isinstance(condition, Check):
        return {condition.path}
    if isinstance(condition, NotOf):
        return paths_of(condition.part)
    return set().union(*(paths_of(part) for part in condition.parts))


def compile_condition(condition: Any, getter_of: Callable[[tuple[str, ...]], Getter] = event_getter) -> Predicate:
    """A condition without trait operands as a predicate of an event (or of what `getter_of` reads from)."""
    if isinstance(condition, Check):
        get, passes = getter_of(condition.path), compile_comparison(condition.comparison)
        return lambda subject: passes(get(subject))
    if isinstance(condition, NotOf):
        part = compile_condition(condition.part, getter_of)
        return lambda subject: not part(subject)
    parts = tuple(compile_condition(one, getter_of) for one in condition.parts)
    if isinstance(condition, AllOf):
        if len(parts) == 1:
            return parts[0]
        return lambda subject: all(one(subject) for one in parts)
    assert isinstance(condition, AnyOf), condition
    return lambda subject: any(one(subject) for one in parts)


def compile_condition_with_traits(
    condition: Any, getter_of: Callable[[tuple[str, ...]], Getter]
) -> PredicateWithTraits:
    """A condition as a predicate of a subject and the profile's traits."""
    if isinstance(condition, Check):
        get, passes = getter_of(condition.path), compile_comparison_with_traits(condition.comparison)
        return lambda subject, traits: passes(get(subject), traits)
    if isinstance(condition, NotOf):
        part = compile_condition_with_traits(condition.part, getter_of)
        return lambda subject, traits: not part(subject, traits)
    parts = tuple(compile_condition_with_traits(one, getter_of) for one in condition.parts)
    if isinstance(condition, AllOf):
        return lambda subject, traits: all(one(subject, traits) for one in parts)
    return lambda subject, traits: any(one(subject, traits) for one in parts)


def local_offset_ms(at_ms: int, zone: Any) -> int:
    """The offset of a time zone from UTC at an instant."""
    seconds, ms = divmod(at_ms, 1000)
    moment = datetime.fromtimestamp(seconds, UTC) + timedelta(milliseconds=ms)
    offset = moment.astimezone(zone).utcoffset()
    return 0 if offset is None else offset // timedelta(milliseconds=1)
