"""What becomes of a record of the old `events` on its way into the new workspace.

event      passes byte by byte, if the new identity rules name it as the old ones did: the same identifiers in the
           same order. Else under what they make of its identifiers; with none left, it is a dead letter
of an erased identifier      what the erasure took is left out, and is named in no other event
marker, ready, caught_up     their time counts; the new workspace has definitions and marks of its own
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from pipeline.identifiers import Keys, split_identifier
from pipeline.identity import IdentityRules, Junk
from pipeline.profile import consents_anew
from pipeline.records import UNREADABLE, Erased, Event, Release, Relink, Unlink
from pipeline.replay.errors import ReplayError
from pipeline.runtime.ports import Record

Decision = Unlink | Relink | Release | Erased


class EventGlance(Struct, tag_field="kind", tag="event"):
    """Of an event what its way depends on: to decode all of it costs more than everything else."""

    received: int
    identifiers: list[str]
    event: str = ""


class MarkerGlance(Struct, tag_field="kind", tag="marker"):
    """A marker's time."""

    received: int


class ReadyGlance(Struct, tag_field="kind", tag="ready"):
    """A ready record's time."""

    received: int


class CaughtUpGlance(Struct, tag_field="kind", tag="caught_up"):
    """Until when the old ingest had read its sources."""

    received: int


Glance = EventGlance | MarkerGlance | ReadyGlance | CaughtUpGlance
_decode_glance: Callable[[bytes], Glance] = msgspec.json.Decoder(Glance).decode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_decision: Callable[[bytes], Decision] = msgspec.json.Decoder(Decision).decode
_encode = msgspec.json.Encoder().encode


def glance(value: bytes | None) -> Glance | None:
    """What the way of a record depends on; None for one that cannot be read (it goes on as it is, and is put aside
    where it was put aside before)."""
    if value is None:
        return None
    try:
        return _decode_glance(value)
    except UNREADABLE:
        return None


class Erasure(NamedTuple):
    """What an erasure took: everything received up to `received`; and what its route had seen by then, the events of
    `partition` below the offset `cut`. `keep_out`: whoever it was comes back by a consent anew only."""

    received: int
    partition: int = -1
    cut: int = 0
    keep_out: bool = False

    def took(self, received: int, partition: int, offset: int) -> bool:
        """Whether an event of the erased identifier is gone."""
        return received <= self.received or (partition == self.partition and offset < self.cut)


class Passed(NamedTuple):
    """The record's key and value in the new workspace; `rerouted` if its identifiers, or their order, are others."""

    key: bytes | None
    value: bytes
    rerouted: bool = False


class LeftOut(NamedTuple):
    """A record that does not come along: `erased`, or `refused` (with its reason)."""

    why: str
    detail: str = ""


def passage(
    record: Record, event: EventGlance, rules: IdentityRules, keys: Keys, erasures: Mapping[bytes, Erasure]
) -> Passed | LeftOut:
    """What becomes of an event. `erasures`: of whom, by the keys of their actors."""
    given = event.identifiers
    named = given
    if erasures:
        received = event.received
        route = erasures.get(keys.actor(given[0])) if given else None
        if route is not None and route.took(received, record.partition, record.offset):
            return LeftOut("erased")
        named = [one for one in given if (gone := erasures.get(keys.actor(one))) is None or received > gone.received]
    found = []
    for text in named:
        ranked = rules.ranked(*split_identifier(text))
        if not isinstance(ranked, Junk) and ranked not in found:
            found.append(ranked)
    found.sort()
    identifiers: list[str] = [text for _, _, text in found]
    value = record.value
    assert value is not None
    if identifiers == given:
        return Passed(record.key, value)
    if not identifiers:
        if not named:
            return LeftOut("erased")
        return LeftOut("refused", f"No identifier can be used under the new identity rules: {', '.join(named[:5])}.")
    try:
        whole = _decode_event(value)
    except UNREADABLE:
        return Passed(record.key, value)
    whole.identifiers = identifiers
    return Passed(keys.actor(identifiers[0]), _encode(whole), True)


def decision(value: bytes) -> Decision:
    """A record of `identity-decisions`. ReplayError for one that no release since the first writes."""
    try:
        return _decode_decision(value)
    except msgspec.MsgspecError as error:
        raise ReplayError(
            f"A decision was written by a release whose form this one does not read: {error}.",
            "identity-decisions of the old workspace",
            "an erasure of the first release has the person's identifier in the clear: note it, delete the record (a"
            " tombstone under its key), run this again, and erase the person in the new workspace before the switch",
        ) from None


def returned(event: EventGlance, keys: Keys, erasures: Mapping[bytes, Erasure]) -> list[tuple[bytes, str]]:
    """Who is named by an event again after having been erased: their actors' keys, and their names."""
    found = []
    for text in event.identifiers:
        actor = keys.actor(text)
        gone = erasures.get(actor)
        if gone is not None and event.received > gone.received:
            found.append((actor, text))
    return found


def readmitted(
    record: Record, event: EventGlance, keys: Keys, erasures: Mapping[bytes, Erasure], welcome: Collection[bytes]
) -> list[bytes]:
    """The actors' keys of those who are welcome again by an event: it is of somebody who was kept out, and is none of
    the `welcome` by now, and brings a consent anew."""
    gone = erasures.get(record.key or b"")
    if gone is None or not gone.keep_out or record.key in welcome or record.value is None:
        return []
    try:
        whole = _decode_event(record.value)
    except UNREADABLE:
        return []
    return [keys.actor(text) for text in whole.identifiers] if consents_anew(whole, gone.received) else []


def translated(made: Unlink | Relink | Release, rules: IdentityRules) -> Unlink | Relink | Release | None:
    """A decision about the identifiers as the new rules write them; None if it is about nobody under them."""
    if isinstance(made, Unlink | Relink):
        a, b = renamed(made.a, rules), renamed(made.b, rules) if made.b else ""
        if a is None or b is None or a == b:
            return None
        if b and b < a:
            a, b = b, a
        return msgspec.structs.replace(made, a=a, b=b)
    named = renamed(made.identifier, rules)
    return None if named is None else msgspec.structs.replace(made, identifier=named)


def standing_for_all(made: Unlink | Relink | Release) -> Sequence[Unlink | Relink | Release]:
    """What has the effect of a decision and of all earlier ones of the same thing: of these the old topic is compacted,
    so an undo between two unlinks may be gone, and without it the first would go on to count."""
    if isinstance(made, Unlink):
        return Relink(made.a, made.received, made.b, made.actor), made
    return (made,)


def renamed(text: str, rules: IdentityRules) -> str | None:
    """An identifier as the new rules write it; None if it is none under them."""
    ranked = rules.ranked(*split_identifier(text))
    return None if isinstance(ranked, Junk) else ranked[2]
