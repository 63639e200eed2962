"""The delivery that tells of a segment change."""

from collections.abc import Callable
from typing import Any

import msgspec

from pipeline.activation.destination import Destination
from pipeline.activation.ids import segment_delivery_id
from pipeline.activation.projecting import Projector
from pipeline.records import Delivery, ProfileDocument, SegmentChange

Profile = Callable[[], ProfileDocument | None]


def segment_delivery(
    destination: Destination, projector: Projector, change: SegmentChange, profile: Profile | None
) -> Delivery:
    """The delivery to a destination; `profile` gives the document that the traits to send along are taken from."""
    body: dict[str, Any] = {
        "entity": change.entity,
        "version": change.version,
        "sequence": change.sequence,
        "late": change.late,
        "evidence": msgspec.to_builtins(change.evidence),
    }
    if change.continues:
        body["continues"] = change.continues
    if change.moved_to is not None:
        body["moved_to"] = change.moved_to
    if change.approximate:
        body["approximate"] = True
    if change.context and not destination.asks and projector.is_plain:
        body["context"] = change.context
    if destination.traits:
        document = profile() if profile is not None else None
        if document is not None:
            body["traits"] = projector.traits(document)
    return Delivery(
        delivery_id=segment_delivery_id(destination.name, change.profile_id, change.segment, change.sequence),
        destination=destination.name,
        profile_id=change.profile_id,
        action="segment_entered" if change.change == "entered" else "segment_exited",
        at=change.at,
        decided_at=change.decided_at,
        identifiers=projector.identifiers(change.identifiers),
        segment=change.segment,
        cause=change.cause,
        body=body,
    )
