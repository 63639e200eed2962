"""What of a fragment may be kept no longer, by what contracts say of its traits and events.

    a trait             so long after the event that stated it
    an event's total    so long after the last of them: how often it was done is known no more

A trait that was taken back (null) goes like any other: under another identifier of the person it may hide what was
stated before.

`keeps_traits` and `keeps_events`: name → so long, in ms.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.profile.state import Fragment

Keeps = Mapping[str, int]


def kept_until(fragment: Fragment, keeps_traits: Keeps, keeps_events: Keeps) -> int | None:
    """When the first of what is there is to go; None if nothing is."""
    traits, totals = fragment.traits, fragment.totals
    at = [traits[one][0] + ms for one, ms in _both(keeps_traits, traits)]
    at += [totals[one][2] + ms for one, ms in _both(keeps_events, totals)]
    return min(at, default=None)


def to_go(fragment: Fragment, keeps_traits: Keeps, keeps_events: Keeps, at: int) -> tuple[list[str], list[str]]:
    """The traits, and the events with a total, that are to be gone at `at`, sorted."""
    traits, totals = fragment.traits, fragment.totals
    return (
        sorted(one for one, ms in _both(keeps_traits, traits) if traits[one][0] + ms <= at),
        sorted(one for one, ms in _both(keeps_events, totals) if totals[one][2] + ms <= at),
    )


def take_out(fragment: Fragment, traits: list[str], events: list[str]) -> bool:
    """Take traits and totals out; whether any was there."""
    gone: list[Any] = [fragment.traits.pop(name, None) for name in traits]
    gone += [fragment.totals.pop(name, None) for name in events]
    return any(one is not None for one in gone)


def _both(keeps: Keeps, there: Mapping[str, Any]) -> list[tuple[str, int]]:
    if len(keeps) < len(there):
        return [(name, ms) for name, ms in keeps.items() if name in there]
    return [(name, keeps[name]) for name in there if name in keeps]
