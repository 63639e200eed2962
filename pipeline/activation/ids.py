"""What deliveries are known by."""

from hashlib import blake2b


def delivery_id(destination: str, *parts: bytes) -> str:
    """An id that says which destination and what: the same for the same."""
    hashed = blake2b(digest_size=16, person=b"delivery")
    for part in (destination.encode(), *parts):
        hashed.update(len(part).to_bytes(4, "big"))
        hashed.update(part)
    return f"dlv_{hashed.hexdigest()}"


def segment_delivery_id(destination: str, profile_id: str, segment: str, sequence: int) -> str:
    """The id of the delivery of one segment change: stable, so that a repetition can be told from news."""
    return delivery_id(destination, b"segment", profile_id.encode(), segment.encode(), b"%d" % sequence)
