"""Whether a profile is in a segment at an instant, from all its events: docs/segments.md read word by word.

Nothing is compiled, shared or kept. Every question goes through all events again.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.records import Event
from tests.oracle.durations import EPOCH, calendar_window, duration_ms, instant_ms
from tests.oracle.profiles import ExpectedProfile, newest

Definition = Mapping[str, Any]
MISSING = None


class Facts:
    """What one profile's rules are judged on at one instant."""

    def __init__(
        self,
        events: Iterable[Event],
        profile_id: str,
        definitions: Sequence[Definition],
        now: int,
        keeps: Mapping[tuple[str, str], int] | None = None,
    ) -> None:
        """`keeps`: how long (ms) contracts let rules count an event ((name, "")), or look at a path in it."""
        self.now = now
        self.keeps = keeps or {}
        self.profile_id = profile_id
        self.events = [event for event in events if min(event.time, event.received) <= now]
        self.traits = newest(self.events)
        self.consents = consents(self.events)
        self.segments = {one["segment"]: one for one in definitions if "segment" in one}
        self.computed = {one["computed"]: one for one in definitions if "computed" in one}

    def trait(self, path: str) -> Any:
        return deeper(self.traits, path)

    def matches(self, body: Mapping[str, Any]) -> bool:
        """`members`: only accounts have any (tests/oracle/accounts.py)."""
        raise AssertionError("members of a person")

    def in_account(self, body: Mapping[str, Any]) -> bool:
        """`account`: who is asked about alone belongs to none (tests/oracle/accounts.py knows more)."""
        return False


def consents(events: Iterable[Event]) -> dict[str, str]:
    """The newest word on each purpose; at the same instant a denial."""
    said: dict[str, tuple[int, bool]] = {}
    for event in events:
        for purpose, granted in event.context.get("consent", {}).items():
            there = said.get(purpose)
            if there is None or (event.time, not granted) > (there[0], not there[1]):
                said[purpose] = (event.time, granted)
    return {purpose: "granted" if granted else "denied" for purpose, (_, granted) in said.items()}


def truth_at(
    definition: Definition,
    definitions: Sequence[Definition],
    profile: ExpectedProfile,
    profile_id: str,
    now: int,
    keeps: Mapping[tuple[str, str], int] | None = None,
) -> bool:
    """Whether the profile is a member at `now`."""
    return member(definition, Facts(profile.events, profile_id, definitions, now, keeps))


def member(definition: Definition, facts: Facts) -> bool:
    start, end = definition.get("valid_from"), definition.get("valid_until")
    if start is not None and facts.now < (instant_ms(str(start)) or 0):
        return False
    if end is not None and facts.now >= (instant_ms(str(end)) or 0):
        return False
    return holds(definition["when"], facts)


def holds(rule: Mapping[str, Any], facts: Facts) -> bool:
    """Whether a rule is true."""
    [(kind, body)] = rule.items()
    match kind:
        case "all":
            return all(holds(one, facts) for one in body)
        case "any":
            return any(holds(one, facts) for one in body)
        case "not":
            return not holds(body, facts)
        case "performed":
            return performed(body, facts)
        case "sequence":
            return sequence(body, facts)
        case "score":
            return score(body, facts)
        case "trait":
            return all(compare(facts.trait(name), comparison, facts) for name, comparison in body.items())
        case "computed":
            return all(
                compare(computed(facts.computed[name]["compute"], facts), comparison, facts)
                for name, comparison in body.items()
            )
        case "consent":
            wanted = {"purpose": body} if isinstance(body, str) else body
            return facts.consents.get(wanted["purpose"], "unknown") == wanted.get("is", "granted")
        case "in_segment":
            return member(facts.segments[body], facts)
        case "members":
            return facts.matches(body)
        case "account":
            return facts.in_account(body)
        case "bucket":
            return bool(body["from"] <= bucket(body["salt"], facts.profile_id) < body["to"])
    raise AssertionError(kind)


def bucket(salt: str, profile_id: str) -> Fraction:
    digest = hashlib.blake2b(f"{salt}:{profile_id}".encode(), digest_size=8).digest()
    return Fraction(int.from_bytes(digest, "big") % 1_000_000, 10_000)


# --------------------------------------------------------------------------------------------------- values


