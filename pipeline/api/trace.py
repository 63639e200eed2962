"""One event followed through every room: the raw record, what cleaning changed, the contract, who it was, the leaves it
touched and the rules above them, what changed by it, and what became of deliveries.

What the topics hold is read with bounds: from the moment the event was received, so far and no further.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import msgspec

from pipeline.activation import segment_delivery_id
from pipeline.letters import Letter
from pipeline.records import Delivery, Event, ProfileChange, SegmentChange, read_events_record
from pipeline.runtime.kafka.doors import PartitionPositions, TopicReader
from pipeline.runtime.ports import Record
from pipeline.segments import SegmentsPlan, rules
from pipeline.segments.accounts import HIDDEN, parts_of
from pipeline.segments.describe import describe
from pipeline.segments.nodes import Atom
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_RECORD_WITHIN_S = 2.0
_MOST_RECORDS_A_SECOND = 100_000
_BEFORE_MS = 1_000
_MOST_DIFFERENCES = 50
_COMPARED = ("type", "event", "userId", "anonymousId", "groupId", "properties", "traits", "context")

_decode_profile_change = msgspec.json.Decoder(ProfileChange).decode
_decode_segment_change = msgspec.json.Decoder(SegmentChange).decode
_decode_delivery = msgspec.json.Decoder(Delivery).decode


class Effects(NamedTuple):
    """What an event did: changes of the profile and of memberships, deliveries with what became of them; whether
    everything there is was read."""

    changes: list[dict[str, Any]]
    flips: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]
    all: bool


class Touched(NamedTuple):
    """A part of a rule whose leaf the event changed, or that asks for a trait the event has."""

    segment: str
    rule: str
    by: str


def record_at(settings: Settings, topic: str, partition: int, offset: int) -> Record | None:
    """One record of a topic; None if it is not there any more, or never was."""
    with TopicReader(settings, [topic], only={(topic, partition): offset}) as reader:
        low, end = reader.bounds().get((topic, partition), (0, 0))
        if not low <= offset < end:
            return None
        found = reader.read(1, _RECORD_WITHIN_S)
    return found[0] if found and found[0].offset == offset else None


def event_at(settings: Settings, partition: int, offset: int) -> Event | None:
    """The event at a place of `events`."""
    record = record_at(settings, "events", partition, offset)
    message = read_events_record(record.value) if record is not None else None
    return message if isinstance(message, Event) else None


def raw_of(settings: Settings, event: Event) -> bytes | None:
    """The raw record an event was made of; None if it came another way, or is not kept any more."""
    topic, _, rest = event.source.partition("/")
    partition, _, offset = rest.partition("/")
    if topic not in settings.sources or not partition.isdecimal() or not offset.isdecimal():
        return None
    record = record_at(settings, topic, int(partition), int(offset))
    return record.value if record is not None else None


def differences(raw: bytes | None, event: Event) -> list[dict[str, Any]]:
    """What is otherwise in the event than in the raw record, where that was an event as SDKs send it: `path`, `before`,
    `after`."""
    try:
        sent = msgspec.json.decode(raw or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    if not isinstance(sent, dict) or "type" not in sent:
        return []
    after: dict[str, Any] = {"type": event.type, "event": event.event, "groupId": event.group_id}
    after |= {"properties": event.properties, "traits": event.traits, "context": event.context}
    before = {name: sent[name] for name in _COMPARED if name in sent}
    found = list(_differences("", before, {name: one for name, one in after.items() if name in before}))
    return [one for one in found if one["path"] not in ("userId", "anonymousId")][:_MOST_DIFFERENCES]


def _differences(path: str, before: Any, after: Any) -> Iterator[dict[str, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _differences(f"{path}.{name}".strip("."), before.get(name), after.get(name))
    elif before != after:
        yield {"path": path, "before": before, "after": after}


def touched_by(plan: SegmentsPlan, event: Event) -> list[Touched]:
    """The parts of rules that the event can have an effect on: those on a leaf that takes it, or on a trait it has."""
    leaves = set(plan.fold({}, event))
    found = []
    for name, source in sorted(plan.sources.items()):
        shown = "a rule about the people of accounts" if name.startswith(HIDDEN) else name
        for part in parts_of(source.when):
            number = plan.node_of.get(rules.canonical(part))
            node = plan.nodes[number] if number is not None else None
            if not isinstance(node, Atom):
                continue
            if node.leaf in leaves:
                found.append(Touched(shown, describe(part), "leaf"))
            elif set(node.traits) & set(event.traits):
                found.append(Touched(shown, describe(part), "trait"))
    return found


def effects(
    settings: Settings,
    event: Event,
    place: tuple[int, int],
    profile_id: str,
    destinations: Sequence[str],
    letters: Iterable[Letter],
    committed: Callable[[], PartitionPositions],
    longest_s: float,
) -> Effects:
    """What an event at `place` did to a profile; the topics are read for `longest_s`, changes and deliveries at the
    same time. Raises BrokerError."""
    since = event.received - _BEFORE_MS
    topics = [DELIVERIES.name + name for name in destinations]
    with ThreadPoolExecutor(1) as beside:
        sending = beside.submit(lambda: _since(settings, topics, profile_id, since, longest_s)) if topics else None
        told, is_all = _since(settings, ("profile-changes", "segment-changes"), profile_id, since, longest_s)
    changes: list[dict[str, Any]] = []
    flips: list[dict[str, Any]] = []
    for record in told:
        decode: Any = _decode_profile_change if record.topic == "profile-changes" else _decode_segment_change
        change = decode(record.value or b"")
        if (change.evidence.partition, change.evidence.offset) == place and change.profile_id == profile_id:
            (changes if record.topic == "profile-changes" else flips).append(msgspec.to_builtins(change))
    deliveries: list[dict[str, Any]] = []
    if sending is not None:
        sent, was_all = sending.result()
        is_all &= was_all
        deliveries = list(_deliveries(sent, profile_id, changes, flips, letters, committed()))
    return Effects(changes, flips, deliveries, is_all)


def _deliveries(
    records: Iterable[Record],
    profile_id: str,
    changes: list[dict[str, Any]],
    flips: list[dict[str, Any]],
    letters: Iterable[Letter],
    committed: PartitionPositions,
) -> Iterator[dict[str, Any]]:
    decided = {one["decided_at"] for one in changes}
    given_up = {(one.letter.topic, one.letter.partition, one.letter.offset): one.letter for one in letters}
    for record in records:
        found = _decode_delivery(record.value or b"")
        if found.profile_id != profile_id:
            continue
        ids = {segment_delivery_id(found.destination, profile_id, one["segment"], one["sequence"]) for one in flips}
        # A delivery of a change or of the event itself names no place: it was decided with the change.
        if found.delivery_id not in ids and (found.segment is not None or found.decided_at not in decided):
            continue
        letter = given_up.get((record.topic, record.partition, record.offset))
        done = record.offset < committed.get((record.topic, record.partition), 0)
        yield {
            "destination": found.destination,
            "action": found.action,
            "segment": found.segment,
            "decided_at": found.decided_at,
            "became": "given up" if letter is not None else "handed over" if done else "waits",
            "why": f"{letter.reason}: {letter.detail}" if letter is not None else "",
        }


def _since(
    settings: Settings, topics: Sequence[str], key: str, since_ms: int, longest_s: float
) -> tuple[list[Record], bool]:
    """What topics hold for a key since then, and whether that is all: what is in the key's partitions is read, so far
    and so long."""
    with TopicReader(settings, topics, key=key.encode()) as reader:
        starts = reader.positions_at(since_ms)
        ends = {(place[0], place[1]): end for place, (_, end) in reader.bounds().items()}
    found: list[Record] = []
    read, until = 0, time.monotonic() + longest_s
    with TopicReader(settings, topics, only=starts) as reader:
        while any(reader.positions.get(place, 0) < ends[place] for place in starts):
            if read >= _MOST_RECORDS_A_SECOND * longest_s or time.monotonic() > until:
                return found, False
            records = reader.read(5_000, 0.1)
            read += len(records)
            found += [one for one in records if one.key == key.encode()]
    return found, True
