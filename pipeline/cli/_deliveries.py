"""What `headwater explain --destination` tells: what decides about deliveries, and what became of each change."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from pipeline.activation import (
    ActivationPlan,
    Finding,
    about_person,
    about_segment,
    not_for_it,
    segment_delivery_id,
)
from pipeline.cli._held import HeldTold
from pipeline.records import Delivery, ProfileDocument, SegmentChange

_decode_change = msgspec.json.Decoder(SegmentChange).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode
_SHOWN = 20


class Line(NamedTuple):
    """One change, or one delivery that no change has led to: when it was decided, and what became of it."""

    at: int
    what: str
    delivered: bool
    why: str


def findings(
    plan: ActivationPlan,
    name: str,
    document: ProfileDocument,
    held: HeldTold,
    segment: str | None,
) -> list[Finding]:
    """What decides whether the destination has the person, and whether it may know of the segment."""
    found = about_person(plan, name, document, held.told, held.proofs)
    return found + (about_segment(plan, name, segment) if segment is not None else [])


def history(
    plan: ActivationPlan,
    name: str,
    profile_id: str,
    segment: str | None,
    changes: Iterable[bytes],
    deliveries: Iterable[bytes],
) -> list[Line]:
    """What became of the newest changes of a profile that the topics still have, oldest first. `changes` are records of
    `segment-changes`, `deliveries` of the destination's topic; those of others are passed over."""
    left = {each.delivery_id: each for each in _of(_decode_delivery, deliveries, profile_id)}
    lines = []
    for change in _of(_decode_change, changes, profile_id):
        if segment is not None and change.segment != segment:
            continue
        found = left.pop(segment_delivery_id(name, profile_id, change.segment, change.sequence), None)
        what = f"{change.change} {change.segment}, cause {change.cause}"
        if found is not None:
            lines.append(Line(change.decided_at, what, True, found.delivery_id))
        else:
            lines.append(Line(change.decided_at, what, False, _why(plan, name, change)))
    for each in left.values():
        if segment is None or each.segment == segment:
            what = each.action.replace("_", " ") + (f" {each.segment}" if each.segment else "")
            lines.append(Line(each.decided_at, f"{what}, cause {each.cause}", True, each.delivery_id))
    return sorted(lines)[-_SHOWN:]


def _why(plan: ActivationPlan, name: str, change: SegmentChange) -> str:
    against = [one.words for one in about_segment(plan, name, change.segment) if not one.favourable]
    return (
        next(iter(against), "")
        or not_for_it(plan, name, change)
        or "they did not allow it then, or the destination was another then"
    )


def _of(decode: Any, values: Iterable[bytes], profile_id: str) -> Iterator[Any]:
    for value in values:
        found = decode(value)
        if found.profile_id == profile_id:
            yield found
