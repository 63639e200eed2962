"""Charts as SVG, made on the server. Colours come from the style sheet, by class; a table beside each has the numbers.

Every text is escaped; nothing here knows what is charted.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

_WIDTH, _HEIGHT = 640, 160
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 22
_SMALL_WIDTH, _SMALL_HEIGHT = 132, 30
_STEPS = (1, 2, 2.5, 5, 10)


class Line(NamedTuple):
    """One line of a chart: its name, and a value for each place (None: nothing is known there)."""

    name: str
    values: Sequence[float | None]


def short(value: float) -> str:
    """A number for an axis: 1.2k, 3M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def top_of(most: float) -> float:
    """The end of an axis that holds `most`: a round number."""
    if most <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= most:
        power *= 10
    while power > most:
        power /= 10
    return next(step * power for step in _STEPS if step * power >= most)


def _axes(top: float, labels: Sequence[str], title: str, each: float, centred: bool) -> list[str]:
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    ]
    inner = _HEIGHT - _TOP - _BOTTOM
    for share in (0.0, 0.5, 1.0):
        y = _TOP + inner * (1 - share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="axis" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(short(top * share))}</text>'
        )
    every = max(1, -(-len(labels) // 6))
    for place, label in enumerate(labels):
        if label and place % every == 0:
            x = _LEFT + each * (place + (0.5 if centred else 0))
            anchor = "middle" if centred or 0 < place < len(labels) - 1 else ("start" if place == 0 else "end")
            parts.append(
                f'<text class="axis" x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{escape(label)}</text>'
            )
    return parts


def bars(values: Sequence[float], labels: Sequence[str], title: str) -> Markup:
    """Bars, one for each value, with its label below some of them."""
    top = top_of(max(values, default=0))
    each = (_WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    inner = _HEIGHT - _TOP - _BOTTOM
    parts = _axes(top, labels, title, each, True)
    for place, value in enumerate(values):
        height = inner * value / top
        parts.append(
            f'<rect class="bar" x="{_LEFT + each * place + each * 0.12:.1f}" y="{_TOP + inner - height:.1f}" '
            f'width="{each * 0.76:.1f}" height="{height:.1f}"><title>{escape(labels[place])}: {value:g}</title></rect>'
        )
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text in it is escaped above


def lines(found: Sequence[Line], labels: Sequence[str], title: str) -> Markup:
    """Up to four lines over the same places, from zero on."""
    top = top_of(max((value for line in found for value in line.values if value is not None), default=0))
    inner = _HEIGHT - _TOP - _BOTTOM
    places = max((len(line.values) for line in found), default=0)
    each = (_WIDTH - _LEFT - _RIGHT) / max(1, places - 1)
    parts = _axes(top, labels, title, each, False)
    for number, line in enumerate(found[:4]):
        for run in _runs(line.values):
            points = " ".join(
                f"{_LEFT + each * place:.1f},{_TOP + inner * (1 - value / top):.1f}" for place, value in run
            )
            if len(run) == 1:
                x, y = points.split(",")
                parts.append(f'<circle class="dot line-{number}" cx="{x}" cy="{y}" r="2"/>')
            else:
                parts.append(f'<polyline class="line line-{number}" points="{points}"/>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text in it is escaped above


def spark(values: Sequence[float | None], title: str) -> Markup:
    """A small line without axes, for a row of a table."""
    known = [value for value in values if value is not None]
    top, least = max(known, default=1), min(known, default=0)
    spread = (top - least) or 1
    each = (_SMALL_WIDTH - 4) / max(1, len(values) - 1)
    parts = [
        f'<svg class="spark" viewBox="0 0 {_SMALL_WIDTH} {_SMALL_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    ]
    for run in _runs(values):
        points = " ".join(
            f"{2 + each * place:.1f},{_SMALL_HEIGHT - 3 - (_SMALL_HEIGHT - 6) * (value - least) / spread:.1f}"
            for place, value in run
        )
        parts.append(f'<polyline class="line line-0" points="{points}"/>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text in it is escaped above


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The stretches in which something is known."""
    found: list[list[tuple[int, float]]] = []
    last = -2
    for place, value in enumerate(values):
        if value is None:
            continue
        if place != last + 1:
            found.append([])
        found[-1].append((place, value))
        last = place
    return found
