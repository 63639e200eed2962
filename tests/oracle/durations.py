"""Durations and instants as docs/segments.md writes them, read on their own account."""

import re
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock
from zoneinfo import ZoneInfo

UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d+))?)?(Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)


def duration_ms(text: str) -> int:
    """`1d12h` in milliseconds."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    assert "".join(number + unit for number, unit in parts) == text, text
    return sum(int(number) * UNITS_MS[unit] for number, unit in parts)


def to_ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def instant_ms(text: str, zone: str = "UTC") -> int | None:
    """The instant a text denotes, or None."""
    found = _INSTANT.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        naive = datetime.combine(
            date(int(year), int(month), int(day)), clock(int(hour or 0), int(minute or 0), int(second or 0))
        )
    except ValueError:
        return None
    milliseconds = int((fraction or "0")[:3].ljust(3, "0"))
    if offset is None:
        return local_ms(naive, zone) + milliseconds
    if offset != "Z":
        minutes = int(offset[1:3]) * 60 + int(offset[-2:])
        naive -= timedelta(minutes=minutes if offset[0] == "+" else -minutes)
    return to_ms(naive.replace(tzinfo=UTC)) + milliseconds


def local_ms(naive: datetime, zone: str) -> int:
    """A local time as an instant: the first of two, the end of the gap where there is none."""
    place = ZoneInfo(zone)
    moment = naive.replace(tzinfo=place, fold=0).astimezone(UTC)
    if moment.astimezone(place).replace(tzinfo=None) == naive:
        return to_ms(moment)
    # In a gap: bisect for the change of offset near by.
    low, high = moment - timedelta(hours=26), moment + timedelta(hours=26)
    before = low.astimezone(place).utcoffset()
    while high - low > timedelta(milliseconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(place).utcoffset() == before:
            low = middle
        else:
            high = middle
    return round(high.timestamp()) * 1000


def unit_start(day: date, unit: str) -> date:
    """The first day of the calendar unit that holds `day`."""
    if unit == "day":
        return day
    if unit == "week":
        return day - timedelta(days=day.weekday())
    if unit == "month":
        return day.replace(day=1)
    if unit == "quarter":
        return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
    assert unit == "year"
    return day.replace(month=1, day=1)


def shifted(start: date, unit: str, units: int) -> date:
    """The first day of the unit that lies `units` later."""
    if unit in ("day", "week"):
        return start + timedelta(days=units * (7 if unit == "week" else 1))
    months = units * {"month": 1, "quarter": 3, "year": 12}[unit] + start.month - 1
    return start.replace(year=start.year + months // 12, month=months % 12 + 1)


def calendar_window(now: int, unit: str, last: int, current: bool, zone: str) -> tuple[int, int]:
    """[from, to) of a calendar window at `now`."""
    today = (EPOCH + timedelta(milliseconds=now)).astimezone(ZoneInfo(zone)).date()
    present = unit_start(today, unit)

    def starts(units: int) -> int:
        first = shifted(present, unit, units)
        return local_ms(datetime.combine(first, clock()), zone)

    # The local date and the start of the unit disagree only within a repeated or skipped midnight.
    offset = 0
    while starts(offset) > now:
        offset -= 1
    while starts(offset + 1) <= now:
        offset += 1
    if current:
        return starts(offset - last + 1), starts(offset + 1)
    return starts(offset - last), starts(offset)
