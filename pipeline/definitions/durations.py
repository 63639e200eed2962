"""Lengths of time as people write them: `500ms`, `90s`, `15m`, `2h`, `7d`, `4w`, or several: `1h30m`."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_UNITS_MS = {
    "ms": 1,
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
_PART = re.compile(r"([0-9]+)(ms|s|m|h|d|w|y)")
_WHOLE = re.compile(r"(?:[0-9]+(?:ms|s|m|h|d|w|y))+")


def duration_ms(value: Any) -> int:
    """The length in milliseconds. Raises ValueError, with an example, for anything else than such a text."""
    if not isinstance(value, str) or not _WHOLE.fullmatch(value):
        raise ValueError(f"{value!r} is not a length of time; write a number and a unit, like 30s, 15m, 2h, 7d")
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(value))


DurationMs = Annotated[int, BeforeValidator(duration_ms)]
"""A pydantic field that reads a length of time and holds milliseconds."""