def deeper(value: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(value, dict):
            return MISSING
        value = value.get(part)
    return value


def of_event(event: Event, path: str) -> Any:
    root, _, rest = path.partition(".")
    return deeper({"properties": event.properties, "traits": event.traits, "context": event.context}[root], rest)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Any, other: Any) -> bool:
    """Typed equality of texts, numbers and booleans."""
    if isinstance(one, bool) or isinstance(other, bool):
        return isinstance(one, bool) and isinstance(other, bool) and one == other
    if is_number(one):
        return is_number(other) and bool(one == other)
    return isinstance(one, str) and isinstance(other, str) and one == other


def typed(value: Any) -> tuple[str, Any] | None:
    """A hashable form of a text, number or boolean that tells them apart."""
    if isinstance(value, bool):
        return "boolean", value
    if is_number(value):
        return "number", value
    return ("text", value) if isinstance(value, str) else None


def json_text(value: Any) -> str:
    if isinstance(value, float) and value == int(value):
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def as_instant(value: Any) -> int | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return math.floor(value)
    return instant_ms(value) if isinstance(value, str) else None


def cast(value: Any, to: str | None) -> Any:
    if to is None:
        return value
    if to == "number":
        if is_number(value):
            return value
        text = value.strip() if isinstance(value, str) else ""
        if not re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?", text):
            return MISSING
        return json.loads(text)
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_number(value):
        return str(int(value)) if value == int(value) else repr(value)
    return MISSING


# ---------------------------------------------------------------------------------------------- comparisons


def compare(value: Any, comparison: Any, facts: Facts) -> bool:
    """Whether a value passes a comparison: all its operators."""
    if not isinstance(comparison, Mapping):
        comparison = {"equals": comparison}
    value = cast(value, comparison.get("as"))
    return all(
        _operator(name, operand, value, facts) for name, operand in comparison.items() if name not in ("as", "of")
    )


def _operator(name: str, operand: Any, value: Any, facts: Facts) -> bool:
    if isinstance(operand, Mapping) and set(operand) == {"trait"}:
        operand = facts.trait(operand["trait"])
        if isinstance(operand, dict | list):
            operand = MISSING
    match name:
        case "equals" | "exactly":
            return same(value, operand)
        case "not_equals":
            return not same(value, operand)
        case "in":
            return any(same(value, one) for one in operand)
        case "not_in":
            return not any(same(value, one) for one in operand)
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
        case "greater_than" | "more_than":
            return _ordered(value, operand, lambda v, x: v > x)
        case "at_least":
            return _ordered(value, operand, lambda v, x: v >= x)
        case "less_than":
            return _ordered(value, operand, lambda v, x: v < x)
        case "at_most":
            return _ordered(value, operand, lambda v, x: v <= x)
        case "between":
            low, high = operand
            return _ordered(value, low, lambda v, x: v >= x) and _ordered(value, high, lambda v, x: v <= x)
        case "exists":
            return (value is not MISSING) is bool(operand)
    moment = as_instant(value)
    if moment is None:
        return False
    match name:
        case "before":
            return moment < _operand_instant(operand, facts.now)
        case "after":
            return moment > _operand_instant(operand, facts.now)
        case "within_last":
            return facts.now - duration_ms(operand) < moment <= facts.now
        case "within_next":
            return facts.now < moment <= facts.now + duration_ms(operand)
    raise AssertionError(name)


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return isinstance(value, list) and any(same(one, operand) for one in value)


def _ordered(value: Any, operand: Any, test: Callable[[Any, Any], bool]) -> bool:
    comparable = (is_number(value) and is_number(operand)) or (isinstance(value, str) and isinstance(operand, str))
    return comparable and bool(test(value, operand))


def _operand_instant(operand: Any, now: int) -> int:
    text = str(operand)
    if text == "now":
        return now
    if text.startswith("now"):
        return now + (1 if text[3] == "+" else -1) * duration_ms(text[4:])
    found = instant_ms(text)
    assert found is not None, operand
    return found


# -------------------------------------------------------------------------------------------------- performed


def time_of(event: Event) -> int:
    return min(event.time, event.received)


def named(event: Event, names: Any) -> bool:
    return bool(names == "*" or event.event == names or (isinstance(names, list) and event.event in names))


def passes(event: Event, where: Mapping[str, Any] | None, facts: Facts) -> bool:
    for key, body in (where or {}).items():
        if key == "all":
            passed = all(passes(event, one, facts) for one in body)
        elif key == "any":
            passed = any(passes(event, one, facts) for one in body)
        elif key == "not":
            passed = not passes(event, body, facts)
        else:
            passed = compare(of_event(event, key), body, facts)
        if not passed:
            return False
    return True


