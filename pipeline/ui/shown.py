"""How values are shown: times, lengths, numbers, JSON."""

import json
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from markupsafe import Markup, escape

_UNLIKE_TEXT = re.compile(
    r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null|[\[{\"“].*|\s.*|.*\s|", re.ASCII | re.DOTALL
)
_TURNS_ROUND = {"R", "AL", "AN", "RLE", "RLO", "LRE", "LRO", "PDF", "RLI", "LRI", "FSI", "PDI"}
_APART = "\u2068{}\u2069"
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def moment(ms: Any) -> str:
    """An instant, UTC, to the second."""
    if not isinstance(ms, int | float) or not ms:
        return "—"
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, OSError, ValueError):
        return str(ms)


def standing(ms: Any) -> Markup:
    """An instant as `moment` says it, whose day stands in one line."""
    day, _, time = moment(ms).partition(" ")
    return Markup('<span class="day">{}</span> {}').format(day, time) if time else escape(day)


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


def value(one: Any, most: int | None = None) -> str:
    """A value of a trait or property, at `most` so many characters of it. A text that reads like another value stands
    in quotes: "3" is not 3."""
    text = entered(one)
    said = apart(text if most is None or len(text) <= most else text[:most] + "…")
    return f"“{said}”" if isinstance(one, str) and _UNLIKE_TEXT.fullmatch(one) else said


def apart(text: str) -> str:
    """A text that turns round what stands beside it, as one does that is written from right to left, apart from that.
    Others as they are."""
    if text.isascii() or all(unicodedata.bidirectional(one) not in _TURNS_ROUND for one in text):
        return text
    # What a text opens and does not close would reach beyond it.
    return _APART.format(text.replace("\u2069", ""))


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
    "moment": standing,
    "machine": machine,
    "lasting": length,
    "number": number,
    "value": value,
    "apart": apart,
    "entered": entered,
    "who": lambda document: apart(who(document)),
}
