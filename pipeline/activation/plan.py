"""What leaves, to which destination: the rules, decided once, in the transaction that made the change.

A destination is an `audience`, which mirrors a membership and so gets everything, or a `trigger`, which acts on a
moment. A trigger gets

- no change caused by a backfill, a change of definition, or a split: nothing happened to the person just then;
- nothing that became true more than `max_age_ms` before it was decided: the moment has passed;
- no entry that only continues a membership across a merge, and no exit of a profile that was merged away: the person
  is where they were, under another id.

While a destination is paused its deliveries are decided as ever, and wait in its topic.

A destination with `purposes` or a `channel` gets a person only while they allow it (consent.py). When they allow it no
more, it is told that they left everything it was told of (told.py), whatever its `changes` are, and hears nothing from
then on; one that was told nothing hears nothing. When they allow it again, an audience is told anew.

Of a person's data it gets what may be used for its purposes and has no label but those it takes (data.py), in the form
it asks for (projecting.py); who is in a segment, if all that the segment's rule looks at may be used so.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.activation.consent import NO_POLICY, ConsentPolicy, granted
from pipeline.activation.data import NO_RULES, DataRules
from pipeline.activation.destination import ENDS, PROFILE_SECTIONS, Destination
from pipeline.activation.echo import is_of_a_delivery, said_itself, without_echo
from pipeline.activation.ids import delivery_id
from pipeline.activation.projecting import Normalise, Projector, as_it_is
from pipeline.activation.segment_delivery import segment_delivery
from pipeline.activation.told import PROFILE, Told, Turn, evidence_of
from pipeline.records import (
    EVERYTHING,
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

Profile = Callable[[], ProfileDocument | None]
"""Gives the profile's document; called only if a destination needs something of it."""

_OF_DELIVERY = frozenset({"profile_id", "segment", "at", "decided_at", "cause"})
_canonical = msgspec.json.Encoder(order="deterministic").encode


def _grouped(pairs: Iterable[tuple[str, Destination]]) -> dict[str, tuple[Destination, ...]]:
    grouped: dict[str, tuple[Destination, ...]] = {}
    for name, destination in pairs:
        grouped[name] = (*grouped.get(name, ()), destination)
    return grouped