def matching(body: Mapping[str, Any], facts: Facts) -> list[Event]:
    """The events with the name that pass `where` and lie in the window, by time."""
    low, high = _window(body, facts.now)
    low = max(low, _kept_since(facts, [body]))
    found = [
        event
        for event in facts.events
        if low <= time_of(event) < high and named(event, body["event"]) and passes(event, body.get("where"), facts)
    ]
    return sorted(found, key=time_of)


def _kept_since(facts: Facts, bodies: Sequence[Mapping[str, Any]]) -> float:
    """From when on events count that contracts let be kept for a while only: the shortest of all that is selected."""
    found = []
    for body in bodies:
        names = body["event"] if isinstance(body["event"], list) else [body["event"]]
        read = [one["of"] for one in (body, *body.values()) if isinstance(one, Mapping) and "of" in one]
        read += [body["by"]] if "by" in body else []
        read += _looked_into(body.get("where"))
        for (event, path), ms in facts.keeps.items():
            if not path:
                if event in names or ("*" in names and read):
                    found.append(ms)
            elif (event in names or "*" in names) and any(_leads(one, path) for one in read):
                found.append(ms)
    return facts.now - min(found) + 1 if found else -math.inf


def _looked_into(where: Any) -> list[str]:
    if isinstance(where, list):
        return [path for one in where for path in _looked_into(one)]
    found = []
    for key, body in (where or {}).items():
        found += _looked_into(body) if key in ("all", "any", "not") else [key]
    return found


