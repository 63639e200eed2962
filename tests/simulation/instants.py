"""The instants at which a rule may change its mind by time alone, by brute force: every event time and every instant
in a definition, plus every sum of lengths of time that stand in it, a millisecond to either side."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from pipeline.records import Event
from tests.oracle.durations import calendar_window, duration_ms, instant_ms

_LENGTHS = ("within", "grace", "within_last", "within_next")


def candidates(definitions: Sequence[Mapping[str, Any]], events: Iterable[Event], low: int, high: int) -> list[int]:
    """Candidate instants in (low, high], ascending."""
    lengths: set[int] = {0}
    fixed: set[int] = set()
    for definition in definitions:
        own: list[int] = []
        _collect(definition, own, fixed, low, high)
        own = sorted(own)[:6]
        for size in range(1, min(len(own), 4) + 1):
            lengths |= {sum(chosen) for chosen in combinations(own, size)}
    bases: set[int] = set()
    for event in events:
        bases.add(event.time)
        bases |= {value for value in event.traits.values() if isinstance(value, int) and value > 10**11}
    found = {base + sign * length for base in bases for length in lengths for sign in (1, -1)} | fixed
    return sorted({near for one in found for near in (one - 1, one, one + 1) if low < near <= high})


def _collect(node: Any, lengths: list[int], fixed: set[int], low: int, high: int) -> None:
    if isinstance(node, list):
        for one in node:
            _collect(one, lengths, fixed, low, high)
        return
    if not isinstance(node, Mapping):
        return
    for key, body in node.items():
        if key in _LENGTHS and isinstance(body, str):
            lengths.append(duration_ms(body))
        elif key in ("before", "after") and isinstance(body, str) and body.startswith("now"):
            lengths.append(duration_ms(body[4:]) if len(body) > 3 else 0)
        elif key in ("before", "after", "from", "to", "valid_from", "valid_until") and isinstance(body, str):
            fixed.add(instant_ms(body, node.get("time_zone", "UTC")) or 0)
        elif key == "calendar":
            at, steps = low, 0
            while at <= high and steps < 60:
                _, at = calendar_window(at, body["unit"], 1, True, body.get("time_zone", "UTC"))
                fixed.add(at)
                steps += 1
        else:
            _collect(body, lengths, fixed, low, high)
