"""What `headwater explain --destination` tells: what decides about deliveries, and what became of each change."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

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
from pipeline.deliver.health import health_in_notes
from pipeline.deliver.progress import read_note
from pipeline.deliver.revocation import overtaken_by
from pipeline.records import DeadLetter, Delivery, ProfileDocument, SegmentChange
from pipeline.runtime.ports import Record
from pipeline.shown_times import shown_time

State = Literal["delivered", "waits", "dead letter", "overtaken", "not delivered"]
_decode_letter = msgspec.json.Decoder(DeadLetter).decode
_decode_change = msgspec.json.Decoder(SegmentChange).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode
_SHOWN = 20
_UNLESS_OVERTAKEN = " (unless they took back what it rests on before it could go out)"


class Line(NamedTuple):
    """One change, or one delivery that no change has led to: when it was decided, and what became of it. `why`: the id
    of a delivery that has arrived; of any other, why it has not."""

    at: int
    what: str
    delivered: bool
    why: str
    state: State


class Reached:
    """How far a destination has come with its topic: which of its deliveries have arrived."""

    def __init__(self, position: int, note: str, letters: Iterable[bytes] = (), paused: bool = False) -> None:
        """The group's `position` and `note` in the partition that is asked about; records of `dead-letters`; whether
        the destination is paused."""
        self._position = position
        self._note = read_note(position, note)
        self._letters = {}
        for value in letters:
            letter = _decode_letter(value)
            self._letters[letter.topic, letter.partition, letter.offset] = f"{letter.reason}: {letter.detail}"
        failing = health_in_notes("", [note])
        self._waits = "it waits for its turn"
        if failing is not None and not failing.up:
            self._waits = f"it waits: the destination does not answer as it should ({failing.failure})"
        if paused:
            self._waits = "it waits: the destination is paused"

    def became(self, record: Record, delivery_id: str, is_taken_back: bool = False) -> tuple[State, str]:
        """What became of a delivery, and its id, or why it has not arrived. `is_taken_back`: a later one in the topic
        overtakes it."""
        letter = self._letters.get((record.topic, record.partition, record.offset))
        if letter is not None:
            return "dead letter", f"{letter}; `headwater dead-letters list` has it"
        if record.offset < self._position or self._note.is_done(record.offset):
            # The topics do not tell which of the two came first.
            return "delivered", delivery_id + _UNLESS_OVERTAKEN if is_taken_back else delivery_id
        if is_taken_back:
            return "overtaken", "they took back what it rests on: it goes no more, once the exit behind it is read"
        return "waits", self._waits


def findings(
    plan: ActivationPlan,
    name: str,
    document: ProfileDocument,
    held: HeldTold,
    segment: str | None,
    changes: Iterable[bytes] = (),
) -> list[Finding]:
    """What decides whether the destination has the person, whether it may know of the segment, and whether they are in
    it. `changes`: records of `segment-changes`."""
    found = about_person(plan, name, document, held.told, held.proofs)
    if segment is None:
        return found
    return [*found, *about_segment(plan, name, segment), _membership(document, segment, changes)]


def _membership(document: ProfileDocument, segment: str, changes: Iterable[bytes]) -> Finding:
    there = document.segments.get(segment)
    if there is not None:
        return Finding(True, f"they are a member of {segment} since {shown_time(there.since)}")
    left = [one for one in _of(_decode_change, changes, document.profile_id) if one.segment == segment]
    if not left:
        return Finding(False, f"they were never in {segment}, as far as the topics still know")
    last = max(left, key=lambda one: one.sequence)
    return Finding(False, f"they are no member of {segment}: they left it at {shown_time(last.at)}, cause {last.cause}")


def history(
    plan: ActivationPlan,
    name: str,
    profile_id: str,
    segment: str | None,
    changes: Iterable[bytes],
    deliveries: Iterable[Record],
    reached: Reached,
) -> list[Line]:
    """What became of the newest changes of a profile that the topics still have, oldest first. `changes` are records of
    `segment-changes`, `deliveries` of the destination's topic; those of others are passed over."""
    told = [(_decode_delivery(record.value or b""), record) for record in deliveries]
    left = {one.delivery_id: (one, record) for one, record in told if one.profile_id == profile_id}
    taken_back = _last_taken_back(left.values())
    lines = []
    for change in _of(_decode_change, changes, profile_id):
        if segment is not None and change.segment != segment:
            continue
        found = left.pop(segment_delivery_id(name, profile_id, change.segment, change.sequence), None)
        what = f"{change.change} {change.segment}, cause {change.cause}"
        if found is not None:
            lines.append(_line(change.decided_at, what, *found, reached, taken_back))
        else:
            lines.append(Line(change.decided_at, what, False, _why(plan, name, change), "not delivered"))
    for each, record in left.values():
        if segment is None or each.segment == segment:
            what = each.action.replace("_", " ") + (f" {each.segment}" if each.segment else "")
            lines.append(_line(each.decided_at, f"{what}, cause {each.cause}", each, record, reached, taken_back))
    return sorted(lines)[-_SHOWN:]


_TakenBack = dict[tuple[str, str | None], int]


def _last_taken_back(deliveries: Iterable[tuple[Delivery, Record]]) -> _TakenBack:
    """Of each action and segment, the offset of the last delivery that takes it back. A profile's are of one
    partition."""
    found: _TakenBack = {}
    for delivery, record in deliveries:
        overtaken = overtaken_by(delivery)
        if overtaken is not None:
            found[overtaken] = max(record.offset, found.get(overtaken, -1))
    return found


def _line(at: int, what: str, delivery: Delivery, record: Record, reached: Reached, taken_back: _TakenBack) -> Line:
    is_taken_back = record.offset < taken_back.get((delivery.action, delivery.segment), -1)
    state, why = reached.became(record, delivery.delivery_id, is_taken_back)
    return Line(at, what, state == "delivered", why, state)


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
