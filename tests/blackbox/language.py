"""The segment language as docs/segments.md and docs/accounts.md have it: what a rule says of some facts at an instant.

Everything is asked anew of all events, at each call. Definitions are mappings as they stand in YAML.
"""

import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from typing import Any
from zoneinfo import ZoneInfo

from tests.blackbox.values import (
    MISSING,
    Facts,
    Seen,
    as_instant,
    as_number,
    at_path,
    calendar_window,
    compare_result,
    duration_ms,
    is_number,
    is_scalar,
    of_event,
    passes,
    same,
)


class Rules:
    """A set of definitions, and what they say."""

    def __init__(self, documents: Sequence[Mapping[str, Any]]) -> None:
        self.segments = {each["segment"]: each for each in documents if "segment" in each}
        self.computed = {each["computed"]: each["compute"] for each in documents if "computed" in each}

    def names(self, entity: str) -> list[str]:
        return [name for name, each in self.segments.items() if each.get("entity", "person") == entity]

    def is_member(self, segment: str, facts: Facts, now: int) -> bool:
        """Whether the profile is in a segment at `now`."""
        definition = self.segments[segment]
        begins, ends = definition.get("valid_from"), definition.get("valid_until")
        if begins is not None and now < as_instant(begins):
            return False
        if ends is not None and now >= as_instant(ends):
            return False
        return self.holds(definition["when"], facts, now)

    def holds(self, rule: Mapping[str, Any], facts: Facts, now: int) -> bool:
        """Whether a rule is true of the facts at `now`."""
        ((kind, said),) = rule.items()
        match kind:
            case "all":
                return all(self.holds(each, facts, now) for each in said)
            case "any":
                return any(self.holds(each, facts, now) for each in said)
            case "not":
                return not self.holds(said, facts, now)
            case "performed":
                return performed(said, facts, now)
            case "sequence":
                return sequence(said, facts, now)
            case "score":
                return score(said, facts, now)
            case "trait":
                return all(passes(at_path(facts.traits, name), wanted, facts, now) for name, wanted in said.items())
            case "computed":
                values = {name: compute(self.computed[name], facts, now) for name in said}
                return all(passes(values[name], wanted, facts, now) for name, wanted in said.items())
            case "consent":
                asked = {"purpose": said} if isinstance(said, str) else said
                known = {True: "granted", False: "denied", None: "unknown"}[facts.consents.get(asked["purpose"])]
                return bool(known == asked.get("is", "granted"))
            case "in_segment":
                return self.is_member(said, facts, now)
            case "bucket":
                return bool(said["from"] <= bucket(said["salt"], facts.profile_id) < said["to"])
            case "members":
                return self._members(said, facts, now)
            case "account":
                return any(self._account(said, account, now) for account in facts.accounts)
        raise ValueError(f"no such rule: {kind}")

    def _account(self, said: Mapping[str, Any], account: Facts, now: int) -> bool:
        if "trait" in said and not self.holds({"trait": said["trait"]}, account, now):
            return False
        return "in_segment" not in said or self.is_member(said["in_segment"], account, now)

    def _members(self, said: Mapping[str, Any], account: Facts, now: int) -> bool:
        matching = sum(self.holds(said["match"], person, now) for person in account.people)
        if said.get("none"):
            return matching == 0
        if said.get("all"):
            return matching == len(account.people)
        compared = {name: bound for name, bound in said.items() if name not in {"match", "any"}}
        return compare_result(matching, compared) if compared else matching >= 1


# ------------------------------------------------------------------------------------------------------------ performed


def named(event: Seen, names: Any) -> bool:
    return names == "*" or event.name in ([names] if isinstance(names, str) else names)


def passes_where(event: Seen, where: Mapping[str, Any], facts: Facts, now: int) -> bool:
    for path, wanted in where.items():
        if path == "all":
            held = all(passes_where(event, each, facts, now) for each in wanted)
        elif path == "any":
            held = any(passes_where(event, each, facts, now) for each in wanted)
        elif path == "not":
            held = not passes_where(event, wanted, facts, now)
        else:
            held = passes(of_event(event, path), wanted, facts, now)
        if not held:
            return False
    return True


