"""The door of a simulated world: who was erased and asked to stay away is kept out there by a keyed hash.

`Door` runs the real judgement (`pipeline.ingest.guard`) over the list as the privacy role writes it: the identifiers it
knew when it was asked, then those that the identity stage decided. `KeptOut` is the oracle of the same rules, written
again from docs/privacy.md, at the door and behind it:

    the event's route is kept out      nothing of it is taken in, unless it brings a consent given after the erasure:
                                       then its identifiers are welcome again
    another identifier is kept out     the event is taken in without it
    behind the door                    the route's actor knows it too, for what got past the door
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pipeline.identifiers import Keys
from pipeline.ingest.guard import TOPIC, admit
from pipeline.records import Erased, Event, Suppression


class Door:
    """What ingest does with an event before it stands in `events`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._listed: dict[bytes, Suppression] = {}

    @property
    def kept_out(self) -> Mapping[bytes, Suppression]:
        """Who was erased and has not consented anew."""
        return {actor: one for actor, one in self._listed.items() if one.consented_at <= one.at}

    def list(self, identifiers: Iterable[str], at: int, request_id: str) -> None:
        """The privacy role keeps these out, before anything is decided."""
        for one in identifiers:
            self._listed[self._keys.actor(one)] = Suppression(at, request_id)

    def learn(self, decisions: Mapping[bytes, bytes], asked: Mapping[str, int]) -> None:
        """The privacy role reads what was decided. `asked`: when each request that keeps out was made."""
        for key, value in decisions.items():
            if key.startswith(b"erase\t"):
                erased = msgspec.json.decode(value, type=Erased)
                known = self._listed.get(erased.actor.encode())
                if erased.request_id in asked and (known is None or known.epoch < erased.epoch):
                    at = asked[erased.request_id]
                    self._listed[erased.actor.encode()] = Suppression(at, erased.request_id, erased.epoch)

    def let_in(self, event: Event) -> Event | None:
        """The event as it comes in; None if it does not. What was sent stays as it is."""
        copied: Event = copy.deepcopy(event)
        return copied if admit(copied, self._keys, self, self) else None

    # ---- what the judgement asks of a vault, and of its outputs

    def readmit(self, actor: bytes) -> None:
        """It is told by the record as well."""

    def seal(self, actor: bytes, name: str, encoded: bytes) -> bytes:
        """These worlds are not sealed."""
        return encoded

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        """The judgement writes to no log."""
        raise AssertionError(topic)

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        """Somebody was let in again."""
        assert topic == TOPIC and value is not None
        self._listed[key] = msgspec.json.decode(value, type=Suppression)


class KeptOut:
    """The oracle: who is kept out at the door, and who behind it; since when."""

    def __init__(self) -> None:
        self.at_door: dict[str, int] = {}
        self.behind: dict[str, int] = {}

    def erased(self, gone: Iterable[str], at: int, keep_out: bool) -> None:
        """These were erased. One that is not to be kept out begins anew behind the door; the door forgets nobody."""
        for one in gone:
            self.behind.pop(one, None)
            if keep_out:
                self.behind[one] = self.at_door[one] = at

    def let_in(self, event: Event) -> list[str] | None:
        """The identifiers under which an event comes through the door; None if it does not."""
        route, *others = event.identifiers
        since = self.at_door.get(route)
        if since is None:
            return [route, *(one for one in others if one not in self.at_door)]
        if not consents(event, since):
            return None
        welcome = [one for one in event.identifiers if self.at_door.get(one, event.time - 1) < event.time]
        for one in welcome:
            self.at_door.pop(one, None)
        return welcome

    def takes(self, event: Event) -> bool:
        """Whether what stands in `events` is taken in by the actor of its route; asked in the order of the log."""
        route, *others = event.identifiers
        since = self.behind.get(route)
        if since is None:
            return True
        if not consents(event, since):
            return False
        del self.behind[route]
        for one in others:
            if self.behind.get(one, event.time) < event.time:
                del self.behind[one]
        return True


def consents(event: Event, since: int) -> bool:
    """Whether an event brings a consent that was given after that."""
    stated: Any = event.context.get("consent", {})
    return event.time > since and any(said is True for said in stated.values())
