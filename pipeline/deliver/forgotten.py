"""Whoever was erased while something about them waited for a destination: none of it goes out any more.

A destination that is dead or paused may have a queue of days. The request to delete somebody stands at the end of it,
in the order of their profile; what stands before it would be told after the erasure, of somebody who is to be unknown
by then. So the role reads in `privacy-progress` which profiles are gone, and lets go of what waits of these:

    goes out     that they left a segment, that their profile ended, the request to delete them
    does not     everything else; counted (`headwater_deliver_overtaken`)

A profile_id that was erased is never used again, so this holds for good.
"""

from collections.abc import Iterable

import msgspec

from pipeline.records import Delivery, Forgotten, PrivacyProgress
from pipeline.runtime.ports import Record

TOPIC = "privacy-progress"
_TAKES_BACK = frozenset({"segment_exited", "profile_deleted", "profile_erased"})
_decode = msgspec.json.Decoder(PrivacyProgress).decode


class ForgottenProfiles:
    """The profile_ids that were erased. One thread takes in what is said of them, others ask."""

    def __init__(self) -> None:
        self._ids: set[str] = set()

    def take(self, records: Iterable[Record]) -> None:
        """Take in records of the topic."""
        for record in records:
            told = _decode(record.value) if record.value is not None else None
            if isinstance(told, Forgotten) and told.profile_id:
                self._ids.add(told.profile_id)

    def __len__(self) -> int:
        return len(self._ids)

    def overtakes(self, delivery: Delivery) -> bool:
        """Whether a delivery is not to go out any more."""
        return delivery.profile_id in self._ids and delivery.action not in _TAKES_BACK