def _leads(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _window(body: Mapping[str, Any], now: int) -> tuple[float, float]:
    """[from, to), before the cut at now."""
    if "within" in body:
        grace = duration_ms(body["grace"]) if "grace" in body else 0
        return now - duration_ms(body["within"]) - grace + 1, math.inf
    if "between" in body:
        dates = body["between"]
        zone = dates.get("time_zone", "UTC")
        low = instant_ms(str(dates["from"]), zone) if "from" in dates else None
        high = instant_ms(str(dates["to"]), zone) if "to" in dates else None
        return -math.inf if low is None else low, math.inf if high is None else high
    if "calendar" in body:
        units = body["calendar"]
        return calendar_window(
            now, units["unit"], units.get("last", 1), units.get("current", True), units.get("time_zone", "UTC")
        )
    return -math.inf, math.inf


def performed(body: Mapping[str, Any], facts: Facts) -> bool:
    events = matching(body, facts)
    kinds = ("count", "sum", "average", "min", "max", "distinct", "first", "last")
    kind = next((one for one in kinds if one in body), "count")
    comparison = body.get(kind, {"at_least": 1})
    if kind == "count":
        result: Any = len(events)
    elif kind in ("first", "last"):
        result = MISSING if not events else time_of(events[0 if kind == "first" else -1])
    else:
        result = aggregate(kind, comparison["of"], events)
    if result is MISSING and kind in ("average", "min", "max"):
        return False
    return compare(result, comparison, facts)


def aggregate(kind: str, path: str, events: Iterable[Event]) -> Any:
    values = [of_event(event, path) for event in events]
    if kind == "distinct":
        return len({one for one in map(typed, values) if one is not None})
    numbers = [value for value in values if is_number(value)]
    if kind in ("sum", "average"):
        exact = sum((Fraction(rounded(number)) for number in numbers), Fraction(0))
        if kind == "sum":
            return float(exact)
        return float(exact / len(numbers)) if numbers else MISSING
    if not numbers:
        return MISSING
    return min(numbers) if kind == "min" else max(numbers)


def rounded(number: float) -> Decimal:
    """The shortest decimal that reads back to the number, to nine places."""
    exact = Decimal(repr(number))
    return exact if exact == exact.to_integral_value() else exact.quantize(Decimal("1e-9"), ROUND_HALF_EVEN)


# -------------------------------------------------------------------------------------------------- sequence


def sequence(body: Mapping[str, Any], facts: Facts) -> bool:
    steps = body["steps"]
    inner = [step.get("not", step) for step in steps]
    paths = [one.get("by", body.get("by")) for one in inner]
    candidates: list[list[tuple[int, tuple[str, Any] | None]]] = []
    for one, path in zip(inner, paths, strict=True):
        found = []
        for event in facts.events:
            if not named(event, one["event"]) or not passes(event, one.get("where"), facts):
                continue
            value = None if path is None else typed(of_event(event, path))
            if path is None or value is not None:
                found.append((time_of(event), value))
        candidates.append(found)
    grace = duration_ms(body["grace"]) if "grace" in body else 0
    since = facts.now - duration_ms(body["within"]) if "within" in body else -math.inf
    selected = [one if "by" in one or "by" not in body else {**one, "by": body["by"]} for one in inner]
    since = max(since, _kept_since(facts, selected) - 1)

    def walk(place: int, anchor: int, value: tuple[str, Any] | None) -> bool:
        if place == len(steps):
            return True
        step = steps[place]
        limit = duration_ms(step["within"]) if "within" in step else None
        times = [time for time, other in candidates[place] if other == value and time > anchor]
        if "not" not in step:
            return any(walk(place + 1, time, value) for time in times if limit is None or time <= anchor + limit)
        if limit is not None:
            broken = any(time <= anchor + limit for time in times)
            return not broken and anchor + limit + grace <= facts.now and walk(place + 1, anchor + limit, value)
        following = steps[place + 1]
        bound = duration_ms(following["within"]) if "within" in following else math.inf
        return any(
            walk(place + 2, time, value)
            for time, other in candidates[place + 1]
            if other == value and anchor < time <= anchor + bound and not any(one < time for one in times)
        )

    return any(walk(1, time, value) for time, value in candidates[0] if time > since)


# ----------------------------------------------------------------------------------------------------- score


def score(body: Mapping[str, Any], facts: Facts) -> bool:
    half_life = duration_ms(body["half_life"])
    horizon = duration_ms(body["within"]) if "within" in body else 40 * half_life
    horizon = min(horizon, facts.now - _kept_since(facts, body["events"]) + 1)
    terms = []
    for line in body["events"]:
        for event in facts.events:
            age = facts.now - time_of(event)
            if age < horizon and named(event, line["event"]) and passes(event, line.get("where"), facts):
                terms.append(line["weight"] * 2.0 ** (-age / half_life))
    others = {"events", "half_life", "within"}
    return compare(round(math.fsum(terms), 9), {name: x for name, x in body.items() if name not in others}, facts)


# -------------------------------------------------------------------------------------------------- computed


def prediction(model: str, facts: Facts) -> Any:
    """The newest score of a model, unless it is no longer valid."""
    told = []
    selected = {"event": "Score", "of": "properties.value", "by": "properties.valid_until"}
    kept_since = _kept_since(facts, [selected])
    for event in facts.events:
        value = event.properties.get("value")
        if time_of(event) < kept_since:
            continue
        if event.event == "Score" and event.properties.get("model") == model and typed(value):
            until = as_instant(event.properties.get("valid_until"))
            # Of two at the same instant that say the same, the one that ends; of two that end, the later.
            told.append((time_of(event), json_text(value), -math.inf if until is None else until, value))
    if not told:
        return MISSING
    _, _, until, value = max(told, key=lambda one: one[:3])
    return MISSING if -math.inf < until <= facts.now else value


def computed(body: Mapping[str, Any], facts: Facts) -> Any:
    """The value of a computed trait."""
    function = body["function"]
    if function == "prediction":
        return prediction(body["model"], facts)
    events = matching(body, facts)
    if function == "count":
        return len(events)
    if function in ("sum", "average", "min", "max", "distinct"):
        return aggregate(function, body["of"], events)
    if not events:
        return MISSING
    if function == "first_time":
        return time_of(events[0])
    if function == "last_time":
        return time_of(events[-1])
    if function == "preferred_hour":
        zone = ZoneInfo(body.get("time_zone", "UTC"))
        hours = Counter((EPOCH + timedelta(milliseconds=time_of(one))).astimezone(zone).hour for one in events)
        return min(hours, key=lambda hour: (-hours[hour], hour))
    path = body.get("of", "context.channel")
    seen = [(time_of(event), json_text(value), value) for event in events if typed(value := of_event(event, path))]
    if not seen:
        return MISSING
    if function == "first":
        return min(seen, key=lambda one: one[:2])[2]
    if function == "last":
        return max(seen, key=lambda one: one[:2])[2]
    values = {text: value for _, text, value in seen}
    if function in ("most_frequent", "preferred_channel"):
        counts = Counter(text for _, text, _ in seen)
        return values[min(counts, key=lambda text: (-counts[text], text))]
    assert function == "unique"
    latest: dict[str, int] = {}
    for time, text, _ in seen:
        latest[text] = max(time, latest.get(text, time))
    kept = sorted(latest, key=lambda text: (latest[text], text), reverse=True)[: body.get("limit", 100)]
    return [values[text] for text in sorted(kept)]
