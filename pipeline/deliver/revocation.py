"""A consent that is taken back overtakes what still waits of what rested on it: the entry that the exit takes back, the
change of a profile that is taken back."""

from pipeline.records import Delivery

_OVERTAKES = {"segment_exited": "segment_entered", "profile_deleted": "profile_changed"}


def overtaken_by(delivery: Delivery) -> tuple[str, str | None] | None:
    """The action and segment of the profile's earlier deliveries that do not go out any more once this one is here;
    None: it takes back nothing."""
    if delivery.cause != "consent" or delivery.action not in _OVERTAKES:
        return None
    return _OVERTAKES[delivery.action], delivery.segment
