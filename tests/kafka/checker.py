"""Reads the topics as a user would, and checks what must always be true of them. Knows the records, not the code."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from pipeline.runtime.ports import Record
from pipeline.runtime.rocksdb import RocksStores
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

ENDS = {"merged", "expired", "erased"}
SECTIONS = ("traits", "computed", "consents", "totals", "segments")


@dataclass
class Topics:
    """The committed content of the output topics."""

    segment_changes: list[dict[str, Any]]
    profile_changes: list[dict[str, Any]]
    members: dict[str, dict[str, Any]]
    profiles: dict[str, dict[str, Any]]
    identities: dict[str, dict[str, Any]]
    dead_letters: list[dict[str, Any]] = field(default_factory=list)


def read_topics(deployment: Deployment) -> Topics:
    """Everything there is, of a deployment at rest."""
    return Topics(
        deployment.values("segment-changes"),
        deployment.values("profile-changes"),
        deployment.table("segment-members"),
        deployment.table("profiles"),
        deployment.table("identities"),
        deployment.values("dead-letters"),
    )


def by_profile(changes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Changes by profile, each in its order."""
    grouped: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for change in changes:
        grouped[change["profile_id"]].append(change)
    return dict(grouped)


def fold_members(changes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `segment-members` must be. Asserts alternation and sequences without gap or repetition."""
    members: dict[str, dict[str, Any]] = {}
    sequences: dict[str, int] = {}
    for change in changes:
        pair = f"{change['segment']}/{change['profile_id']}"
        assert change["sequence"] == sequences.get(pair, 0) + 1, f"{pair}: a gap or a repetition at {change}"
        assert (change["change"] == "entered") == (pair not in members), f"{pair}: entered and exited must alternate"
        sequences[pair] = change["sequence"]
        if change["change"] == "entered":
            members[pair] = {"since": change["at"], "sequence": change["sequence"], "version": change["version"]}
        else:
            del members[pair]
    return members


def fold_profiles(changes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `profiles` must be."""
    profiles: dict[str, dict[str, Any]] = {}
    for change in changes:
        profile_id = change["profile_id"]
        if change["change"] in ENDS:
            assert profile_id in profiles, f"{profile_id} ends without having been: {change}"
            del profiles[profile_id]
            continue
        if change["change"] in ("created", "split"):
            assert profile_id not in profiles, f"{profile_id} begins twice: {change}"
            profiles[profile_id] = {"profile_id": profile_id, "entity": change["entity"]}
        profile = profiles[profile_id]
        for section, entries in change.get("set", {}).items():
            if section in SECTIONS:
                profile.setdefault(section, {}).update(entries)
            else:
                profile[section] = entries
        for section, names in change.get("unset", {}).items():
            for name in names:
                profile.get(section, {}).pop(name, None)
    return profiles


def without_empty(profile: dict[str, Any]) -> dict[str, Any]:
    """A profile without its empty sections, which may be left out."""
    return {name: value for name, value in profile.items() if value not in ({}, [])}


def check(topics: Topics) -> None:
    """Invariant 6 of the design: the logs fold to the compacted topics; entered and exited alternate."""
    members = fold_members(topics.segment_changes)
    shown = {key: {name: row[name] for name in ("since", "sequence", "version")} for key, row in topics.members.items()}
    assert members == shown
    folded = {profile_id: without_empty(p) for profile_id, p in fold_profiles(topics.profile_changes).items()}
    assert folded == {profile_id: without_empty(profile) for profile_id, profile in topics.profiles.items()}
    for pair in topics.members:
        assert pair.partition("/")[2] in topics.profiles, f"{pair} is a member that has no profile"


# ------------------------------------------------------------------------- every input record is accounted for once


def check_inputs(raw: list[Record], events: list[Record], dead_letters: list[Record], topic: str = "raw") -> None:
    """Invariant 8 of the design, for ingest: each raw record is exactly one event or exactly one dead letter."""
    outcomes: Counter[tuple[int, int]] = Counter()
    for record in events:
        event = msgspec.json.decode(record.value or b"{}")
        if event.get("kind") == "event":
            name, partition, offset = event["source"].split("/")
            assert name == topic
            outcomes[int(partition), int(offset)] += 1
    for record in dead_letters:
        letter = msgspec.json.decode(record.value or b"{}")
        if letter["topic"] == topic:
            outcomes[letter["partition"], letter["offset"]] += 1
    produced = {(record.partition, record.offset) for record in raw}
    lost, doubled = produced - set(outcomes), {at: n for at, n in outcomes.items() if n > 1}
    assert not lost, f"{len(lost)} raw records are neither an event nor a dead letter, the first {min(lost)}"
    assert not doubled, f"{len(doubled)} raw records came out more than once, the first {min(doubled.items())}"
    assert set(outcomes) == produced, f"events without a raw record: {sorted(set(outcomes) - produced)[:5]}"


def check_pointers(topics: Topics) -> None:
    """Every identifier leads to the profile that shows it; every retired profile_id to a living one, in a few steps."""
    for key, pointer in topics.identities.items():
        at = pointer["profile_id"]
        for _ in range(100):
            if at in topics.profiles:
                break
            assert at in topics.identities, f"{key} leads to {at}, which is neither a profile nor retired"
            at = topics.identities[at]["profile_id"]
        profile = topics.profiles.get(at)
        assert profile is not None, f"{key} leads in a circle"
        if not pointer.get("retired"):
            shown = {f"{pair['namespace']}:{pair['value']}" for pair in profile["identifiers"]}
            assert key in shown, f"{key} leads to {at}, which shows {sorted(shown)}"


def check_timers(topics: Topics, events: list[Record], segment: str, window_ms: int) -> None:
    """Exits by time of a segment `performed … within` stand exactly a window after one of the events."""
    times = {
        event["time"]
        for event in (msgspec.json.decode(record.value or b"{}") for record in events)
        if event.get("kind") == "event"
    }
    for change in topics.segment_changes:
        if change["segment"] == segment and change["cause"] == "timer" and change["change"] == "exited":
            assert change["at"] - window_ms in times, f"no event stands {window_ms} ms before {change}"


# ---------------------------------------------------------------------------------------- stores and transactions

POSITIONS_KEY = b"\x00positions"
TOPICS_KEY = b"\x00topics"
SCRUBS_KEY = b"\x00scrubs"
_WAKE = 8


def check_store(folder: Path, partition: int, changelog: list[Record], complete: bool = True) -> bool:
    """A closed store holds what the changelog said up to the store's position, and the time index of just that.

    `folder` is that of the role; `complete` requires the store to be at the changelog's end. Gives whether it was.
    """
    last = {record.key: record for record in changelog if record.partition == partition}
    end = max((record.offset + 1 for record in last.values()), default=0)
    store = RocksStores(folder).open(partition)
    try:
        meta = store.meta()
        values = dict(store.scan(b""))
        timers = set(store.timers())
    finally:
        store.close()
    at = meta.changelog if meta is not None else 0
    assert at >= end or not complete, f"the store of {partition} is at {at}, the changelog at {end}"
    for key, record in last.items():
        # What is still to be scrubbed is each store's own.
        if key in (None, POSITIONS_KEY, TOPICS_KEY, SCRUBS_KEY) or record.offset >= at:
            continue
        held = values.get(key)
        assert held == record.value, (
            f"{folder.name}/{partition}: {key!r} is {held!r}, the changelog says {record.value!r}"
        )
    unknown = set(values) - {key for key in last if key is not None} - {SCRUBS_KEY}
    assert not unknown, f"{folder.name}/{partition}: keys that the changelog does not know: {sorted(unknown)[:3]}"
    due = {(int.from_bytes(data[:_WAKE], "big"), key) for key, data in values.items() if data[:_WAKE] != bytes(_WAKE)}
    assert due <= timers, f"{folder.name}/{partition}: not in the time index: {sorted(due - timers)[:3]}"
    told = last.get(POSITIONS_KEY)
    if meta is not None and told is not None and at >= end:
        assert meta.inputs == msgspec.json.decode(told.value or b"{}"), f"{folder.name}/{partition}: other positions"
        ids = msgspec.json.decode(last[TOPICS_KEY].value or b"{}")
        assert set(ids) == set(meta.inputs) and ids.items() <= meta.topic_ids.items(), f"{folder.name}: other topics"
    return at >= end


def open_transactions(settings: Settings, topics: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Partitions on which a transaction is open: (last stable offset, high watermark) differ."""
    found: dict[str, tuple[int, int]] = {}
    readers = [
        Consumer({**settings.client_properties(), "group.id": f"{settings.prefix}ends", "isolation.level": isolation})
        for isolation in ("read_committed", "read_uncommitted")
    ]
    try:
        known = readers[0].list_topics(timeout=120).topics
        for name in topics:
            for number in known[settings.topic(name)].partitions:
                partition = TopicPartition(settings.topic(name), number)
                stable, high = (reader.get_watermark_offsets(partition, 30, cached=False)[1] for reader in readers)
                if stable != high:
                    found[f"{name}/{number}"] = (stable, high)
    finally:
        for reader in readers:
            reader.close()
    return found


def transactional_ids(settings: Settings) -> set[str]:
    """The transactional ids of the workspace that the broker knows, without its prefix. What is not the id of a slot
    is somebody whom no start can fence."""
    consumer = Consumer(
        {
            **settings.client_properties(),
            "group.id": f"{settings.prefix}ids",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    found: set[str] = set()
    try:
        topic = "__transaction_state"
        waiting = set(consumer.list_topics(topic, timeout=120).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in waiting])
        while waiting:
            for message in consumer.consume(10_000, 1.0):
                if message.error() is not None:
                    waiting.discard(message.partition() or 0)
                    continue
                key = message.key() or b""
                # The version (2 bytes), the length of the id (2 bytes), the id.
                name = bytes(key)[4:].decode(errors="replace")
                if name.startswith(settings.prefix):
                    found.add(name.removeprefix(settings.prefix))
    finally:
        consumer.close()
    return found
