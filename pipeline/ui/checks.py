"""What is wrong with a segment in the making, told at the part it is about."""

from collections.abc import Collection, Mapping
from typing import Any

from pipeline.definitions.kinds import mistakes_in
from pipeline.ui.tree import ROOT, Node
from pipeline.ui.writing import Written, write_segment

_MOST = 20
_NAMES_OF_THEIR_OWN = ("where", "trait", "traits", "computed")


def checked(tree: Node) -> tuple[Written, dict[str, list[str]]]:
    """The definition a tree stands for, and what is wrong: path of the node → what. Nothing wrong: it can be used."""
    written = write_segment(tree)
    told: dict[str, list[str]] = {}
    for path, what in written.problems:
        told.setdefault(path, []).append(what)
    for location, what in [(one.location, one.what) for one in mistakes_in("segment", written.body)][:_MOST]:
        path, field = _place(written.places, location)
        said = f"{field}: {what}" if field and field not in what else what
        if said not in told.setdefault(path, []):
            told[path].append(said)
    return written, told


def unseen(rule: Any, known: Collection[str]) -> list[str]:
    """The events that a rule names and that are not among those that are known; none where nothing is known."""
    if not known:
        return []
    if isinstance(rule, list):
        return [name for part in rule for name in unseen(part, known)]
    if not isinstance(rule, dict):
        return []
    named = rule.get("event")
    names = [name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str)]
    inside = (part for key, part in rule.items() if key not in _NAMES_OF_THEIR_OWN)
    return [
        *(name for name in names if name != "*" and name not in known),
        *(name for part in inside for name in unseen(part, known)),
    ]


def _place(places: Mapping[tuple[Any, ...], str], location: tuple[Any, ...]) -> tuple[str, str]:
    """The node that a mistake is about, and the name of the field. The location has steps that only the validator
    knows: they are passed over."""
    at: tuple[Any, ...] = ()
    path = ROOT
    for step in location:
        if (*at, step) in places:
            at = (*at, step)
            path = places[at]
    names = [step for step in location if isinstance(step, str) and step.isidentifier() and step.islower()]
    return path, names[-1].replace("_", " ") if names else ""
