"""What the world is told: changes of segments and of profiles, one record per cause, and the documents they fold to."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.activation import ActivationPlan, Told, Turn
from pipeline.profile import build, contents, shown_consents, shown_totals, shown_traits
from pipeline.records import (
    EVERYTHING,
    Cause,
    Delivery,
    Event,
    IdentityPointer,
    ProfileChange,
    ProfileDocument,
    SegmentChange,
    encode,
)
from pipeline.segments import HIDDEN
from pipeline.unify import memberships, news
from pipeline.unify.actor import Actor, Pair
from pipeline.unify.forms import pairs_of
from pipeline.unify.news import accounts_of
from pipeline.unify.profile import Profile
from pipeline.unify.task import Task

# The pieces of a document, as `Writer.sorted` writes whole records.
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode

PERSON = "person"
# Whether a section stands before the totals in a document, or behind them.
_IN_HEAD = {
    **dict.fromkeys(("identifiers", "identifiers_total", "traits", "computed", "consents"), True),
    **dict.fromkeys(("segments", "accounts", "unfollowed"), False),
}
NO_CAUSE = Cause()
# A person who was a member before a merge goes on being one, also if their parts take a moment to arrive.
CONTINUES_WITHIN_MS = 300_000
_CAUSES = frozenset(("event", "timer", "merge", "split", "consent", "backfill", "definition", "expired", "erase"))


class Moment:
    """Why and when something changes: `at` in event time (None: the clock), what caused it, and where it stood. `said`:
    the event, if one did."""

    __slots__ = ("at", "cause", "evidence", "position", "said")

    def __init__(
        self, cause: str, at: int, evidence: Cause = NO_CAUSE, position: str = "", said: Event | None = None
    ) -> None:
        self.cause: Any = cause if cause in _CAUSES else "merge"
        self.at = at
        self.evidence = evidence
        self.position = position
        self.said = said


def document(profile: Profile) -> ProfileDocument:
    """The profile as it is shown now."""
    return build(
        profile.profile_id,
        PERSON,
        profile.identifiers,
        profile.identifiers_total,
        profile.joined,
        memberships.shown(pairs_of(profile.actor)),
        profile.computed,
        accounts_of(profile),
        unfollowed=profile.unfollowed,
    )


def publish(task: Task, profile: Profile) -> None:
    """The profile's document is to be written when the batch ends."""
    task.dirty[profile.key] = profile


def write_documents(task: Task) -> None:
    """Write the documents of the batch's changed profiles."""
    for profile in task.dirty.values():
        write_document(task, profile)
    task.dirty.clear()


def write_document(task: Task, profile: Profile) -> None:
    """Write the document of a profile: the last one of a batch counts."""
    task.out.upsert("profiles", profile.profile_key, encoded_document(profile))


def encoded_document(profile: Profile) -> bytes:
    """The document, encoded. What no change has touched since is as it was encoded then: most events change a total."""
    joined = profile.joined
    head, tail = profile.head, profile.tail
    if head is None:
        head = profile.head = _head(profile)
    if tail is None:
        tail = profile.tail = _tail(profile)
    end = f',"first_seen":{joined.first_seen}' if joined.first_seen else ""
    if joined.last_seen:
        end += f',"last_seen":{joined.last_seen}'
    totals = _encode_sorted(shown_totals(joined)) if joined.totals else b""
    return b"".join((head, b',"totals":' if totals else b"", totals, tail, end.encode(), b"}"))


def _head(profile: Profile) -> bytes:
    head = ProfileDocument(profile.profile_id, PERSON, profile.identifiers, profile.identifiers_total)
    return b"".join(
        (
            _encode_sorted(head)[:-1],
            _section(b',"traits":', shown_traits(profile.joined)),
            _section(b',"computed":', profile.computed),
            _section(b',"consents":', shown_consents(profile.joined)),
        )
    )


def _tail(profile: Profile) -> bytes:
    return b"".join(
        (
            _section(b',"segments":', memberships.shown(pairs_of(profile.actor))),
            _section(b',"accounts":', accounts_of(profile)),
            _section(b',"unfollowed":', profile.unfollowed),
        )
    )


def _section(begins: bytes, values: Mapping[str, Any] | Sequence[Any]) -> bytes:
    return begins + _encode_sorted(values) if values else b""


def unpublish(task: Task, profile: Profile) -> None:
    """The profile is no more."""
    profile.head = profile.tail = None
    task.dirty.pop(profile.key, None)
    task.out.upsert("profiles", profile.profile_key, None)


def pointer(task: Task, key: str, profile_id: str, epoch: int, retired: bool = False) -> None:
    """Say where an identifier or a retired profile_id leads."""
    task.out.upsert("identities", key.encode(), encode(IdentityPointer(profile_id, max(epoch, 0), retired)))


def no_pointer(task: Task, key: str) -> None:
    """An identifier or a retired profile_id leads nowhere any more."""
    task.out.upsert("identities", key.encode(), None)


