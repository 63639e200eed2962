"""What `headwater test` and `headwater explain` share: times as people type them, and a rule as a tree."""

from typing import Any

from rich.markup import escape
from rich.tree import Tree

from pipeline.errors import InputError
from pipeline.ingest.times import to_ms
from pipeline.segments import Explained, shown
from pipeline.shown_times import shown_time

_SHOWN_VALUE = 80


def instant(text: str, option: str) -> int:
    """A time as it was typed, in ms: ISO 8601 (UTC if it names no zone), or milliseconds. InputError."""
    found = to_ms(text)
    if isinstance(found, str):
        raise InputError(f"{option} cannot be used: {found}.", "", f"write {option} 2026-03-01T09:30:00Z")
    return found


def tree(explained: Explained, now_ms: int) -> Tree:
    """A rule with what each part sees, when time changes it, and what else would."""
    root = Tree(_label(explained, now_ms), guide_style="dim")
    _grow(root, explained, now_ms)
    return root


def _grow(branch: Tree, explained: Explained, now_ms: int) -> None:
    for part in explained.parts:
        _grow(branch.add(_label(part, now_ms)), part, now_ms)


def _label(explained: Explained, now_ms: int) -> str:
    sign = "[green]✓[/]" if explained.true else "[red]✗[/]"
    words = [f"{sign} {escape(explained.rule)}"]
    if explained.value is not None:
        words.append(f"is [bold]{escape(_short(explained.value))}[/]")
    if explained.changes_at:
        words.append(f"[yellow]changes {shown_time(explained.changes_at)}, in {span(explained.changes_at - now_ms)}[/]")
    if explained.needed:
        words.append(f"[dim]changes with {escape(explained.needed)}[/]")
    return " · ".join(words)


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= _SHOWN_VALUE else text[: _SHOWN_VALUE - 1] + "…"


def span(length_ms: int) -> str:
    """A length of time in its two largest units: `2d 4h`, `9.5s`."""
    if length_ms < 60_000:
        return f"{length_ms / 1000:g}s"
    minutes, hours, days = length_ms // 60_000, length_ms // 3_600_000, length_ms // 86_400_000
    if days:
        return f"{days}d {hours % 24}h"
    return f"{hours}h {minutes % 60}m" if hours else f"{minutes}m {length_ms // 1000 % 60}s"
