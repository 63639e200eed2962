"""What leaves, to which destination: the rules, decided once, in the transaction that made the change.

A destination is an `audience`, which mirrors a membership and so gets everything, or a `trigger`, which acts on a
moment. A trigger gets

- no change caused by a backfill, a change of definition, or a split: nothing happened to the person just then;
- nothing that became true more than `max_age_ms` before it was decided: the moment has passed;
- no entry that only continues a membership across a merge, and no exit of a profile that was merged away: the person
  is where they were, under another id.

While a destination is paused its deliveries are decided as ever, and wait in its topic.

A destination with `purposes` gets a person only while all of them are granted. What takes a person *out* of an
audience always passes, for that is what a withdrawn consent asks for.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from pipeline.records import (
    AccountAlert,
    Cause,
    Delivery,
    Event,
    IdentifierPair,
    ProfileChange,
    ProfileDocument,
    SegmentChange,
    SegmentMember,
)

Mode = Literal["audience", "trigger"]
Profile = Callable[[], ProfileDocument | None]
"""Gives the profile's document; called only if a destination needs something of it."""

HOUR_MS = 3_600_000
QUIET_CAUSES = frozenset({"backfill", "definition", "split"})
_QUIET_PROFILE_CAUSES = QUIET_CAUSES | {"merge"}
_ENDS = frozenset({"merged", "expired", "erased"})
PROFILE_SECTIONS = frozenset({"identifiers", "traits", "computed", "consents", "segments", "accounts"})
"""The sections of a profile a destination mirrors unless it names others: not the totals and the last-seen time,
which change with every event."""

_OF_DELIVERY = frozenset({"profile_id", "segment", "at", "decided_at", "cause"})
_canonical = msgspec.json.Encoder(order="deterministic").encode


@dataclass(frozen=True, slots=True)
class Destination:
    """One destination, compiled.

    `segments` None means every segment; `changes` which of entered and exited. `traits` are sent along with segment
    changes and limit those of profile changes (None there: all). `profile_sections` None means no profile changes;
    `events` names the events forwarded, `alerts` the alerts about accounts, `("*",)` all. `max_age_ms` holds for
    triggers only.
    """

    name: str
    kind: str
    mode: Mode = "trigger"
    entity: Literal["person", "account"] | None = None
    segments: frozenset[str] | None = frozenset()
    changes: frozenset[str] = frozenset({"entered", "exited"})
    traits: tuple[str, ...] | None = None
    profile_sections: frozenset[str] | None = None
    events: tuple[str, ...] = ()
    alerts: tuple[str, ...] = ()
    max_age_ms: int = HOUR_MS
    paused: bool = False
    purposes: tuple[str, ...] = ()


def _grouped(pairs: Iterable[tuple[str, Destination]]) -> dict[str, tuple[Destination, ...]]:
    grouped: dict[str, tuple[Destination, ...]] = {}
    for name, destination in pairs:
        grouped[name] = (*grouped.get(name, ()), destination)
    return grouped