def segment_change(
    task: Task,
    profile: Profile,
    segment: str,
    entered: bool,
    moment: Moment,
    approximate: bool = False,
    moved_to: str | None = None,
) -> bool:
    """Enter or leave a segment, unless that is how it is already. Gives whether anything is to be seen of it: of hidden
    segments only accounts hear."""
    actor = profile.actor
    rule = profile.plan.segments.segments.get(segment)
    turned = memberships.turn(pairs_of(actor), segment, entered, moment, rule)
    if turned is None:
        return False
    pair, late = turned
    if segment[0] == HIDDEN:
        news.heard(task, profile, segment, pair, moment)
        return False
    change = SegmentChange(
        profile_id=profile.profile_id,
        entity=PERSON,
        segment=segment,
        version=pair.version,
        change="entered" if entered else "exited",
        at=pair.at,
        decided_at=task.clock,
        sequence=pair.sequence,
        cause=moment.cause,
        evidence=moment.evidence,
        late=late,
        identifiers=profile.identifiers,
        continues=_continued(actor, segment, task.clock) if entered and actor.inherited else [],
        approximate=approximate,
        moved_to=moved_to,
    )
    task.out.log("segment-changes", profile.profile_key, task.writer.plain(change))
    memberships.write_row(task, PERSON, profile.profile_id, segment, pair)
    activation = profile.plan.activation
    if activation.wants_segment(segment):
        deliver(task, activation.for_segment_change(change, _shown(profile), told_of(actor), _restricted(profile)))
    return True


def leave_elsewhere(task: Task, profile: Profile, profile_id: str, segment: str, pair: Pair, moment: Moment) -> None:
    """Say that a profile which is none here left a segment: `pair` is what was told of it elsewhere."""
    change = SegmentChange(
        profile_id=profile_id,
        entity=PERSON,
        segment=segment,
        version=pair.version,
        change="exited",
        at=max(moment.at, pair.at),
        decided_at=task.clock,
        sequence=pair.sequence + 1,
        cause=moment.cause,
        evidence=moment.evidence,
        late=False,
        identifiers=profile.identifiers,
    )
    task.out.log("segment-changes", profile_id.encode(), encode(change))
    task.out.upsert("segment-members", f"{segment}/{profile_id}".encode(), None, profile_id.encode())
    deliver(task, profile.plan.activation.for_segment_change(change, lambda: None))


def profile_change(
    task: Task,
    profile: Profile,
    change: Any,
    moment: Moment,
    added: dict[str, Any],
    removed: dict[str, list[str]],
    into: str | None = None,
    origin: str | None = None,
) -> None:
    """Say what changed of a profile."""
    record = ProfileChange(
        profile_id=profile.profile_id,
        entity=PERSON,
        change=change,
        at=moment.at,
        decided_at=task.clock,
        cause=moment.cause,
        evidence=moment.evidence,
        set=added,
        unset=removed,
        into=into,
        origin=origin,
    )
    task.out.log("profile-changes", profile.profile_key, task.writer.sorted(record))
    _outdated(profile, added)
    if removed:
        _outdated(profile, removed)
    activation = profile.plan.activation
    if activation.wants_profile_changes:
        told, restricted, shown_now = told_of(profile.actor), _restricted(profile), _shown(profile)
        found = activation.for_profile_change(record, shown_now, moment.position, told, restricted, moment.said)
        deliver(task, found)


def _outdated(profile: Profile, sections: Iterable[str]) -> None:
    """These sections are not as the document last showed them: what holds them is encoded anew."""
    for section in sections:
        is_in_head = _IN_HEAD.get(section)
        if is_in_head is None:
            continue
        if is_in_head:
            profile.head = None
        else:
            profile.tail = None


def memberships_changed(
    profile: Profile, segments: Sequence[str], added: dict[str, Any], removed: dict[str, list[str]]
) -> None:
    """Put the present state of these memberships into a profile change."""
    memberships.changed(pairs_of(profile.actor), segments, added, removed)


def begin(task: Task, profile: Profile, change: str, moment: Moment, origin: str | None) -> None:
    """A profile begins, with everything that is known of it by now."""
    profile_change(task, profile, change, moment, contents(document(profile)), {}, origin=origin)
    publish(task, profile)


def deliver_event(task: Task, profile: Profile, event: Any) -> None:
    """Hand an event to the destinations that take events."""
    activation = profile.plan.activation
    deliver(
        task,
        activation.for_event(
            event,
            profile.profile_id,
            profile.identifiers,
            task.clock,
            _shown(profile),
            told_of(profile.actor),
            _restricted(profile),
        ),
    )


def turned(
    task: Task,
    profile: Profile,
    moment: Moment,
    widen: bool,
    refused: Sequence[str] = (),
    before: ActivationPlan | None = None,
    silently: bool = False,
) -> bool:
    """What the person allows may have changed: tell those who held them and may not any more, and those who may again
    (ActivationPlan.turned). Memberships are still those that were told. Gives whether something waits."""
    activation, told = profile.plan.activation, profile.actor.told
    if told is None:
        restricts = before is not None and activation.restricts
        if not activation.asks and not restricts and EVERYTHING not in profile.consents:
            return False
        told = told_of(profile.actor)
    turn = Turn(moment.at, task.clock, moment.evidence, tuple(refused))
    deliveries, waits = activation.turned(_shown(profile), told, turn, widen, before, silently)
    deliver(task, deliveries)
    return waits


def told_of(actor: Actor) -> Told:
    """What destinations were told of the actor's profile; it must be put if that is changed."""
    told = actor.told
    if told is None:
        told = actor.told = Told()
    return told


def _restricted(profile: Profile) -> bool:
    """Whether the person said no to everything."""
    said = profile.consents.get(EVERYTHING)
    return said is not None and not said[1]


def _continued(actor: Actor, segment: str, clock: int) -> list[str]:
    inherited = actor.inherited.pop(segment, None)
    if inherited is None or clock - inherited[0] > CONTINUES_WITHIN_MS:
        return []
    return sorted(inherited[1])


def _shown(profile: Profile) -> Callable[[], ProfileDocument | None]:
    return lambda: document(profile)


def deliver(task: Task, deliveries: Iterable[Delivery]) -> None:
    """Hand these to their destinations."""
    for delivery in deliveries:
        task.out.log(f"deliveries.{delivery.destination}", delivery.profile_id.encode(), task.writer.sorted(delivery))
