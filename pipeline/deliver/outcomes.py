"""What became of deliveries, as events: `outcomes: true` of a destination lets rules and people see it.

    event                    when
    Delivery Succeeded       the destination has it for good
    Delivery Failed          it was given up, and is a dead letter

Both are of the person the delivery was about, under one identifier of theirs: the strongest that left as it is. One,
for two would be evidence that they belong together, given anew with every delivery. `context.origin` names the
destination and the delivery. The message id is the delivery's, so what a crash repeats is a duplicate.

Nothing is told of changes of profiles, which an event could cause anew, of accounts, of erasures, and of outcomes that
were passed on: two destinations that take every event would tell each other of it forever.
"""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

import msgspec

from pipeline.records import Delivery, IdentifierPair

SUCCEEDED, FAILED = "Delivery Succeeded", "Delivery Failed"
_TOLD = frozenset({"segment_entered", "segment_exited", "event"})
_encode = msgspec.json.Encoder().encode
_FIELDS = {"user_id": "userId", "anonymous_id": "anonymousId"}


class Outcomes:
    """Makes the events of one destination. `changed`: namespaces that do not leave to it as they are."""

    def __init__(self, destination: str, changed: Collection[str] = ()) -> None:
        self._destination = destination
        self._changed = frozenset(changed)

    def of(self, delivery: Delivery, now_ms: int, failed: str = "") -> tuple[bytes, bytes] | None:
        """The raw event (key, value) of a delivery that succeeded, or failed for this reason; None if none is told."""
        if delivery.action not in _TOLD or delivery.body.get("entity") == "account":
            return None
        if delivery.action == "event" and delivery.body.get("event") in (SUCCEEDED, FAILED):
            return None
        who = next((one for one in delivery.identifiers if one.namespace not in self._changed), None)
        if who is None:
            return None
        told: dict[str, Any] = {"destination": self._destination, "action": delivery.action}
        if delivery.segment is not None:
            told["segment"] = delivery.segment
        if failed:
            told["reason"] = failed
        event = {
            "type": "track",
            "event": FAILED if failed else SUCCEEDED,
            "messageId": f"{delivery.delivery_id}/{'failed' if failed else 'succeeded'}",
            "timestamp": datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds"),
            **_of(who),
            "properties": told,
            "context": {"origin": {"destination": self._destination, "delivery_id": delivery.delivery_id}},
        }
        return who.value.encode(), _encode(event)


def _of(who: IdentifierPair) -> dict[str, Any]:
    field = _FIELDS.get(who.namespace)
    return {field: who.value} if field else {"identifiers": {who.namespace: who.value}}