def matching(said: Mapping[str, Any], facts: Facts, now: int) -> list[Seen]:
    """The events that are counted."""
    begins, ends = -math.inf, math.inf
    if "within" in said:
        begins = now - duration_ms(said["within"]) - duration_ms(said.get("grace", "0ms")) + 1
    elif "between" in said:
        window = said["between"]
        zone = window.get("time_zone", "UTC")
        begins = as_instant(window["from"], zone) if "from" in window else begins
        ends = as_instant(window["to"], zone) if "to" in window else ends
    elif "calendar" in said:
        begins, ends = calendar_window(said["calendar"], now)
    return [
        event
        for event in facts.events
        if begins <= event.time < ends
        and event.time <= now
        and named(event, said.get("event", "*"))
        and passes_where(event, said.get("where", {}), facts, now)
    ]


def numbers(events: Sequence[Seen], path: str) -> list[Fraction]:
    """The numbers at a path, each as the shortest decimal that reads back to it, rounded to nine places."""
    found = (of_event(event, path) for event in events)
    return [exact(value) for value in found if is_number(value)]


def exact(value: Any) -> Fraction:
    value = as_number(value)
    return Fraction(Decimal(repr(value)).quantize(Decimal("1e-9"), ROUND_HALF_EVEN, Context(prec=1_000)))


def distinct(events: Sequence[Seen], path: str) -> list[Any]:
    found: list[Any] = []
    for event in events:
        value = of_event(event, path)
        if is_scalar(value) and not any(same(value, each) for each in found):
            found.append(value)
    return found


def aggregate(function: str, events: Sequence[Seen], path: str) -> Any:
    """Sum, average, min, max or distinct over a path."""
    if function == "distinct":
        return len(distinct(events, path))
    if function in {"min", "max"}:
        values = [as_number(value) for value in (of_event(event, path) for event in events) if is_number(value)]
        return (min if function == "min" else max)(values) if values else MISSING
    values_exact = numbers(events, path)
    total = sum(values_exact, Fraction())
    if function == "sum":
        return nearest(total)
    return nearest(total / len(values_exact)) if values_exact else MISSING


def nearest(number: Fraction) -> float:
    """The double nearest to it: the last one, where it is beyond all."""
    last = Fraction(sys.float_info.max)
    return float(max(-last, min(last, number)))


def performed(said: Mapping[str, Any], facts: Facts, now: int) -> bool:
    events = matching(said, facts, now)
    for function in ("sum", "average", "min", "max", "distinct"):
        if function in said:
            compared = {name: bound for name, bound in said[function].items() if name != "of"}
            return compare_result(aggregate(function, events, said[function]["of"]), compared)
    for function, choose in (("first", min), ("last", max)):
        if function in said:
            time = choose((event.time for event in events), default=MISSING)
            return passes(time, said[function], facts, now)
    return compare_result(len(events), said.get("count", {"at_least": 1}))


# --------------------------------------------------------------------------------------------------- sequence and score


