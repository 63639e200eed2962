"""What segments cost an event: 10 against 1,000 segments of which it touches 5, and 20 window rules touched in part.

    python bench/segments.py [--events 20000]

Each event is folded, and the profile it belongs to judged, as unify does it: settle to its time, fold, update.
"""

import argparse
import random
import time
from typing import Any

from pipeline.definitions.segments import compile_definitions
from pipeline.profile import Fragment, decode_fragment, encode_fragment
from pipeline.records import Event
from pipeline.segments import SegmentsPlan

PROFILES = 200
DAY_MS = 86_400_000


def touched_rules() -> list[dict[str, Any]]:
    """Five rules that a Page Viewed touches."""
    viewed = {"event": "Page Viewed"}
    return [
        {"performed": {**viewed, "count": {"at_least": 3}, "within": "7d"}},
        {"performed": {**viewed, "where": {"properties.path": "/pricing"}, "within": "30d"}},
        {"not": {"performed": {**viewed, "within": "14d"}}},
        {"performed": {**viewed, "sum": {"of": "properties.seconds", "at_least": 600}, "within": "7d"}},
        {"all": [{"performed": {**viewed, "count": {"at_least": 10}}}, {"trait": {"plan": "free"}}]},
    ]


def other_rule(number: int) -> dict[str, Any]:
    """A rule that a Page Viewed does not touch: another event, or the same one on another page."""
    if number % 2:
        event = f"Event {number}"
        return {"performed": {"event": event, "count": {"at_least": 1 + number % 5}, "within": f"{1 + number % 30}d"}}
    where = {"properties.path": f"/products/{number}"}
    return {"not": {"performed": {"event": "Page Viewed", "where": where, "within": f"{1 + number % 30}d"}}}


def plan_of(count: int) -> SegmentsPlan:
    """`count` segments, five of which the events touch."""
    rules = touched_rules()
    rules += [other_rule(number) for number in range(count - len(rules))]
    return compile_definitions([({"segment": f"s{number}", "when": rule}, 1) for number, rule in enumerate(rules)])


def window_rules() -> SegmentsPlan:
    """Twenty window rules over four events."""
    names = ("Page Viewed", "Cart Viewed", "Order Completed", "Mail Opened")
    rules = [
        {"performed": {"event": names[n % 4], "count": {"at_least": 1 + n // 4}, "within": f"{1 + n}d"}}
        for n in range(20)
    ]
    return compile_definitions([({"segment": f"s{number}", "when": rule}, 1) for number, rule in enumerate(rules)])


def events_of(count: int, names: tuple[str, ...]) -> list[tuple[int, Event]]:
    """Events of many profiles, some minutes apart, one in twenty late."""
    rng = random.Random(7)
    now_ms = 1_750_000_000_000
    made = []
    for number in range(count):
        now_ms += rng.randrange(2 * 60_000)
        time_ms = now_ms - (rng.randrange(DAY_MS) if rng.random() < 0.05 else 0)
        properties = {"path": "/pricing" if rng.random() < 0.3 else "/", "seconds": rng.randrange(60)}
        event = Event(f"m{number}", "track", rng.choice(names), ["user_id:1"], time_ms, now_ms, properties=properties)
        made.append((rng.randrange(PROFILES), event))
    return made


def microseconds(plan: SegmentsPlan, events: list[tuple[int, Event]]) -> tuple[float, int]:
    """(µs per event, flips)."""
    facts = [Fragment() for _ in range(PROFILES)]
    standings = [plan.begin(one, 0) for one in facts]
    flips = 0
    started = time.process_time()
    for number, event in events:
        one, standing, now_ms = facts[number], standings[number], event.received
        deadline = standing.deadline
        if deadline and deadline <= now_ms:
            for _, some in plan.settle(standing, one, now_ms):
                flips += len(some)
        flips += len(plan.update(standing, one, now_ms, plan.fold(one.leaves, event)))
    return (time.process_time() - started) / len(events) * 1e6, flips


def begin_microseconds(plan: SegmentsPlan, events: list[tuple[int, Event]]) -> float:
    """µs to judge a profile from scratch."""
    facts = Fragment()
    for _, event in events[:100]:
        plan.fold(facts.leaves, event)
    started = time.process_time()
    for _ in range(1_000):
        plan.begin(facts, events[100][1].received)
    return (time.process_time() - started) * 1e3


def drain_microseconds(plan: SegmentsPlan, events: list[tuple[int, Event]]) -> tuple[float, int]:
    """(µs to read a stored profile, judge it and let all its deadlines pass, flips)."""
    stored = []
    for number in range(PROFILES):
        facts = Fragment()
        for place, event in events[: 40 * PROFILES]:
            if place == number:
                plan.fold(facts.leaves, event)
        stored.append(encode_fragment(facts))
    start_ms, end_ms = events[40 * PROFILES][1].received, events[-1][1].received + 400 * DAY_MS
    flips = 0
    started = time.process_time()
    for data in stored:
        facts = decode_fragment(data)
        for _, some in plan.settle(plan.begin(facts, start_ms), facts, end_ms):
            flips += len(some)
    return (time.process_time() - started) / PROFILES * 1e6, flips


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    count = parser.parse_args().events
    viewed = events_of(count, ("Page Viewed",))
    few, many = plan_of(10), plan_of(1_000)
    # The least of five rounds of processor time: the machine has other work.
    rounds = [(microseconds(few, viewed), microseconds(many, viewed)) for _ in range(5)]
    small, large = (min(one[side] for one in rounds) for side in (0, 1))
    print(f"   10 segments, 5 touched: {small[0]:6.2f} µs per event, {small[1]} flips")
    print(f"1,000 segments, 5 touched: {large[0]:6.2f} µs per event, {large[1]} flips; ratio {large[0] / small[0]:.2f}")
    mixed = events_of(count, ("Page Viewed", "Cart Viewed", "Order Completed", "Mail Opened"))
    windows = window_rules()
    best = min(microseconds(windows, mixed) for _ in range(5))
    print(f"20 window rules, 5 touched: {best[0]:5.2f} µs per event, {best[1]} flips")
    drained = drain_microseconds(windows, mixed)
    print(f"a stored profile of 20 window rules, all deadlines: {drained[0]:.1f} µs, {drained[1] / PROFILES:.1f} flips")
    print(f"begin with 10 and 1,000 segments: {begin_microseconds(few, viewed):.1f} and ", end="")
    print(f"{begin_microseconds(many, viewed):.1f} µs")


if __name__ == "__main__":
    main()
