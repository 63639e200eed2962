"""Values, comparisons and instants, as docs/segments.md has them (sections 1, 3 and 4).

Definitions are mappings as they stand in YAML; times are ms.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

MISSING: Any = None  # null and absent are the same
UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as rules see it. Times in ms."""

    name: str
    time: int
    properties: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Facts:
    """What is known of one profile."""

    profile_id: str
    events: list[Seen] = field(default_factory=list)
    traits: dict[str, Any] = field(default_factory=dict)
    consents: dict[str, bool] = field(default_factory=dict)
    accounts: list["Facts"] = field(default_factory=list)  # of a person
    people: list["Facts"] = field(default_factory=list)  # of an account


# ----------------------------------------------------------------------------------------------- values and comparisons


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool | int | float)


def same(left: Any, right: Any) -> bool:
    """Equal, and of one type: 3 and 3.0 are, "3" and 3 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return isinstance(left, bool) and isinstance(right, bool) and left == right
    if is_number(left) and is_number(right):
        return bool(as_number(left) == as_number(right))
    return isinstance(left, str) and isinstance(right, str) and left == right


def as_number(value: Any) -> Any:
    """A whole number that 64 bits do not hold counts as the double nearest to it."""
    return value if isinstance(value, float) or -(2**63) <= value < 2**63 else float(value)


def at_path(values: Any, path: str) -> Any:
    """What stands at a path: each dot goes one mapping deeper."""
    for step in path.split("."):
        if not isinstance(values, Mapping):
            return MISSING
        values = values.get(step)
    return values


def of_event(event: Seen, path: str) -> Any:
    section, _, inside = path.partition(".")
    return at_path(getattr(event, section), inside)


def cast(value: Any, to: str | None) -> Any:
    if to == "number":
        if isinstance(value, str):
            found = JSON_NUMBER.fullmatch(value.strip(" \t\n\r"))
            if found is None:
                return MISSING
            text = found.group()
            number = int(text) if len(text) < 21 and text.lstrip("-").isdigit() else float(text)
            return as_number(number) if math.isfinite(number) else MISSING
        return value if is_number(value) else MISSING
    if to == "text":
        if isinstance(value, bool):
            return "true" if value else "false"
        if is_number(value):
            return str(int(value)) if float(value).is_integer() else repr(float(value))
        return value if isinstance(value, str) else MISSING
    return value


def passes(value: Any, comparison: Any, facts: Facts, now: int) -> bool:
    """Whether a value passes a comparison: a mapping of operators, or a scalar that it must equal."""
    if not isinstance(comparison, Mapping):
        comparison = {"equals": comparison}
    value = cast(value, comparison.get("as"))
    return all(_operator(name, value, operand, facts, now) for name, operand in comparison.items() if name != "as")


def _ordered(value: Any, bound: Any, test: Callable[[Any, Any], bool]) -> bool:
    if is_number(value) and is_number(bound):
        return test(as_number(value), as_number(bound))
    return isinstance(value, str) and isinstance(bound, str) and test(value, bound)


def _operator(name: str, value: Any, operand: Any, facts: Facts, now: int) -> bool:
    if isinstance(operand, Mapping):  # {trait: name}
        operand = at_path(facts.traits, operand["trait"])
        if operand is MISSING:
            return name == "not_equals"
    match name:
        case "equals":
            return same(value, operand)
        case "not_equals":
            return not same(value, operand)
        case "in":
            return any(same(value, each) for each in operand)
        case "not_in":
            return not any(same(value, each) for each in operand)
        case "contains":
            return _contains(value, operand)
        case "not_contains":
            return not _contains(value, operand)
        case "starts_with":
            return isinstance(value, str) and value.startswith(operand)
        case "ends_with":
            return isinstance(value, str) and value.endswith(operand)
        case "regex":
            return isinstance(value, str) and re.search(operand, value) is not None
        case "regex_full":
            return isinstance(value, str) and re.fullmatch(operand, value) is not None
        case "greater_than":
            return _ordered(value, operand, lambda v, x: v > x)
        case "at_least":
            return _ordered(value, operand, lambda v, x: v >= x)
        case "less_than":
            return _ordered(value, operand, lambda v, x: v < x)
        case "at_most":
            return _ordered(value, operand, lambda v, x: v <= x)
        case "between":
            return _ordered(value, operand[0], lambda v, x: v >= x) and _ordered(value, operand[1], lambda v, x: v <= x)
        case "exists":
            return bool((value is not MISSING) == operand)
    instant = value_as_instant(value)
    if instant is None:
        return False
    match name:
        case "before":
            return instant < relative(operand, now)
        case "after":
            return instant > relative(operand, now)
        case "within_last":
            return now - duration_ms(operand) < instant <= now
        case "within_next":
            return now < instant <= now + duration_ms(operand)
    raise ValueError(f"no such operator: {name}")


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, list):
        return any(is_scalar(each) and same(each, wanted) for each in value)
    return isinstance(value, str) and isinstance(wanted, str) and wanted in value


def compare_result(result: Any, comparison: Mapping[str, Any]) -> bool:
    """Whether a number that events gave passes; a missing one passes nothing."""
    if result is MISSING:
        return False
    tests: dict[str, Callable[[Any], bool]] = {
        "at_least": lambda x: result >= x,
        "at_most": lambda x: result <= x,
        "exactly": lambda x: result == x,
        "more_than": lambda x: result > x,
        "less_than": lambda x: result < x,
        "between": lambda x: x[0] <= result <= x[1],
    }
    return all(tests[name](bound) for name, bound in comparison.items())


# ----------------------------------------------------------------------------------------------------------------- time


@cache
def duration_ms(text: str) -> int:
    """`1d12h` in ms."""
    return sum(int(number) * UNITS_MS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwy])", text))


def relative(text: str, now: int) -> int:
    """An instant of a rule: absolute, or `now-30d`."""
    if not text.startswith("now"):
        return as_instant(text)
    rest = text[3:]
    return now if not rest else now + (1 if rest[0] == "+" else -1) * duration_ms(rest[1:])


@cache
def as_instant(text: str, zone: str = "UTC") -> int:
    """An instant of a definition: with an offset, or local time of the zone."""
    found = value_as_instant(text)
    assert found is not None, text
    if zone == "UTC" or re.search(r"(Z|[+-]\d\d:?\d\d)$", text[10:]):
        return found
    return local_instant(datetime(1970, 1, 1) + timedelta(milliseconds=found), zone)  # noqa: DTZ001 - wall time


def value_as_instant(value: Any) -> int | None:
    """A value read as an instant: ms, or ISO text; without an offset UTC."""
    if is_number(value):
        return math.floor(value) if math.isfinite(value) else None
    found = INSTANT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(each or 0) for each in found.groups()[:6])
    fraction, offset = found.group(7), found.group(8)
    try:
        base = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    shift_ms = 0
    if offset and offset != "Z":
        sign = 1 if offset[0] == "+" else -1
        shift_ms = sign * (int(offset[1:3]) * 60 + int(offset[-2:])) * 60_000
    whole = (base - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return whole + int(((fraction or "") + "000")[:3]) - shift_ms


def local_instant(wall: datetime, zone: str) -> int:
    """ms of a local time: the first if it occurs twice, the first instant after the gap if it does not occur."""
    place = ZoneInfo(zone)
    earlier, later = wall.replace(tzinfo=place, fold=0), wall.replace(tzinfo=place, fold=1)
    if (
        earlier.utcoffset() != later.utcoffset()
        and earlier.astimezone(UTC).astimezone(place).replace(tzinfo=None) != wall
    ):
        # In a gap: both readings are one gap apart; the clock jumped somewhere between. Look for the instant.
        low, high = int(later.timestamp()), int(earlier.timestamp())
        before = datetime.fromtimestamp(low, place).utcoffset()
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if datetime.fromtimestamp(middle, place).utcoffset() == before else (low, middle)
        return high * 1_000
    return int(earlier.timestamp()) * 1_000


def unit_start(day: date, unit: str) -> date:
    match unit:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case "quarter":
            return date(day.year, 3 * ((day.month - 1) // 3) + 1, 1)
    return date(day.year, 1, 1)


def shifted(day: date, unit: str, by: int) -> date:
    """The start of the unit that is `by` units later."""
    match unit:
        case "day":
            return day + timedelta(days=by)
        case "week":
            return day + timedelta(weeks=by)
    months = {"month": 1, "quarter": 3, "year": 12}[unit] * by
    total = day.year * 12 + day.month - 1 + months
    return date(total // 12, total % 12 + 1, 1)


def calendar_window(said: Mapping[str, Any], now: int) -> tuple[int, int]:
    """[from, to) of a calendar window, in ms."""
    unit, zone, last = said["unit"], said.get("time_zone", "UTC"), said.get("last", 1)

    def starts(day: date) -> int:
        return local_instant(datetime(day.year, day.month, day.day), zone)  # noqa: DTZ001 - wall time

    present = unit_start(datetime.fromtimestamp(now // 1_000, ZoneInfo(zone)).date(), unit)
    while starts(present) > now:
        present = shifted(present, unit, -1)
    while starts(shifted(present, unit, 1)) <= now:
        present = shifted(present, unit, 1)
    if said.get("current", True):
        return starts(shifted(present, unit, 1 - last)), starts(shifted(present, unit, 1))
    return starts(shifted(present, unit, -last)), starts(present)