def sequence(said: Mapping[str, Any], facts: Facts, now: int) -> bool:
    """Whether there is a match, by trying every event for every step."""
    grace = duration_ms(said.get("grace", "0ms"))
    steps = said["steps"]
    seen = [event for event in facts.events if event.time <= now]

    def candidates(step: Mapping[str, Any]) -> Iterator[tuple[Seen, Any]]:
        path = step.get("by", said.get("by"))
        for event in seen:
            if not named(event, step["event"]) or not passes_where(event, step.get("where", {}), facts, now):
                continue
            key = of_event(event, path) if path else MISSING
            if path is None or is_scalar(key):
                yield event, key

    def breaks(step: Mapping[str, Any], key: Any, after: int, until: int, by_key: bool) -> bool:
        return any(
            after < event.time <= until and (not by_key or same(key, other)) for event, other in candidates(step["not"])
        )

    by_key = "by" in said or any("by" in step or "by" in step.get("not", {}) for step in steps)

    def walk(index: int, anchor: int, key: Any) -> bool:
        if index == len(steps):
            return True
        step = steps[index]
        if "not" in step:
            if "within" not in step:
                return walk_past(index, anchor, key)
            ends = anchor + duration_ms(step["within"])
            return ends + grace <= now and not breaks(step, key, anchor, ends, by_key) and walk(index + 1, ends, key)
        return any(walk(index + 1, event.time, key) for event in following(step, anchor, key))

    def following(step: Mapping[str, Any], anchor: int, key: Any) -> Iterator[Seen]:
        for event, other in candidates(step):
            if event.time <= anchor or (by_key and not same(key, other)):
                continue
            if "within" not in step or event.time <= anchor + duration_ms(step["within"]):
                yield event

    def walk_past(index: int, anchor: int, key: Any) -> bool:
        absent, step = steps[index], steps[index + 1]
        return any(
            not breaks(absent, key, anchor, event.time - 1, by_key) and walk(index + 2, event.time, key)
            for event in following(step, anchor, key)
        )

    horizon = now - duration_ms(said["within"]) if "within" in said else -math.inf
    return any(event.time > horizon and walk(1, event.time, key) for event, key in candidates(steps[0]))


def score(said: Mapping[str, Any], facts: Facts, now: int) -> bool:
    half_life = duration_ms(said["half_life"])
    horizon = duration_ms(said["within"]) if "within" in said else 40 * half_life
    parts = [
        line["weight"] * 2.0 ** (-(now - event.time) / half_life)
        for line in said["events"]
        for event in facts.events
        if now - horizon < event.time <= now
        and named(event, line["event"])
        and passes_where(event, line.get("where", {}), facts, now)
    ]
    compared = {name: bound for name, bound in said.items() if name not in {"events", "half_life", "within"}}
    return compare_result(round(math.fsum(parts), 9), compared)


def bucket(salt: str, profile_id: str) -> float:
    """0 up to 100."""
    hashed = hashlib.blake2b(f"{salt}:{profile_id}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed, "big") % 1_000_000 / 10_000


# ------------------------------------------------------------------------------------------------------ computed traits


def json_text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False)


def compute(said: Mapping[str, Any], facts: Facts, now: int) -> Any:
    """The value of a computed trait at `now`."""
    function, path = said["function"], said.get("of", "")
    events = matching(said, facts, now)
    match function:
        case "count":
            return len(events)
        case "sum" | "average" | "min" | "max" | "distinct":
            return aggregate(function, events, path)
        case "first_time":
            return min((event.time for event in events), default=MISSING)
        case "last_time":
            return max((event.time for event in events), default=MISSING)
        case "preferred_hour":
            zone = ZoneInfo(said.get("time_zone", "UTC"))
            hours = Counter(datetime.fromtimestamp(event.time // 1_000, zone).hour for event in events)
            return min(hours, key=lambda hour: (-hours[hour], hour)) if hours else MISSING
    valued = [(event.time, json_text(value), value) for event in events if is_scalar(value := of_event(event, path))]
    if not valued:
        return MISSING
    texts = {text: value for _, text, value in valued}
    match function:
        case "first":
            return min(valued, key=lambda each: each[:2])[2]
        case "last":
            return max(valued, key=lambda each: each[:2])[2]
        case "most_frequent":
            counts = Counter(text for _, text, _ in valued)
            return texts[min(counts, key=lambda text: (-counts[text], text))]
        case "unique":
            newest: dict[str, int] = {}
            for time, text, _ in valued:
                newest[text] = max(time, newest.get(text, time))
            kept = sorted(newest, key=lambda text: (newest[text], text), reverse=True)[: said.get("limit", 100)]
            return [texts[text] for text in sorted(kept)]
    raise ValueError(f"no such function: {function}")
