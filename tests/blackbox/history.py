"""When somebody who has one identifier enters and leaves a segment: DESIGN sections 3 and 6, by asking at every instant
at which anything could change.

Such a person has one route, so their events are folded in the order in which they were sent, and the whole log can be
compared, each `at` to the millisecond.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from tests.blackbox.language import Rules
from tests.blackbox.people import Sent, facts_of
from tests.blackbox.values import Facts, as_instant, calendar_window, duration_ms, value_as_instant

# How far a task's clock may be beyond the `received` of what it reads: ticks go by the wall clock, and an event is on
# its way for a while. A membership that another lag would change is compared with each of them.
LAGS_MS = (0, 20, 100, 400, 1_000, 2_500, 6_000)


@dataclass(frozen=True, slots=True)
class Change:
    """A transition: `entered` or `exited`, when, and by what."""

    change: str
    at: int
    cause: str


def histories(
    rules: Rules, segment: str, profile_id: str, events: Sequence[Sent], clocks: Mapping[int, int], until: int
) -> list[list[Change]]:
    """The logs that are right for this person and segment, up to the instant `until`: one for each lag. `clocks`: by an
    event's number, the latest `received` of all that had been sent when it was."""
    found: list[list[Change]] = []
    for lag_ms in LAGS_MS:
        log = history(rules, segment, profile_id, events, clocks, until, lag_ms)
        if log not in found:
            found.append(log)
    return found


def history(
    rules: Rules,
    segment: str,
    profile_id: str,
    events: Sequence[Sent],
    clocks: Mapping[int, int],
    until: int,
    lag_ms: int = 0,
) -> list[Change]:
    """The log of one person and segment, if the clock is always `lag_ms` ahead of what comes."""
    log: list[Change] = []
    clock = 0
    facts = Facts(profile_id)

    def see(now: int, at: int, cause: str) -> None:
        is_member = rules.is_member(segment, facts, now)
        if is_member != bool(log and log[-1].change == "entered"):
            log.append(Change("entered" if is_member else "exited", max(at, log[-1].at if log else at), cause))

    def pass_time(to: int) -> None:
        if facts.events:
            for instant in instants(rules, segment, facts, clock, to):
                see(instant, instant, "timer")

    for number, event in enumerate(events):
        to = max(clock, clocks[event.number] + lag_ms)
        pass_time(to)
        clock = to
        facts = facts_of(profile_id, events[: number + 1])
        see(clock, event.time, "event")
    pass_time(max(until, clock))
    return log


def instants(rules: Rules, segment: str, facts: Facts, after: int, until: int) -> Iterable[int]:
    """Every instant in (after, until] at which time alone might change what the rule says, in order."""
    tree = list(parts(rules, rules.segments[segment]))
    marks = [event.time for event in facts.events]
    marks += [each for value in facts.traits.values() if (each := value_as_instant(value)) is not None]
    shifts = {0}
    found: set[int] = set()
    for part in tree:
        shifts |= set(spans(part))
        for key in ("valid_from", "valid_until", "from", "to"):
            if isinstance(part.get(key), str):
                found.add(as_instant(part[key], part.get("time_zone", "UTC")))
        if "unit" in part:
            found |= set(calendar_window({**part, "last": 1, "current": True}, until))
    for mark in marks:
        for shift in shifts:
            found |= {mark + shift, mark + shift + 1, mark - shift, mark - shift + 1}
    return sorted(each for each in found if after < each <= until)


def spans(part: Mapping[str, Any]) -> Iterable[int]:
    """The durations after which something of this part may change."""
    lengths = [
        duration_ms(part[key]) for key in ("within", "within_last", "within_next") if isinstance(part.get(key), str)
    ]
    grace = duration_ms(part["grace"]) if isinstance(part.get("grace"), str) else 0
    if "steps" in part:
        limits = [duration_ms(step["within"]) for step in part["steps"] if "within" in step]
        for count in range(1, len(limits) + 1):
            lengths += [sum(chosen) for chosen in combinations(limits, count)]
    for key in ("before", "after"):
        text = part.get(key)
        if isinstance(text, str) and text.startswith("now") and text != "now":
            lengths.append(duration_ms(text[4:]))
    return {length + each for length in lengths for each in (0, grace)}


def parts(rules: Rules, node: Any) -> Iterable[Mapping[str, Any]]:
    """Every mapping in a rule, those of the segments and computed traits that it rests on too."""
    if isinstance(node, Mapping):
        yield node
        for key, value in node.items():
            if key == "in_segment" and value in rules.segments:
                yield from parts(rules, rules.segments[value])
            elif key == "computed" and isinstance(value, Mapping):
                for name in value:
                    yield from parts(rules, rules.computed[name])
            yield from parts(rules, value)
    elif isinstance(node, list):
        for each in node:
            yield from parts(rules, each)
