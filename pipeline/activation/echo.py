"""What a destination said itself is not said to it again: a CRM that is synced both ways hears no echo.

A destination names its `own_sources`: the sources by which its own changes come in. An event from one of them is not
passed on to it, and of a change that such an event made of a profile it gets what the event did not say: what follows
from it (segments, computed traits), and a value that came to be another one than it said.

What the deliver role tells of deliveries (`outcomes`) is not passed on to the destination it is told of either. Anybody
could write such an origin into an event, and would only keep that very event from there.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.activation.destination import Destination
from pipeline.records import Event, ProfileChange, source_name


def said_itself(destination: Destination, event: Event) -> bool:
    """Whether an event came by a source of the destination's own."""
    return bool(destination.own_sources) and source_name(event.origin, event.source) in destination.own_sources


def is_of_a_delivery(destination: Destination, event: Event) -> bool:
    """Whether an event is what was told of a delivery to the destination."""
    origin = event.context.get("origin")
    return isinstance(origin, Mapping) and origin.get("destination") == destination.name


def without_echo(change: ProfileChange, event: Event) -> ProfileChange:
    """A change without what the event that made it had said already."""
    kept: dict[str, Any] = {}
    for section, values in change.set.items():
        if section == "traits":
            values = {name: value for name, value in values.items() if not _is_said(event.traits, name, value)}
            if not values:
                continue
        elif section == "identifiers" and all(f"{one.namespace}:{one.value}" in event.identifiers for one in values):
            continue
        kept[section] = values
    return msgspec.structs.replace(change, set=kept)


def _is_said(traits: Mapping[str, Any], name: str, value: Any) -> bool:
    return name in traits and bool(traits[name] == value)
