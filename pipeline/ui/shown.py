"""How values are shown: times, lengths, numbers, JSON."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

_UNLIKE_TEXT = re.compile(
    r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null|[\[{\"“].*|\s.*|.*\s|", re.ASCII | re.DOTALL
)
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def moment(ms: Any) -> str:
    """An instant, UTC, to the second."""
    if not isinstance(ms, int | float) or not ms:
        return "—"
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return str(ms)


def machine(ms: Any) -> str:
    """An instant for the `datetime` of a `time` element."""
    return moment(ms).replace(" ", "T") + "Z" if isinstance(ms, int | float) and ms else ""


def length(ms: Any) -> str:
    """A length of time in its two largest units."""
    rest = int(ms)
    said: list[str] = []
    for unit, size in _UNITS:
        count, rest = divmod(rest, size)
        if count or said:
            said.append(f"{count} {unit}")
        if len(said) == 2:
            break
    return " ".join(one for one in said if not one.startswith("0 ")) or "0 s"


def number(value: Any) -> str:
    """A number with separators."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if isinstance(value, float) else str(value)


def value(one: Any) -> str:
    """A value of a trait or property. A text that reads like another value stands in quotes: "3" is not 3."""
    if isinstance(one, str) and _UNLIKE_TEXT.fullmatch(one):
        return f"“{one}”"
    return entered(one)


def entered(one: Any) -> str:
    """A value as it is typed into a field."""
    return one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)


def who(document: Any) -> str:
    """What to call somebody: the identifier people know best; the profile_id of whom nothing else is known or shown."""
    known = {one["namespace"]: one["value"] for one in reversed(document.get("identifiers") or [])}
    for namespace in ("email", "user_id", "account"):
        if namespace in known:
            return str(known[namespace])
    return str(next(iter(known.values()), None) or document.get("profile_id", "somebody"))


FILTERS: dict[str, Callable[[Any], str]] = {
    "moment": moment,
    "machine": machine,
    "lasting": length,
    "number": number,
    "value": value,
    "entered": entered,
    "who": who,
}
