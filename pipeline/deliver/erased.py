"""What the deliver role says of requests to delete a person: that it was done, or why it cannot be."""

import msgspec

from pipeline.records import Delivery, DestinationErased, encode

ERASED = "profile_erased"


def answer(delivery: Delivery, now_ms: int, detail: str = "") -> tuple[bytes, bytes]:
    """The record of `privacy-progress`, with its key."""
    request_id = str(delivery.body.get("request_id", ""))
    subject = str(delivery.body.get("subject", ""))
    told = DestinationErased(request_id, subject, delivery.destination, now_ms, detail)
    return request_id.encode(), encode(told)


def without_content(delivery: Delivery) -> bytes:
    """What a dead letter keeps of a delivery about somebody who was erased: nothing that says who it is."""
    body = delivery.body if delivery.action == ERASED else {}
    return encode(msgspec.structs.replace(delivery, identifiers=[], body=body))
