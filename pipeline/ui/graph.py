"""Who is who as a picture: identifiers on a circle, what stood together as lines, links not followed as broken ones.

It is an SVG made on the server; the table beside it says the same in words.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from markupsafe import Markup

MOST_SHOWN = 24
_WIDTH, _LEAST_HEIGHT = 640, 240
_LABEL = 26


class Edge(NamedTuple):
    """Two identifiers, as texts: how often they stood together, and whether that is followed."""

    a: str
    b: str
    times: int
    followed: bool


def picture(names: Sequence[str], edges: Sequence[Edge], title: str) -> Markup:
    """The identifiers `names` (the first of them names the profile) and others that edges lead to."""
    shown = list(dict.fromkeys([*names, *(end for edge in edges for end in (edge.a, edge.b))]))[:MOST_SHOWN]
    own = set(names)
    height = max(_LEAST_HEIGHT, min(520, 60 + 34 * len(shown)))
    places = _places(shown, height)
    parts = [
        f'<svg class="graph" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
    ]
    for edge in sorted(edges, key=lambda one: one.followed):
        if edge.a not in places or edge.b not in places:
            continue
        (x1, y1), (x2, y2) = places[edge.a], places[edge.b]
        kind = "followed" if edge.followed else "refused"
        width = 1.5 + min(4.0, math.log2(max(1, edge.times)) * 0.7)
        said = f"{edge.a} and {edge.b}: " + (f"{edge.times:,} together" if edge.followed else "not followed")
        parts.append(
            f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="{width:.1f}">'
            f"<title>{escape(said)}</title></line>"
        )
    for name in shown:
        parts += _node(name, places[name], name in own, name == names[0] if names else False)
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text in it is escaped above


def _places(shown: Sequence[str], height: float) -> dict[str, tuple[float, float]]:
    """On an ellipse, the first at the left; two beside each other."""
    middle_x, middle_y = _WIDTH / 2, height / 2
    radius_x, radius_y = _WIDTH / 2 - 130, height / 2 - 34
    count = max(1, len(shown))
    turn = 0.0 if count == 2 else 0.35
    return {
        name: (
            middle_x - radius_x * math.cos(2 * math.pi * place / count + turn),
            middle_y - radius_y * math.sin(2 * math.pi * place / count + turn),
        )
        for place, name in enumerate(shown)
    }


def _node(name: str, place: tuple[float, float], is_own: bool, names_it: bool) -> list[str]:
    x, y = place
    namespace, _, value = name.partition(":")
    label = value if len(value) <= _LABEL else value[: _LABEL - 1] + "…"
    kind = f"node {'own' if is_own else 'other'}{' names' if names_it else ''}"
    over, under = (-14, 22) if y >= 40 else (22, 34)
    return [
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{9 if names_it else 7}">'
        f"<title>{escape(name)}</title></circle>",
        f'<text class="label" x="{x:.1f}" y="{y + over:.1f}" text-anchor="middle">{escape(label)}</text>',
        f'<text class="axis" x="{x:.1f}" y="{y + under:.1f}" text-anchor="middle">{escape(namespace)}</text>',
    ]