@dataclass(frozen=True, slots=True)
class ActivationPlan:
    """All destinations of one generation, indexed by what they want. The empty plan delivers nothing."""

    destinations: tuple[Destination, ...] = ()
    _by_segment: Mapping[str, tuple[Destination, ...]] = field(init=False, repr=False, compare=False)
    _every_segment: tuple[Destination, ...] = field(init=False, repr=False, compare=False)
    _by_event: Mapping[str, tuple[Destination, ...]] = field(init=False, repr=False, compare=False)
    _every_event: tuple[Destination, ...] = field(init=False, repr=False, compare=False)
    _profile: tuple[Destination, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        active = sorted(self.destinations, key=lambda destination: destination.name)
        index = object.__setattr__
        index(self, "_by_segment", _grouped((s, d) for d in active for s in sorted(d.segments or ())))
        index(self, "_every_segment", tuple(d for d in active if d.segments is None))
        index(self, "_by_event", _grouped((e, d) for d in active for e in d.events if e != "*"))
        index(self, "_every_event", tuple(d for d in active if "*" in d.events))
        index(self, "_profile", tuple(d for d in active if d.profile_sections is not None))

    @property
    def wants_profile_changes(self) -> bool:
        """Whether any destination takes profile changes: when not, `for_profile_change` need not be called."""
        return bool(self._profile)

    def wants_event(self, event: str) -> bool:
        """Whether any destination takes forwarded events of this name."""
        return bool(self._every_event) or event in self._by_event

    def for_segment_change(self, change: SegmentChange, profile: Profile | None = None) -> list[Delivery]:
        """The deliveries a segment change leads to, by destination name."""
        wanted = self._by_segment.get(change.segment, ())
        if self._every_segment:
            wanted = (*wanted, *self._every_segment)
        return [
            _segment_delivery(destination, change, profile)
            for destination in wanted
            if _takes_segment_change(destination, change)
            and _consented(destination, profile, removes=change.change == "exited")
        ]

    def for_profile_change(
        self, change: ProfileChange, profile: Profile | None = None, position: str = ""
    ) -> list[Delivery]:
        """The deliveries a profile change leads to.

        `position` is that of the record that caused it, "topic/partition/offset"; it keeps two equal changes apart.
        """
        deliveries = []
        for destination in self._profile:
            ends = change.change in _ENDS
            if not _takes_profile_change(destination, change) or not _consented(destination, profile, removes=ends):
                continue
            body = _projected(destination, change)
            if not (body.get("set") or body.get("unset")) and change.change == "updated":
                continue
            deliveries.append(
                Delivery(
                    delivery_id=_delivery_id(destination.name, b"profile", position.encode(), _canonical(change)),
                    destination=destination.name,
                    profile_id=change.profile_id,
                    action="profile_deleted" if ends else "profile_changed",
                    at=change.at,
                    decided_at=change.decided_at,
                    identifiers=_identifiers(profile),
                    cause=change.cause,
                    body=body,
                )
            )
        return deliveries

    def for_member(self, destination: str, member: SegmentMember, clock_ms: int, profile: Profile) -> Delivery | None:
        """The delivery by which an audience learns again of a present membership; None if it does not want it.

        It has the id of the change that began the membership: who has seen that one knows this one.
        """
        found = next((each for each in self.destinations if each.name == destination), None)
        if found is None or found.mode != "audience" or "entered" not in found.changes:
            return None
        document = profile()
        if document is None or (found.segments is not None and member.segment not in found.segments):
            return None
        if found.entity not in (None, member.entity) or not _consented(found, lambda: document, removes=False):
            return None
        change = SegmentChange(
            profile_id=member.profile_id,
            entity=member.entity,
            segment=member.segment,
            version=member.version,
            change="entered",
            at=member.since,
            decided_at=clock_ms,
            sequence=member.sequence,
            cause="backfill",
            evidence=Cause(),
            late=False,
            identifiers=document.identifiers,
        )
        delivery = _segment_delivery(found, change, lambda: document)
        delivery.cause = "sync"
        return delivery

    def for_alert(self, alert: AccountAlert, identifiers: list[IdentifierPair]) -> list[Delivery]:
        """The deliveries an alert about an account leads to. They carry whom it goes to, and who stands behind it; not
        where a destination needs consents: those people were not asked."""
        deliveries = []
        for destination in self.destinations:
            if not {"*", alert.alert} & set(destination.alerts):
                continue
            if destination.mode == "trigger" and alert.decided_at - alert.at > destination.max_age_ms:
                continue
            body = {name: value for name, value in msgspec.to_builtins(alert).items() if name not in _OF_DELIVERY}
            if destination.purposes and "context" in body:
                body["context"] = {"people": alert.context.get("people", 0)}
            deliveries.append(
                Delivery(
                    delivery_id=_delivery_id(destination.name, b"alert", alert.alert_id.encode()),
                    destination=destination.name,
                    profile_id=alert.profile_id,
                    action="alert",
                    at=alert.at,
                    decided_at=alert.decided_at,
                    identifiers=identifiers,
                    segment=alert.segment,
                    cause=alert.cause,
                    body=body,
                )
            )
        return deliveries

    def for_event(
        self,
        event: Event,
        profile_id: str,
        identifiers: list[IdentifierPair],
        clock_ms: int,
        profile: Profile | None = None,
    ) -> list[Delivery]:
        """The deliveries of a forwarded event. Not to be called for history that a backfill reads again."""
        wanted = self._by_event.get(event.event, ())
        if self._every_event:
            wanted = (*wanted, *self._every_event)
        return [
            Delivery(
                # One event is delivered once, under whichever id its person has: hence no profile_id in the hash.
                delivery_id=_delivery_id(destination.name, b"event", event.source.encode(), event.message_id.encode()),
                destination=destination.name,
                profile_id=profile_id,
                action="event",
                at=event.time,
                decided_at=clock_ms,
                identifiers=identifiers,
                body=_event_body(event),
            )
            for destination in wanted
            if not (destination.mode == "trigger" and clock_ms - event.time > destination.max_age_ms)
            and _consented(destination, profile, removes=False)
        ]


def _takes_segment_change(destination: Destination, change: SegmentChange) -> bool:
    if change.change not in destination.changes:
        return False
    if destination.entity is not None and destination.entity != change.entity:
        return False
    if destination.mode == "audience":
        return True
    if change.cause in QUIET_CAUSES or change.decided_at - change.at > destination.max_age_ms:
        return False
    return not change.continues if change.change == "entered" else change.moved_to is None


def _takes_profile_change(destination: Destination, change: ProfileChange) -> bool:
    if destination.entity is not None and destination.entity != change.entity:
        return False
    if destination.mode == "audience":
        return True
    if change.cause in _QUIET_PROFILE_CAUSES or change.change in ("merged", "split"):
        return False
    return change.decided_at - change.at <= destination.max_age_ms


def _consented(destination: Destination, profile: Profile | None, *, removes: bool) -> bool:
    if not destination.purposes or (removes and destination.mode == "audience"):
        return True
    document = profile() if profile is not None else None
    if document is None:
        return False
    return all(_granted(document.consents.get(purpose)) for purpose in destination.purposes)


def _granted(consent: Any) -> bool:
    """Only what plainly says yes is a yes."""
    if isinstance(consent, Mapping):
        consent = consent.get("granted")
    return consent is True or consent == "granted"


def _delivery_id(destination: str, *parts: bytes) -> str:
    hashed = blake2b(digest_size=16, person=b"delivery")
    for part in (destination.encode(), *parts):
        hashed.update(len(part).to_bytes(4, "big"))
        hashed.update(part)
    return f"dlv_{hashed.hexdigest()}"


def segment_delivery_id(destination: str, profile_id: str, segment: str, sequence: int) -> str:
    """The id of the delivery of one segment change: stable, so that a repetition can be told from news."""
    return _delivery_id(destination, b"segment", profile_id.encode(), segment.encode(), b"%d" % sequence)


def _segment_delivery(destination: Destination, change: SegmentChange, profile: Profile | None) -> Delivery:
    body: dict[str, Any] = {
        "entity": change.entity,
        "version": change.version,
        "sequence": change.sequence,
        "late": change.late,
        "evidence": msgspec.to_builtins(change.evidence),
    }
    if change.continues:
        body["continues"] = change.continues
    if change.moved_to is not None:
        body["moved_to"] = change.moved_to
    if change.approximate:
        body["approximate"] = True
    if change.context and not destination.purposes:
        body["context"] = change.context
    if destination.traits:
        document = profile() if profile is not None else None
        if document is not None:
            known = {**document.traits, **document.computed}
            body["traits"] = {name: known[name] for name in destination.traits if name in known}
    return Delivery(
        delivery_id=segment_delivery_id(destination.name, change.profile_id, change.segment, change.sequence),
        destination=destination.name,
        profile_id=change.profile_id,
        action="segment_entered" if change.change == "entered" else "segment_exited",
        at=change.at,
        decided_at=change.decided_at,
        identifiers=change.identifiers,
        segment=change.segment,
        cause=change.cause,
        body=body,
    )


def _projected(destination: Destination, change: ProfileChange) -> dict[str, Any]:
    """The part of a profile change this destination mirrors."""
    sections = destination.profile_sections or frozenset()
    names = destination.traits

    def keep(section: str, entries: Any) -> Any:
        if section not in ("traits", "computed") or names is None:
            return entries
        if isinstance(entries, Mapping):
            return {name: value for name, value in entries.items() if name in names}
        return [name for name in entries if name in names]

    body: dict[str, Any] = {"entity": change.entity, "change": change.change}
    changed = {section: keep(section, entries) for section, entries in change.set.items() if section in sections}
    # An emptied list is news (the section is replaced whole), a mapping with nothing of interest left is not.
    changed = {section: kept for section, kept in changed.items() if kept or not isinstance(kept, Mapping)}
    removed = {s: kept for s, entries in change.unset.items() if s in sections and (kept := keep(s, entries))}
    if changed:
        body["set"] = changed
    if removed:
        body["unset"] = removed
    if change.into is not None:
        body["into"] = change.into
    if change.origin is not None:
        body["origin"] = change.origin
    return body


def _identifiers(profile: Profile | None) -> list[IdentifierPair]:
    document = profile() if profile is not None else None
    return document.identifiers if document is not None else []


def _event_body(event: Event) -> dict[str, Any]:
    body: dict[str, Any] = {
        "message_id": event.message_id,
        "type": event.type,
        "event": event.event,
        "received": event.received,
        "properties": event.properties,
    }
    if event.traits:
        body["traits"] = event.traits
    if event.context:
        body["context"] = event.context
    if event.group_id is not None:
        body["group_id"] = event.group_id
    return body