@dataclass(frozen=True, slots=True)
class ActivationPlan:
    """All destinations of one generation, indexed by what they want. The empty plan delivers nothing.

    `asks`: some destination needs something of a person to be allowed; `reads`: the traits that this depends on;
    `restricts`: something is said about data, and there is who gets some.
    """

    destinations: tuple[Destination, ...] = ()
    consent: ConsentPolicy = NO_POLICY
    data: DataRules = NO_RULES
    normalise: Normalise = as_it_is
    asks: bool = field(init=False, repr=False, compare=False)
    restricts: bool = field(init=False, repr=False, compare=False)
    reads: frozenset[str] = field(init=False, repr=False, compare=False)
    _by_name: Mapping[str, Destination] = field(init=False, repr=False, compare=False)
    _projectors: Mapping[str, Projector] = field(init=False, repr=False, compare=False)
    _by_segment: Mapping[str, tuple[Destination, ...]] = field(init=False, repr=False, compare=False)
    _every_segment: tuple[Destination, ...] = field(init=False, repr=False, compare=False)
    _by_event: Mapping[str, tuple[Destination, ...]] = field(init=False, repr=False, compare=False)
    _every_event: tuple[Destination, ...] = field(init=False, repr=False, compare=False)
    _profile: tuple[Destination, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        active = sorted(self.destinations, key=lambda destination: destination.name)
        index = object.__setattr__
        index(self, "asks", any(d.asks for d in active))
        index(self, "restricts", bool(active) and not self.data.is_empty)
        index(self, "reads", self.consent.reads if self.asks else frozenset())
        index(self, "_by_name", {d.name: d for d in active})
        index(self, "_projectors", {d.name: Projector(d, self.data, self.normalise) for d in active})
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

    def wants_segment(self, segment: str) -> bool:
        """Whether any destination takes changes of this segment."""
        return bool(self._every_segment) or segment in self._by_segment

    def named(self, name: str) -> Destination:
        """The destination of that name. KeyError if there is none."""
        return self._by_name[name]

    def identifiers(self, name: str, pairs: list[IdentifierPair]) -> list[IdentifierPair]:
        """What the destination of that name may have of identifiers, in the form in which it knows them."""
        return self._projectors[name].identifiers(pairs)

    def refusal(self, name: str, document: ProfileDocument) -> str:
        """Why the destination of that name may not have a person; empty if it may."""
        found = self._by_name[name]
        return self.consent.refusal(found.purposes, found.channel, document.consents, document.traits)

    def for_segment_change(
        self,
        change: SegmentChange,
        profile: Profile | None = None,
        told: Told | None = None,
        restricted: bool = False,
    ) -> list[Delivery]:
        """The deliveries a segment change leads to, by destination name.

        `told` is brought up to date; without it every audience is taken to have been told. `restricted`: the person
        said no to everything.
        """
        wanted = self._by_segment.get(change.segment, ())
        if self._every_segment:
            wanted = (*wanted, *self._every_segment)
        leaves = change.change == "exited"
        deliveries = []
        for destination in wanted:
            projector = self._projectors[destination.name]
            if not destination.takes_segment_change(change) or not projector.may_have_segment(change.segment):
                continue
            held = leaves and _holds(destination, change.segment, told)
            if not held and not self._may_have(destination, profile, told, restricted):
                continue
            if told is not None and not destination.mirrors:
                told.hears(destination.name, change.segment, not leaves)
            deliveries.append(segment_delivery(destination, projector, change, profile))
        return deliveries

    def for_profile_change(
        self,
        change: ProfileChange,
        profile: Profile | None = None,
        position: str = "",
        told: Told | None = None,
        restricted: bool = False,
        said: Event | None = None,
    ) -> list[Delivery]:
        """The deliveries a profile change leads to.

        `position` is that of the record that caused it, "topic/partition/offset"; it keeps two equal changes apart.
        `told` and `restricted` as above; `said` is the event that made the change, if one did.
        """
        deliveries = []
        ends = change.change in ENDS
        for destination in self._profile:
            if not destination.takes_profile_change(change):
                continue
            held = ends and _holds(destination, PROFILE, told)
            if not held and not self._may_have(destination, profile, told, restricted):
                continue
            projector = self._projectors[destination.name]
            echoes = said is not None and said_itself(destination, said)
            body = projector.profile(without_echo(change, said) if said is not None and echoes else change)
            if not (body.get("set") or body.get("unset")) and (change.change == "updated" or echoes):
                continue
            if told is not None and destination.mode != "audience":
                told.hears(destination.name, PROFILE, not ends)
            deliveries.append(
                Delivery(
                    delivery_id=delivery_id(destination.name, b"profile", position.encode(), _canonical(change)),
                    destination=destination.name,
                    profile_id=change.profile_id,
                    action="profile_deleted" if ends else "profile_changed",
                    at=change.at,
                    decided_at=change.decided_at,
                    identifiers=projector.identifiers(_identifiers(profile)),
                    cause=change.cause,
                    body=body,
                )
            )
        return deliveries

    def turned(
        self,
        profile: Profile,
        told: Told,
        turn: Turn,
        widen: bool = True,
        before: "ActivationPlan | None" = None,
        silently: bool = False,
    ) -> tuple[list[Delivery], bool]:
        """What has to be said because what a person allows may have changed, and whether something has to wait: exits
        to those who were told and may have them no longer, entries to the audiences that may have them again.

        To be called before memberships are brought up to date; `told` is brought up to date. Without `widen` nobody is
        let in, for parts of the person are on their way. `before`: the plan until now; a destination that is not in it
        was told nothing. `silently`: nobody was.
        """
        deliveries: list[Delivery] = []
        waits = False
        if before is not None:
            told.keep(self._by_name)
        document = profile()
        if document is None:
            return deliveries, waits
        everything = EVERYTHING in document.consents
        for name, destination in self._by_name.items():
            if destination.entity == "account":
                continue
            if before is not None and name in before._by_name and name not in told.refused:
                there = before._held(before._by_name[name], document, told)
                lost = [one for one in there if one != PROFILE and not self._projectors[name].may_have_segment(one)]
                deliveries += [self._turned(destination, document, one, False, told, turn) for one in lost]
            if not (destination.asks or everything or name in told.refused):
                continue
            was = name in told.refused
            new = silently or (before is not None and name not in before._by_name)
            elsewhere = destination.asks and (name in turn.refused or (silently and not widen))
            if elsewhere or self.refusal(name, document):
                if not was:
                    told.refused = sorted((*told.refused, name))
                    if not new:
                        held = self._held(destination, document, told)
                        deliveries += (self._turned(destination, document, one, False, told, turn) for one in held)
                        if held:
                            # It may have them still, on a disk: for who erases them, whatever it was that ended it.
                            told.heard.setdefault(name, [])
                    if name in told.heard:
                        told.heard[name] = []
                waits = waits or not widen
            elif was and not widen:
                waits = True
            elif was:
                told.refused = [one for one in told.refused if one != name]
                if not new and destination.mode == "audience":
                    owed = self._owed(destination, document)
                    deliveries += (self._turned(destination, document, one, True, told, turn) for one in owed)
        if deliveries:
            told.turns += 1
        return deliveries, waits

    def turned_meanwhile(
        self, name: str, document: ProfileDocument, segment: str, enters: bool, clock_ms: int
    ) -> Delivery:
        """The same of one membership, beside the pipeline: of what was written there while a person changed what they
        allow."""
        return self._turned(
            self._by_name[name], document, segment, enters, Told(turns=int(enters)), Turn(clock_ms, clock_ms)
        )

    def _turned(
        self, destination: Destination, document: ProfileDocument, what: str, enters: bool, told: Told, turn: Turn
    ) -> Delivery:
        """The delivery by which a destination learns that it may have a person, or may not, in one regard."""
        if not destination.mirrors and what != PROFILE:
            told.hears(destination.name, what, enters)
        projector = self._projectors[destination.name]
        if what == PROFILE:
            body: dict[str, Any] = {"entity": document.entity, "change": "created" if enters else "erased"}
            if enters:
                whole = {one: getattr(document, one) for one in sorted(PROFILE_SECTIONS)}
                body["set"] = projector.sections(whole, document.entity)
        else:
            there = document.segments.get(what)
            body = {
                "entity": document.entity,
                "version": there.version if there is not None else 0,
                "sequence": there.sequence if there is not None else 0,
                "late": False,
                "evidence": evidence_of(turn),
            }
            if enters and destination.traits:
                body["traits"] = projector.traits(document)
        words = {True: ("segment_entered", "profile_changed"), False: ("segment_exited", "profile_deleted")}[enters]
        return Delivery(
            delivery_id=delivery_id(
                destination.name,
                b"consent",
                document.profile_id.encode(),
                what.encode(),
                b"%d %d" % (told.turns, turn.at),
            ),
            destination=destination.name,
            profile_id=document.profile_id,
            action=words[what == PROFILE],  # type: ignore[arg-type]
            at=turn.at,
            decided_at=turn.decided_at,
            identifiers=projector.identifiers(document.identifiers),
            segment=None if what == PROFILE else what,
            cause="consent",
            body=body,
        )

    def _held(self, destination: Destination, document: ProfileDocument, told: Told) -> list[str]:
        """All that a destination was told of a person."""
        heard = told.heard.get(destination.name, ())
        if destination.mirrors:
            held = self._memberships(destination, document)
        else:
            held = sorted(one for one in heard if one != PROFILE)
        if destination.profile_sections is not None and (destination.mode == "audience" or PROFILE in heard):
            held.append(PROFILE)
        return held

    def _owed(self, destination: Destination, document: ProfileDocument) -> list[str]:
        """All that an audience is to be told of a person it may have again."""
        owed = self._memberships(destination, document) if "entered" in destination.changes else []
        if destination.profile_sections is not None:
            owed.append(PROFILE)
        return owed

    def _memberships(self, destination: Destination, document: ProfileDocument) -> list[str]:
        may_have = self._projectors[destination.name].may_have_segment
        return [one for one in sorted(document.segments) if destination.wants(one) and may_have(one)]

    def _may_have(self, destination: Destination, profile: Profile | None, told: Told | None, restricted: bool) -> bool:
        if told is not None and destination.name in told.refused:
            return False
        if not (destination.asks or restricted):
            return True
        document = profile() if profile is not None else None
        return document is not None and not self.refusal(destination.name, document)

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
        restricted = granted(document.consents.get(EVERYTHING)) is False
        if found.entity not in (None, member.entity) or not self._may_have(found, profile, None, restricted):
            return None
        projector = self._projectors[destination]
        if not projector.may_have_segment(member.segment):
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
        delivery = segment_delivery(found, projector, change, lambda: document)
        delivery.cause = "sync"
        return delivery

    def for_document(self, destination: str, document: ProfileDocument, clock_ms: int) -> Delivery | None:
        """The delivery by which an audience learns again of a whole profile; None if it mirrors none, or may not have
        it. Its id is that of what it says."""
        found = next((each for each in self.destinations if each.name == destination), None)
        if found is None or found.mode != "audience" or found.profile_sections is None:
            return None
        restricted = granted(document.consents.get(EVERYTHING)) is False
        if found.entity not in (None, document.entity) or not self._may_have(found, lambda: document, None, restricted):
            return None
        projector = self._projectors[destination]
        whole = {one: getattr(document, one) for one in sorted(PROFILE_SECTIONS)}
        body = {"entity": document.entity, "change": "created", "set": projector.sections(whole, document.entity)}
        identifiers = projector.identifiers(document.identifiers)
        said = _canonical([document.profile_id, identifiers, body])
        return Delivery(
            delivery_id=delivery_id(destination, b"sync", said),
            destination=destination,
            profile_id=document.profile_id,
            action="profile_changed",
            at=clock_ms,
            decided_at=clock_ms,
            identifiers=identifiers,
            cause="sync",
            body=body,
        )

    def for_alert(self, alert: AccountAlert, identifiers: list[IdentifierPair]) -> list[Delivery]:
        """The deliveries an alert about an account leads to. They carry whom it goes to, and who stands behind it; not
        where a destination needs consents, or may not have all there is: those people were not asked."""
        deliveries = []
        for destination in self.destinations:
            if not {"*", alert.alert} & set(destination.alerts):
                continue
            if destination.mode == "trigger" and alert.decided_at - alert.at > destination.max_age_ms:
                continue
            body = {name: value for name, value in msgspec.to_builtins(alert).items() if name not in _OF_DELIVERY}
            projector = self._projectors[destination.name]
            if not projector.may_have_segment(alert.segment):
                continue
            if "context" in body and (destination.asks or not projector.is_plain):
                body["context"] = {"people": alert.context.get("people", 0)}
            if "traits" in body:
                body["traits"] = projector.of_account(alert.traits)
            deliveries.append(
                Delivery(
                    delivery_id=delivery_id(destination.name, b"alert", alert.alert_id.encode()),
                    destination=destination.name,
                    profile_id=alert.profile_id,
                    action="alert",
                    at=alert.at,
                    decided_at=alert.decided_at,
                    identifiers=projector.identifiers(identifiers),
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
        told: Told | None = None,
        restricted: bool = False,
    ) -> list[Delivery]:
        """The deliveries of a forwarded event. Not to be called for history that a backfill reads again."""
        wanted = self._by_event.get(event.event, ())
        if self._every_event:
            wanted = (*wanted, *self._every_event)
        deliveries = []
        for destination in wanted:
            if destination.mode == "trigger" and clock_ms - event.time > destination.max_age_ms:
                continue
            projector = self._projectors[destination.name]
            if said_itself(destination, event) or is_of_a_delivery(destination, event):
                continue
            if not projector.may_have_event(event.event) or not self._may_have(destination, profile, told, restricted):
                continue
            if told is not None and destination.name not in told.heard:
                told.heard[destination.name] = []
            # One event is delivered once, under whichever id its person has: hence no profile_id in the hash.
            deliveries.append(
                Delivery(
                    delivery_id=delivery_id(
                        destination.name, b"event", event.source.encode(), event.message_id.encode()
                    ),
                    destination=destination.name,
                    profile_id=profile_id,
                    action="event",
                    at=event.time,
                    decided_at=clock_ms,
                    identifiers=projector.identifiers(identifiers),
                    body=projector.event(event),
                )
            )
        return deliveries


def _holds(destination: Destination, what: str, told: Told | None) -> bool:
    """Whether a destination was told so: it hears of the end whatever the person allows by then."""
    if destination.mirrors or (what == PROFILE and destination.mode == "audience"):
        return told is None or destination.name not in told.refused
    if told is None:
        return destination.mode == "audience"
    return told.believes(destination.name, what)


def _identifiers(profile: Profile | None) -> list[IdentifierPair]:
    document = profile() if profile is not None else None
    return document.identifiers if document is not None else []
