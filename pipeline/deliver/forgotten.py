"""Whoever was erased while something about them waited for a destination: none of it goes out any more.

A destination that is dead or paused may have a queue of days. The request to delete somebody stands at the end of it,
in the order of their profile; what stands before it would be told after the erasure, of somebody who is to be unknown
by then. So the role reads in `privacy-progress` which profiles and identifiers are gone, and lets go of what waits:

    about an erased profile      goes out: that they left a segment, that their profile ended, the request to delete
                                 them. Nothing else does; counted (`headwater_deliver_overtaken`)
    an alert about an account    with nobody in it but who was erased: does not go out; counted as well
    about anybody else           goes out without the erased: without who stands behind a segment of an account, and
                                 without the identifiers that had been this profile's, or were not followed there

A profile_id that was erased is never used again, so this holds for good. An identifier may be: what was decided after
its erasure is about whoever has it then. Who has come back by a consent anew has another profile, whose deliveries
would pass the request to delete the former one, and be deleted by it: they wait until the destination has answered.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.identifiers import Keys
from pipeline.records import Delivery, DestinationErased, Forgotten, PrivacyProgress
from pipeline.runtime.ports import Record
from pipeline.topology import DELIVERIES

TOPIC = "privacy-progress"
TAKES_BACK = frozenset({"segment_exited", "profile_deleted", "profile_erased"})
LONGEST_MS = DELIVERIES.retention_ms
"""How long somebody who has come back waits for an erasure: their topic has let go of it by then, unanswered."""
_decode = msgspec.json.Decoder(PrivacyProgress).decode


class ForgottenProfiles:
    """Who was erased: profile_ids, and since when the keyed hashes of which identifiers. One thread takes in what is
    said of them, others ask."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._ids: set[str] = set()
        self._actors: dict[str, int] = {}
        self._latest = 0
        # Of each identifier's actor, the requests by which it was erased, and when; of each destination, the actors in
        # whose name it was asked, by request, and has not answered yet.
        self._requests: dict[str, dict[str, int]] = {}
        self._unanswered: dict[str, dict[str, set[str]]] = {}
        self.news = 0

    def take(self, records: Iterable[Record]) -> None:
        """Take in records of the topic."""
        for record in records:
            told = _decode(record.value) if record.value is not None else None
            if isinstance(told, Forgotten):
                self._actors[told.actor] = max(told.at, self._actors.get(told.actor, 0))
                self._latest = max(self._latest, told.at)
                if told.profile_id:
                    self._ids.add(told.profile_id)
                self._requests.setdefault(told.actor, {})[told.request_id] = told.at
                for name in told.destinations:
                    self._unanswered.setdefault(name, {}).setdefault(told.request_id, set()).add(told.actor)
            elif isinstance(told, DestinationErased):
                of_request = self._unanswered.get(told.destination, {})
                of_request.get(told.request_id, set()).discard(told.actor)
                if not of_request.get(told.request_id, True):
                    del of_request[told.request_id]
            self.news += 1

    def is_early(self, destination: str, delivery: Delivery) -> bool:
        """Whether a delivery is about somebody who has come back after an erasure, and the destination has not deleted
        yet who they were."""
        unanswered = self._unanswered.get(destination)
        if not unanswered or delivery.action == "profile_erased" or delivery.profile_id in self._ids:
            return False
        return any(
            request in unanswered and at < delivery.decided_at <= at + LONGEST_MS
            for one in delivery.identifiers
            for request, at in tuple(self._requests_of(one.namespace, one.value).items())
        )

    def _requests_of(self, namespace: str, value: str) -> dict[str, int]:
        return self._requests.get(self._keys.actor(f"{namespace}:{value}").decode(), {})

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, profile_id: str) -> bool:
        return profile_id in self._ids

    def left_of(self, delivery: Delivery) -> Delivery | None:
        """What still may go out of a delivery: it as it is, it without the erased, or None."""
        if delivery.profile_id in self._ids:
            return delivery if delivery.action in TAKES_BACK else None
        if not self._ids or delivery.action == "profile_erased":
            return delivery
        at = delivery.decided_at
        identifiers = delivery.identifiers
        if at <= self._latest:
            identifiers = [one for one in identifiers if not self._is_gone(one.namespace, one.value, at)]
        body = self._without(delivery.body, at)
        if body == delivery.body and len(identifiers) == len(delivery.identifiers):
            return delivery
        if delivery.action == "alert" and _people(delivery.body) and not _people(body):
            return None
        return msgspec.structs.replace(delivery, identifiers=identifiers, body=body)

    def _is_gone(self, namespace: Any, value: Any, at: int) -> bool:
        return at <= self._actors.get(self._keys.actor(f"{namespace}:{value}").decode(), -1)

    def _without(self, value: Any, at: int) -> Any:
        if isinstance(value, dict):
            return {name: self._without(inner, at) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._without(inner, at) for inner in value if not self._names(inner, at)]
        return value

    def _names(self, entry: Any, at: int) -> bool:
        """Whether an entry of a list is somebody who was erased, one of their identifiers, or a link to one."""
        if not isinstance(entry, dict):
            return False
        if entry.get("profile_id") in self._ids:
            return True
        return at <= self._latest and any(
            isinstance(one, dict) and one.keys() >= {"namespace", "value"} and self._is_gone(**_pair(one), at=at)
            for one in (entry, *entry.values())
        )


def _pair(entry: dict[str, Any]) -> dict[str, Any]:
    return {"namespace": entry["namespace"], "value": entry["value"]}


def _people(body: dict[str, Any]) -> int:
    """How many people an alert names."""
    return sum(len(match.get("who", ())) for match in body.get("context", {}).get("matches", ()))
