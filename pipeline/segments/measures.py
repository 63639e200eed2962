"""Measures: the value of a leaf at a clock, and the next instant at which time alone may change it."""

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.segments.leaves import distinct_count
from pipeline.segments.values import from_nano, local_offset_ms, of_json_text, to_nano
from pipeline.segments.windows import NEVER, EverWindow, RollingWindow, Window

Value = Callable[[Any, int], tuple[Any, int]]
"""(state, now) -> (value, the next instant at which it may change with no event; 0 for never)."""

_HOUR_MS = 3_600_000


def sooner(a: int, b: int) -> int:
    """The earlier of two instants, where 0 is never."""
    if not a or not b:
        return a or b
    return min(a, b)


def in_window(entries: list[Any], window: Window, now_ms: int) -> tuple[int, int, int]:
    """(low, high, next): entries[low:high] are in the window at `now_ms`, until `next`."""
    if isinstance(window, RollingWindow) and entries:
        # As a rule they all are: what has left went when the last one came.
        leaves_ms: int = entries[0][0] + window.span_ms
        if now_ms < leaves_ms < NEVER and entries[-1][0] <= now_ms:
            return 0, len(entries), leaves_ms
    start, end = window.bounds(now_ms)
    low = bisect_left(entries, [start])
    high = len(entries)
    next_ms = 0
    if high and entries[-1][0] >= end:
        high = bisect_left(entries, [end])
        next_ms = window.enters(entries[high][0])
    if low < high:
        leaves_ms = window.leaves(entries[low][0])
        if leaves_ms < NEVER:
            next_ms = sooner(next_ms, leaves_ms)
    return low, high, next_ms


def _statistic(function: str, count: int, nano: int, least: Any, greatest: Any) -> Any:
    if function == "count":
        return count
    if function == "sum":
        return from_nano(nano)
    if not count:
        return None
    if function == "average":
        return from_nano(nano, count)
    return least if function == "min" else greatest


def lifetime_statistic(function: str) -> Value:
    """Over a Statistics state."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return _statistic(function, 0, 0, None, None), 0
        return _statistic(function, state[0], int(state[1]), state[2], state[3]), 0

    return value


def windowed_statistic(function: str, window: Window, tile_ms: int) -> Value:
    """Over NumberEntries or TimeEntries, with what the tiles hold: a tile counts whole until its end leaves the
    window."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return _statistic(function, 0, 0, None, None), 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        count, nano, least, greatest = high - low, 0, None, None
        entries = state[0]
        if function == "min" and count:
            least = min(entry[1] for entry in entries[low:high])
        elif function == "max" and count:
            greatest = max(entry[1] for entry in entries[low:high])
        elif function != "count" and count:
            # All but what has left the window since the last event, or isn't in it yet.
            nano = int(state[4])
            if count < len(entries):
                nano -= sum(to_nano(entry[1]) for entry in (*entries[:low], *entries[high:]))
        if state[2]:
            start, end = window.bounds(now_ms)
            for number, tile in state[2].items():
                last_ms = (number + 1) * tile_ms - 1
                if start <= last_ms and number * tile_ms < end:
                    count += tile[0]
                    nano += int(tile[1])
                    least = tile[2] if least is None else min(least, tile[2])
                    greatest = tile[3] if greatest is None else max(greatest, tile[3])
                    next_ms = sooner(next_ms, window.leaves(last_ms))
        return _statistic(function, count, nano, least, greatest), next_ms

    return value


def lifetime_count(state: Any, now_ms: int) -> tuple[Any, int]:
    """Over a Counter state."""
    return state or 0, 0


def lifetime_distinct(state: Any, now_ms: int) -> tuple[Any, int]:
    """Over a DistinctValues state."""
    return distinct_count(state), 0


def windowed_distinct(window: Window) -> Value:
    """Over HashEntries."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return 0, 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        return len({entry[1] for entry in state[0][low:high]}), next_ms

    return value


def end_time(last: bool, window: Window | None) -> Value:
    """The first or last time: over FirstAndLast (no window), or TimeEntries."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return None, 0
        if window is None:
            return state[1 if last else 0], 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        if low == high:
            return None, next_ms
        return state[0][high - 1 if last else low][0], next_ms

    return value


def end_value(last: bool, window: Window | None) -> Value:
    """The value seen first or last: over ValueAt (no window), or TextEntries."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return None, 0
        if window is None:
            return of_json_text(state[1]), 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        if low == high:
            return None, next_ms
        return of_json_text(state[0][high - 1 if last else low][1]), next_ms

    return value


def _most_frequent(tally: dict[str, int]) -> Any:
    if not tally:
        return None
    most = max(tally.values())
    return of_json_text(min(text for text, count in tally.items() if count == most))


def lifetime_most_frequent(state: Any, now_ms: int) -> tuple[Any, int]:
    """Over a Frequencies state."""
    return _most_frequent(state or {}), 0


def windowed_most_frequent(window: Window) -> Value:
    """Over TextEntries."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return None, 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        return _most_frequent(Tally(entry[1] for entry in state[0][low:high])), next_ms

    return value


def _listed(newest: dict[str, int], limit: int) -> Any:
    kept = sorted(newest, key=lambda text: (newest[text], text))[-limit:]
    return [of_json_text(text) for text in sorted(kept)] or None


def lifetime_unique(limit: int) -> Value:
    """Over a RecentValues state."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        return _listed(state or {}, limit), 0

    return value


def windowed_unique(window: Window, limit: int) -> Value:
    """Over TextEntries."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return None, 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        return _listed({entry[1]: entry[0] for entry in state[0][low:high]}, limit), next_ms

    return value


def hour_getter(time_zone: str) -> Callable[[Any], int]:
    """Reads the local hour of an event's time."""
    zone = ZoneInfo(time_zone)

    def hour(event: Any) -> int:
        time_ms: int = min(event.time, event.received)
        return (time_ms + local_offset_ms(time_ms, zone)) // _HOUR_MS % 24

    return hour


def _preferred_hour(tally: dict[str, int]) -> int | None:
    return min((-count, int(text)) for text, count in tally.items())[1] if tally else None


def preferred_hour(window: Window) -> Value:
    """Over Frequencies (ever) or TextEntries of hours."""

    def value(state: Any, now_ms: int) -> tuple[Any, int]:
        if state is None:
            return None, 0
        if isinstance(window, EverWindow):
            return _preferred_hour(state), 0
        low, high, next_ms = in_window(state[0], window, now_ms)
        return _preferred_hour(Tally(entry[1] for entry in state[0][low:high])), next_ms

    return value
