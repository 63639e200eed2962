"""First sync and re-sync: an audience learns of every present membership, and of every profile if it mirrors them,
through its own topic.

It runs beside the live deliveries. A membership that ends meanwhile may arrive after its own exit; its `sequence` is
the lower one, and tells. The ids are those of the original changes, so nothing that a destination knows is news to it.

A profile has no sequence, and an exit by consent has that of the entry: what changes between being read and being
written here would be told in an older state than the destination has. So of what was told here is told again what has
changed by the time that everything before it in the topic is decided, until nothing has. What changes later is told
behind it by the pipeline.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from pipeline.activation import ActivationPlan, segment_delivery_id
from pipeline.definitions.catalog import activation_plan
from pipeline.definitions.log import read_catalog
from pipeline.errors import InputError, LookupFailed
from pipeline.records import Delivery, ProfileDocument, SegmentMember, encode
from pipeline.runtime.kafka.decided import wait_until_decided
from pipeline.runtime.kafka.doors import TopicReader, current_values, produce_all
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_MOST_ROUNDS = 50  # with one of some tenths of a second: somebody to whom so much happens is no human being

Told = tuple[bytes, bytes]
Tell = Callable[[Mapping[bytes, bytes | None]], Iterator[Told]]
"""Makes of the newest profiles what is to be told."""

_log = logging.getLogger(__name__)
_decode_member = msgspec.json.Decoder(SegmentMember).decode
_decode_profile = msgspec.json.Decoder(ProfileDocument).decode


def resync(settings: Settings, destination: str, progress: Callable[[int], None] = lambda sent: None) -> int:
    """Put every present membership and profile that a destination wants on its topic; returns how many.

    Raises LookupFailed for a destination that is not in force, InputError for one that is a trigger, BrokerError.
    """
    catalog = read_catalog(settings)
    plan = activation_plan(catalog, catalog.latest)
    found = next((each for each in plan.destinations if each.name == destination), None)
    if found is None:
        known = ", ".join(each.name for each in plan.destinations) or "none"
        raise LookupFailed(f"There is no destination {destination}.", destination, f"there are: {known}")
    if found.mode != "audience":
        raise InputError(
            f"{destination} is a trigger: it acts on a moment, and these moments have passed.",
            destination,
            "write `mode: audience` into its definition if it shall mirror memberships",
        )
    sent = _memberships(settings, plan, destination, progress)
    if found.profile_sections is not None:
        sent += _profiles(settings, plan, destination, lambda more: progress(sent + more))
    return sent


def _memberships(settings: Settings, plan: ActivationPlan, destination: str, progress: Callable[[int], None]) -> int:
    told: dict[bytes, list[str]] = {}
    refused: set[bytes] = set()
    # The members first: a profile that comes to be in between is told by its own changes.
    members = current_values(settings, "segment-members")
    return _until_nothing_changes(
        settings,
        destination,
        lambda newest: _present(plan, destination, members, newest, told),
        lambda newest: _turned(plan, destination, newest, told, refused),
        progress,
    )


def _until_nothing_changes(
    settings: Settings, destination: str, first: Tell, again: Tell, progress: Callable[[int], None]
) -> int:
    """Tell of all profiles, and again of those that have changed before it was sure to be the last word; how many were
    told."""
    topic = DELIVERIES.name + destination
    with TopicReader(settings, ["profiles"]) as reader:
        newest, tell, sent = _newest(reader), first, 0
        for _ in range(_MOST_ROUNDS):
            told: set[bytes] = set()
            more = produce_all(settings, topic, _noted(tell(newest), told), progress)
            sent += more
            if not more:
                return sent
            # A change that is not committed yet may stand in the topic before what was told here.
            for each in (topic, "profiles"):
                wait_until_decided(settings, each)
            newest, tell = {key: value for key, value in _newest(reader).items() if key in told}, again
        if newest:
            _log.warning(
                "%d profiles changed each of the %d times they were sent to %s: an older state may stand there until "
                "what differs changes next; send again when less happens to them",
                len(newest),
                _MOST_ROUNDS,
                destination,
            )
        return sent


def _noted(records: Iterable[Told], told: set[bytes]) -> Iterator[Told]:
    for record in records:
        told.add(record[0])
        yield record


def _newest(reader: TopicReader) -> dict[bytes, bytes | None]:
    return {record.key: record.value for record in reader.read_to_end() if record.key is not None}


def _present(
    plan: ActivationPlan,
    destination: str,
    members: Mapping[bytes, bytes],
    profiles: Mapping[bytes, bytes | None],
    told: dict[bytes, list[str]],
) -> Iterator[Told]:
    """Every present membership; `told` (by profile_id, the segments) is filled."""
    now_ms = time.time_ns() // 1_000_000
    for value in members.values():
        member = _decode_member(value)
        key = member.profile_id.encode()
        raw = profiles.get(key)
        if raw is None:
            continue
        delivery = plan.for_member(destination, member, now_ms, lambda raw=raw: _decode_profile(raw))  # type: ignore[misc]
        if delivery is not None:
            told.setdefault(key, []).append(member.segment)
            yield key, encode(delivery)


def _turned(
    plan: ActivationPlan,
    destination: str,
    newest: Mapping[bytes, bytes | None],
    told: Mapping[bytes, list[str]],
    refused: set[bytes],
) -> Iterator[Told]:
    """That these people are in or out, where they changed meanwhile what they allow: the pipeline said so itself,
    perhaps before it was told here otherwise. `refused` (those told to be out) is brought up to date."""
    now_ms = time.time_ns() // 1_000_000
    for key, value in newest.items():
        if value is None or key not in told:
            continue
        document = _decode_profile(value)
        may_have = not plan.refusal(destination, document)
        if may_have is not (key in refused):
            continue
        refused ^= {key}
        for segment in told[key]:
            # Of one that has ended the pipeline tells with a higher sequence.
            if segment in document.segments:
                yield key, encode(plan.turned_meanwhile(destination, document, segment, may_have, now_ms))


def _profiles(settings: Settings, plan: ActivationPlan, destination: str, progress: Callable[[int], None]) -> int:
    told: dict[bytes, str] = {}

    def owed(newest: Mapping[bytes, bytes | None]) -> Iterator[Told]:
        return _owed(plan, destination, newest, told)

    return _until_nothing_changes(settings, destination, owed, owed, progress)


def _owed(
    plan: ActivationPlan, destination: str, newest: Mapping[bytes, bytes | None], told: dict[bytes, str]
) -> Iterator[Told]:
    """What is to be told of these profiles by now, beyond what was; `told` (by profile_id, the delivery) is brought up
    to date."""
    now_ms = time.time_ns() // 1_000_000
    for key, value in newest.items():
        delivery = plan.for_document(destination, _decode_profile(value), now_ms) if value is not None else None
        if delivery is None:
            if told.pop(key, None) is not None:
                # It was told here after it had been told that it is no more.
                yield key, encode(_deleted(destination, key.decode(), now_ms))
        elif told.get(key) != delivery.delivery_id:
            told[key] = delivery.delivery_id
            yield key, encode(delivery)


def _deleted(destination: str, profile_id: str, now_ms: int) -> Delivery:
    return Delivery(
        delivery_id=segment_delivery_id(destination, profile_id, "sync", now_ms),
        destination=destination,
        profile_id=profile_id,
        action="profile_deleted",
        at=now_ms,
        decided_at=now_ms,
        identifiers=[],
        cause="sync",
        body={"change": "erased"},
    )
