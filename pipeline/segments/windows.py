"""Windows: which event times count at a clock, and when that changes.

An event at time t is in the window at `now` if and only if enters(t) <= now < leaves(t). Both rise with t, so the
events in a window are always a slice of the events in order of time.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from pipeline.segments import rules
from pipeline.segments.zones import zone_of

NEVER = 1 << 62
_DAY_MS = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_FIRST_MONDAY = date(1970, 1, 5).toordinal() - _EPOCH_DAY
_FIRST_MS, _LAST_MS = -62_000_000_000_000, 253_000_000_000_000
_LONGEST_DAYS = {"day": 2, "week": 8, "month": 32, "quarter": 93, "year": 367}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}


class Window(Protocol):
    """What a leaf asks of its window. `span_ms`: an event older than that is out for good (0: never).

    `suffix`: the window reaches to the clock, so that events only ever leave it at its old end.
    """

    span_ms: int
    suffix: bool

    def bounds(self, now_ms: int) -> tuple[int, int]:
        """(start, end): an event is in the window at `now_ms` if start <= time < end."""
        ...

    def enters(self, time_ms: int) -> int:
        """The instant from which an event at `time_ms` counts."""
        ...

    def leaves(self, time_ms: int) -> int:
        """The instant from which an event at `time_ms` no longer counts; NEVER if it always will."""
        ...


class EverWindow:
    """Everything up to the clock."""

    span_ms = 0
    suffix = True

    def bounds(self, now_ms: int) -> tuple[int, int]:
        return -NEVER, now_ms + 1

    def enters(self, time_ms: int) -> int:
        return time_ms

    def leaves(self, time_ms: int) -> int:
        return NEVER


class RollingWindow:
    """(now - window_ms, now]."""

    suffix = True

    def __init__(self, window_ms: int) -> None:
        self.span_ms = window_ms

    def bounds(self, now_ms: int) -> tuple[int, int]:
        return now_ms - self.span_ms + 1, now_ms + 1

    def enters(self, time_ms: int) -> int:
        return time_ms

    def leaves(self, time_ms: int) -> int:
        return time_ms + self.span_ms


class CalendarWindow:
    """Whole calendar units of a time zone; a unit is numbered from the one of 1970-01-01 on."""

    def __init__(self, unit: str, last: int, current: bool, time_zone: str) -> None:
        self.suffix = current
        self.span_ms = (last + 1) * _LONGEST_DAYS[unit] * _DAY_MS
        self._unit, self._last = unit, last
        self._zone = zone_of(time_zone).info
        self._latest = (0, 0, 0)
        self._start = lru_cache(maxsize=4096)(self._start_of)

    def bounds(self, now_ms: int) -> tuple[int, int]:
        unit = self.unit_of(now_ms)
        if self.suffix:
            return self._start(unit - self._last + 1), now_ms + 1
        return self._start(unit - self._last), self._start(unit)

    def enters(self, time_ms: int) -> int:
        return time_ms if self.suffix else self._start(self.unit_of(time_ms) + 1)

    def leaves(self, time_ms: int) -> int:
        return self._start(self.unit_of(time_ms) + self._last + (0 if self.suffix else 1))

    def unit_of(self, time_ms: int) -> int:
        """The number of the unit that holds an instant: the last one that starts at or before it."""
        start_ms, end_ms, unit = self._latest
        if start_ms <= time_ms < end_ms:
            return unit
        # What lies before the year 1 or after 9999 belongs to the first or last unit that calendars know.
        time_ms = min(max(time_ms, _FIRST_MS), _LAST_MS)
        local = (_EPOCH + timedelta(milliseconds=time_ms)).astimezone(self._zone)
        unit = self._unit_of_day(local.date())
        while self._start(unit) > time_ms:
            unit -= 1
        while self._start(unit + 1) <= time_ms:
            unit += 1
        self._latest = (self._start(unit), self._start(unit + 1), unit)
        return unit

    def _unit_of_day(self, day: date) -> int:
        number = day.toordinal() - _EPOCH_DAY
        if self._unit == "day":
            return number
        if self._unit == "week":
            return (number - _FIRST_MONDAY) // 7
        return ((day.year - 1970) * 12 + day.month - 1) // _MONTHS[self._unit]

    def _start_of(self, unit: int) -> int:
        try:
            if self._unit == "day":
                return midnight(date.fromordinal(unit + _EPOCH_DAY), self._zone)
            if self._unit == "week":
                return midnight(date.fromordinal(unit * 7 + _FIRST_MONDAY + _EPOCH_DAY), self._zone)
            year, month = divmod(unit * _MONTHS[self._unit], 12)
            return midnight(date(1970 + year, month + 1, 1), self._zone)
        except (ValueError, OverflowError):
            return -NEVER if unit < 0 else NEVER


class KeptWindow:
    """A window of calendar units, of which nothing is kept longer than `kept_ms`."""

    def __init__(self, window: CalendarWindow, kept_ms: int) -> None:
        self.suffix = window.suffix
        self.span_ms = min(window.span_ms, kept_ms)
        self._window, self._kept_ms = window, kept_ms

    def bounds(self, now_ms: int) -> tuple[int, int]:
        start, end = self._window.bounds(now_ms)
        # Whole units that are over may lie further back than anything is kept: then nothing is in the window.
        return min(max(start, now_ms - self._kept_ms + 1), end), end

    def enters(self, time_ms: int) -> int:
        return self._window.enters(time_ms)

    def leaves(self, time_ms: int) -> int:
        return min(self._window.leaves(time_ms), time_ms + self._kept_ms)


def midnight(day: date, zone: ZoneInfo) -> int:
    """The instant at which a local day begins: its first midnight, or the end of the gap that swallowed it."""
    return local_instant(datetime.combine(day, time()), zone)


def local_instant(local: datetime, zone: ZoneInfo) -> int:
    """A local time as ms: the first, if it occurs twice; the first instant after the gap, if it doesn't occur."""
    wanted = local.replace(tzinfo=zone, fold=0)
    at = wanted.astimezone(UTC)
    if at.astimezone(zone).replace(tzinfo=None) != local:
        # In a gap the offset before it was used, so the jump lies at most a day before what came out.
        low, high = at - timedelta(days=1), at
        before = low.astimezone(zone).utcoffset()
        while high - low > timedelta(milliseconds=1):
            middle = low + (high - low) // 2
            if middle.astimezone(zone).utcoffset() == before:
                low = middle
            else:
                high = middle
        at = high.replace(microsecond=high.microsecond // 1000 * 1000)
    return (at - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=4096)
def compile_window(window: rules.Window) -> Window:
    """The window a rule names. `between` selects events when they are folded, so it is `ever` here."""
    if isinstance(window, rules.Within):
        return RollingWindow(window.window_ms)
    if isinstance(window, rules.Calendar):
        return CalendarWindow(window.unit, window.last, window.current, window.time_zone)
    if isinstance(window, rules.Kept):
        inside = compile_window(window.window)
        return (
            KeptWindow(inside, window.kept_ms) if isinstance(inside, CalendarWindow) else RollingWindow(window.kept_ms)
        )
    return EverWindow()
