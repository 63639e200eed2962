"""The messages that travel between rooms: one struct per record of every topic.

Conventions: times are milliseconds since the epoch, UTC; identifiers are texts ``namespace:value`` in the internal
topics (events, identity-edges, links) and `{namespace, value}` in the public ones; a topic that carries several
kinds of record tells them apart by `kind`. `schemas/` holds the Avro schema of each.
"""

from typing import Any, Literal

import msgspec
from msgspec import Struct

Entity = Literal["person", "account"]

EVERYTHING = "*"
"""The consent that stands for all purposes and channels: who denies it is left alone."""

CHANNEL = "channel:"
"""Begins the consent that stands for a channel: `channel:email`."""

# ---------------------------------------------------------------------------------------------------------- events


class Event(Struct, tag_field="kind", tag="event", omit_defaults=True):
    """A clean event. `identifiers` stand strongest first: the first is the route. `time` <= `received`.

    `event` is the name rules refer to: that of a track call, or `Page Viewed`, `Screen Viewed`, `Identify`, `Group`,
    `Alias`. `source` is the position of the raw record, "topic/partition/offset". `origin` is the
    source's name where that is not the topic's: what a write key stands for at the collector. `contract` is
    "name/version" of the contract the event was checked against.
    """

    message_id: str
    type: str
    event: str
    identifiers: list[str]
    time: int
    received: int
    source: str = ""
    properties: dict[str, Any] = {}
    traits: dict[str, Any] = {}
    context: dict[str, Any] = {}
    group_id: str | None = None
    contract: str | None = None
    flags: list[str] = []
    origin: str = ""


class Marker(Struct, tag_field="kind", tag="marker", omit_defaults=True):
    """From this offset on, events of the partition belong to `generation` of the definitions."""

    generation: int
    received: int


class CaughtUp(Struct, tag_field="kind", tag="caught_up", omit_defaults=True):
    """Ingest had read its sources to their end at `received`: everything accepted before stands before this record."""

    received: int


class Ready(Struct, tag_field="kind", tag="ready", omit_defaults=True):
    """Every partition has folded its history into `generation`; evaluation may move to it."""

    generation: int
    received: int


EventsRecord = Event | Marker | CaughtUp | Ready


class DeadLetter(Struct, omit_defaults=True):
    """A record that could not be used. `value` and `key` are the original bytes (base64 in JSON)."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    at: int
    value: bytes | None = None
    key: bytes | None = None
    stage: str = "ingest"
    pointer: str = ""


# -------------------------------------------------------------------------------------------------- identity-edges


class Evidence(Struct, tag_field="kind", tag="evidence", omit_defaults=True):
    """Two identifiers stood in one event. `a` < `b` as texts; `route` is the actor that saw it."""

    a: str
    b: str
    first: int
    last_received: int
    route: str


class Unlink(Struct, tag_field="kind", tag="unlink", omit_defaults=True):
    """Take back the edge a-b, or every edge of `a` if `b` is empty: it counts only if last received after `received`;
    with `forever`, never again."""

    a: str
    received: int
    b: str = ""
    forever: bool = False
    actor: str = ""


class Relink(Struct, tag_field="kind", tag="relink", omit_defaults=True):
    """Undo an unlink of a-b (of all edges of `a` if `b` is empty): the evidence counts as if there had been none."""

    a: str
    received: int
    b: str = ""
    actor: str = ""


class Release(Struct, tag_field="kind", tag="release", omit_defaults=True):
    """Release an identifier from quarantine; its edges count again, up to a threshold counted anew from here."""

    identifier: str
    received: int
    actor: str = ""


class EraseRequest(Struct, tag_field="kind", tag="erase_request", omit_defaults=True):
    """Forget the person who holds `identifier`. With `keep_out` nothing brings them back but a consent anew."""

    identifier: str
    received: int
    request_id: str = ""
    keep_out: bool = False


class Erased(Struct, tag_field="kind", tag="erased", omit_defaults=True):
    """Somebody was forgotten: `actor` is the keyed hash of one of their identifiers, `epoch` that of the erasure, of
    `members` identifiers. What was received up to `received` is gone, and must not come back from a replay."""

    actor: str
    received: int
    epoch: int
    members: int = 1
    request_id: str = ""


class RulesChanged(Struct, tag_field="kind", tag="rules", omit_defaults=True):
    """From here on identity is resolved under the rules of `generation`."""

    generation: int
    received: int


class BackfillDone(Struct, tag_field="kind", tag="backfill_done", omit_defaults=True):
    """Partition `partition` has folded its history into `generation`."""

    generation: int
    partition: int
    received: int


class ResolveOn(Struct, tag_field="kind", tag="resolve_on", omit_defaults=True):
    """Go on resolving under the rules of `generation`, from the part `bucket` of the identifiers on. The identity stage
    writes it to itself, so that a change of rules is paced and still a function of the log."""

    generation: int
    received: int
    bucket: int = 0


EdgesRecord = Evidence | Unlink | Relink | Release | EraseRequest | RulesChanged | BackfillDone | ResolveOn


class Cause(Struct, omit_defaults=True):
    """What made a change: the message and its position in `events`, where it was one."""

    message_id: str | None = None
    partition: int | None = None
    offset: int | None = None


# ----------------------------------------------------------------------------------------------------------- links
# `clock` is the sender's: a receiver's clock is never behind what it was told.


class Tick(Struct, tag_field="kind", tag="tick"):
    """Time has come to `clock`."""

    clock: int


class Forward(Struct, tag_field="kind", tag="forward", omit_defaults=True):
    """An event on its one hop from its route to the holder `to`, for the part named `fragment`, which belongs there
    since `epoch`."""

    to: str
    fragment: str
    event: Event
    position: tuple[int, int]
    generation: int
    clock: int
    birth: int = 0
    epoch: int = -1


class Assign(Struct, tag_field="kind", tag="assign", omit_defaults=True):
    """The fragment of `identifier` belongs to the profile named `name` since `epoch`.

    `name_erased` is the erase epoch of `name` (0: never), which its profile_id depends on. `companions` identifiers,
    this one included, go from the same former name to the same new one by this decision; `former_lives` says whether
    the former still names a group after it.
    """

    identifier: str
    name: str
    epoch: int
    reason: str
    clock: int
    name_erased: int = 0
    companions: int = 1
    former_lives: bool = False


class Recall(Struct, tag_field="kind", tag="recall", omit_defaults=True):
    """`holder` shall give `fragment` to `to`, whose erase epoch is `to_erased`; if `to` is empty, drop it: it was
    erased. `companions` and `holder_lives` are those of the Assign behind it."""

    holder: str
    fragment: str
    to: str
    epoch: int
    reason: str
    clock: int
    birth: int = 0
    to_erased: int = 0
    companions: int = 1
    holder_lives: bool = False


class Absorb(Struct, tag_field="kind", tag="absorb", omit_defaults=True):
    """A fragment, or a disjoint piece of one, on its way to the holder `to`.

    `state` is the encoded fragment (None: empty); `origin` the identifier that named the profile it leaves, `origin_id`
    its profile_id if it was published, `memberships` the segments it was a member of. `last` says that with this
    message the fragment is complete, but for what goes by other ways; `generation` is the newest whose
    leaves may be in it. `companions` fragments come from there by the same decision (0: this is not the last piece of
    its fragment). `owes`: account → the profile_ids that ended and whose part of it now belongs to the receiver, who
    tells the account so once all of it has come. `told`: destination → the segments it was told of the profile;
    `refused`: the destinations that may not have it.
    """

    to: str
    fragment: str
    epoch: int
    reason: str
    clock: int
    state: bytes | None = None
    birth: int = 0
    origin: str = ""
    memberships: list[str] = []
    last: bool = True
    origin_id: str = ""
    generation: int = 0
    companions: int = 1
    owes: dict[str, list[str]] = {}
    told: dict[str, list[str]] = {}
    refused: list[str] = []


class Forget(Struct, tag_field="kind", tag="forget", omit_defaults=True):
    """Route `route` no longer counts as having sent a-b; if it saw the edge after `received`, it sends it again."""

    route: str
    a: str
    b: str
    received: int
    clock: int


class Erase(Struct, tag_field="kind", tag="erase", omit_defaults=True):
    """Everything the actor `identifier` knew before `epoch` is gone for good. With `keep_out` what comes later is not
    taken in either, until a consent is given anew."""

    identifier: str
    epoch: int
    clock: int
    name: str = ""
    request_id: str = ""
    keep_out: bool = False


class Bury(Struct, tag_field="kind", tag="bury", omit_defaults=True):
    """`identifier` was erased by the decision of `epoch`; the holder `to`, which had to do with it once, keeps no more
    than its hash."""

    to: str
    identifier: str
    epoch: int
    clock: int


class Readmit(Struct, tag_field="kind", tag="readmit", omit_defaults=True):
    """Somebody who was erased has consented anew, in an event that names `identifier` too, at `time`."""

    identifier: str
    time: int
    clock: int


class Sweep(Struct, tag_field="kind", tag="sweep", omit_defaults=True):
    """Go on evaluating every profile of the partition under `generation`, from the state key `after`."""

    generation: int
    clock: int
    after: bytes = b""


class Contribute(Struct, tag_field="kind", tag="contribute", omit_defaults=True):
    """What history has for the new leaves of `generation` in the part named `fragment`, on its one hop to the holder
    `to`. `state` is an encoded fragment with nothing but leaves. It goes the way of a Forward, behind all of them."""

    to: str
    fragment: str
    generation: int
    clock: int
    state: bytes
    birth: int = 0
    epoch: int = -1


class HistorySent(Struct, tag_field="kind", tag="history_sent", omit_defaults=True):
    """Partition `partition` has sent everything its history holds for the leaves of `generation`. It goes to every
    partition, behind the contributions: whoever has one from each has received all there will be."""

    generation: int
    partition: int
    clock: int


class LinkNote(Struct, omit_defaults=True):
    """One link of an identifier that is not followed: to `other`, seen since `first`."""

    other: str
    reason: str
    first: int


class Unfollowed(Struct, tag_field="kind", tag="unfollowed", omit_defaults=True):
    """The link from `identifier` to `other`, seen since `first`, is not followed, for this reason; without one, it is
    followed from now on, or there is no such link any more. `gone`: for `other` was erased."""

    identifier: str
    other: str
    epoch: int
    clock: int
    reason: str = ""
    first: int = 0
    gone: bool = False


class Noted(Struct, tag_field="kind", tag="noted", omit_defaults=True):
    """All that the part named `fragment`, which belongs to the holder `to` since `epoch`, shows of links that are not
    followed. `gone`: less than before, for somebody was erased; former holders hear of it too."""

    to: str
    fragment: str
    epoch: int
    clock: int
    links: list[LinkNote] = []
    birth: int = 0
    gone: bool = False


class Expired(Struct, tag_field="kind", tag="expired", omit_defaults=True):
    """The profile that held the fragment of `identifier` has expired: nothing of what was received up to `received` is
    left of it."""

    identifier: str
    received: int
    clock: int


class Takeover(Struct, tag_field="kind", tag="takeover", omit_defaults=True):
    """Subscribers of another workspace come over, which told them this of the profile `profile_id`, named after
    `identifier`: segment → (is a member, since, sequence, version). The holder goes on from there."""

    identifier: str
    profile_id: str
    told: dict[str, tuple[bool, int, int, int]]
    clock: int


class Belongs(Struct, tag_field="kind", tag="belongs", omit_defaults=True):
    """What an account has to know of one person, from the holder of that person: in the order in which it came about.

    `account` is the account's identifier, `person` the one that names the profile, `identifiers` the strongest of
    theirs. `state` is an encoded fragment with nothing but leaves; `whole`: with it begins all there is of the person,
    `members` the hidden segments they are in, since when; otherwise it is joined in. `entered` and `left` are changes
    of those; `event` one event more, of `generation` (with `whole`, the one the person is judged under). `gone`: the
    person belongs to it no more; what they brought stays until the profile `moved_to` says that it has it (`origins`:
    whose part it has). `newest` is the newest generation whose leaves may be in it.
    """

    account: str
    person: str
    profile_id: str
    clock: int
    at: int
    cause: str
    evidence: Cause
    state: bytes | None = None
    whole: bool = False
    members: dict[str, int] = {}
    entered: dict[str, int] = {}
    left: list[str] = []
    event: Event | None = None
    generation: int = 0
    newest: int = 0
    identifiers: list[str] = []
    gone: bool = False
    moved_to: str = ""
    origins: list[str] = []


class Named(Struct, tag_field="kind", tag="named", omit_defaults=True):
    """A group event at `at` (event time) named an account and gave it traits."""

    account: str
    traits: dict[str, Any]
    at: int
    clock: int
    evidence: Cause


class Regard(Struct, tag_field="kind", tag="regard", omit_defaults=True):
    """What an account says of itself to the people whose rules ask for it: traits {name: (event time, value)} and
    segments. The highest `revision` counts."""

    to: str
    account: str
    revision: int
    clock: int
    at: int
    cause: str
    evidence: Cause
    traits: dict[str, tuple[int, Any]] = {}
    segments: list[str] = []


class RegardOn(Struct, tag_field="kind", tag="regard_on", omit_defaults=True):
    """Go on telling the people of an account `revision`, from the state key `after` on."""

    account: str
    revision: int
    clock: int
    at: int
    cause: str
    evidence: Cause
    after: bytes = b""


class PeopleSwept(Struct, tag_field="kind", tag="people_swept", omit_defaults=True):
    """Every person of `partition` is judged under `generation`, and has told their accounts. It goes to every
    partition, behind what was told."""

    generation: int
    partition: int
    clock: int


class AccountsSweep(Struct, tag_field="kind", tag="accounts_sweep", omit_defaults=True):
    """Go on evaluating every account of the partition under `generation`, from the state key `after`."""

    generation: int
    clock: int
    after: bytes = b""


LinksRecord = (
    Tick
    | Forward
    | Assign
    | Recall
    | Absorb
    | Forget
    | Erase
    | Bury
    | Readmit
    | Sweep
    | Contribute
    | HistorySent
    | Expired
    | Takeover
    | Belongs
    | Named
    | Regard
    | RegardOn
    | PeopleSwept
    | AccountsSweep
    | Unfollowed
    | Noted
)

# ------------------------------------------------------------------------------------------------------- privacy

RequestKind = Literal["erase", "export", "rectify", "suppress"]


class PrivacyRequest(Struct, omit_defaults=True):
    """What somebody may ask for about their data. `identifier` is one of theirs, as text; `traits`: rectify to these,
    None takes a trait back; `lift` ends a suppression. The topic keeps it for a day."""

    request_id: str
    request: RequestKind
    identifier: str
    at: int
    by: str = ""
    traits: dict[str, Any] = {}
    lift: bool = False


class ReceiptEntry(Struct, omit_defaults=True):
    """One store of a receipt: `done` since `at`; `by` then at the latest; `waiting`; `impossible`, and why."""

    store: str
    state: Literal["done", "by", "waiting", "impossible"]
    at: int
    how: str = ""


class PrivacyReceipt(Struct, omit_defaults=True):
    """What became of a request, store by store. `subject` is the keyed hash of the identifier that was named; nothing
    else in it says who it was. The key is the request's id."""

    request_id: str
    request: RequestKind
    subject: str
    requested_at: int
    state: Literal["working", "done", "failed"]
    by: str = ""
    identifiers: int = 0
    finished_at: int = 0
    stores: list[ReceiptEntry] = []
    detail: str = ""


class Suppression(Struct, omit_defaults=True):
    """Somebody was erased, and what is left of them is this record's key: the keyed hash of an identifier. What came up
    to `at` does not bring them back; at `consented_at` (0: never) a consent given after it did. `epoch`: that of the
    erasure, once it has been decided."""

    at: int
    request_id: str = ""
    epoch: int = 0
    consented_at: int = 0


class AuditEntry(Struct, omit_defaults=True):
    """Who did what, when, to whom: `subject` is a keyed hash or empty, `what` names things, never values of people."""

    at: int
    by: str
    action: Literal["applied", "looked_up", "explained", "exported", "erased", "rectified", "suppressed"]
    subject: str = ""
    what: str = ""
    request_id: str = ""


class Forgotten(Struct, tag_field="kind", tag="forgotten", omit_defaults=True):
    """An actor of somebody who is being erased has forgotten: in the state, and in what is told of it. `destinations`:
    those that may hold something of theirs, and are asked to delete it."""

    request_id: str
    actor: str
    at: int
    destinations: list[str] = []


class DestinationErased(Struct, tag_field="kind", tag="destination_erased", omit_defaults=True):
    """A destination was asked to delete a person, and has answered. `actor` is that of which it was asked; `detail`
    says why it cannot, if it cannot."""

    request_id: str
    actor: str
    destination: str
    at: int
    detail: str = ""


PrivacyProgress = Forgotten | DestinationErased


# ------------------------------------------------------------------------------------------- what the world is told


class IdentifierPair(Struct, frozen=True):
    """A public identifier."""

    namespace: str
    value: str


SegmentCause = Literal["event", "timer", "merge", "split", "consent", "backfill", "definition", "expired", "erase"]


class SegmentChange(Struct, omit_defaults=True):
    """A profile entered or left a segment (DESIGN section 3). `at` is when it became true, `decided_at` the clock.

    `context` of an account: how many people it has, and of each `members` rule who matches it since when.
    """

    profile_id: str
    entity: str
    segment: str
    version: int
    change: Literal["entered", "exited"]
    at: int
    decided_at: int
    sequence: int
    cause: SegmentCause
    evidence: Cause
    late: bool
    identifiers: list[IdentifierPair]
    continues: list[str] = []
    approximate: bool = False
    moved_to: str | None = None
    context: dict[str, Any] = {}


class SegmentMember(Struct, omit_defaults=True):
    """One present membership; the key is "segment/profile_id"."""

    segment: str
    profile_id: str
    entity: str
    version: int
    since: int
    sequence: int


class Total(Struct):
    """How often an event was performed, and the first and last event time."""

    count: int
    first: int
    last: int


class Membership(Struct, omit_defaults=True):
    """A membership as a profile shows it."""

    since: int
    sequence: int
    version: int


class UnfollowedLink(Struct, omit_defaults=True):
    """Two identifiers that stood together since the event time `since`, and are not taken for one person: because a
    profile would then hold more than the rules allow (`limits`), or because the other one is nobody's (`quarantined`,
    `crowded`, `blocked`). The record in `identity-conflicts` says more."""

    identifier: IdentifierPair
    other: IdentifierPair
    reason: str
    since: int


class ProfileDocument(Struct, omit_defaults=True):
    """A profile as `profiles` shows it: the current truth about one person or account.

    `identifiers` holds the strongest 100; `identifiers_total` counts all of them. `unfollowed` holds the newest ten
    links of its identifiers that the identity rules do not follow.
    """

    profile_id: str
    entity: str
    identifiers: list[IdentifierPair]
    identifiers_total: int
    traits: dict[str, Any] = {}
    computed: dict[str, Any] = {}
    consents: dict[str, Any] = {}
    totals: dict[str, Total] = {}
    segments: dict[str, Membership] = {}
    accounts: list[str] = []
    first_seen: int = 0
    last_seen: int = 0
    unfollowed: list[UnfollowedLink] = []


class AccountAlert(Struct, omit_defaults=True):
    """An account entered a segment that somebody wants to be told of: what a seller needs to act on it.

    `account` is its name, `owner` to whom it goes, "" if nobody is known. `sequence` is that of the segment's change;
    `alert_id` is stable: a repetition carries the same.
    """

    alert_id: str
    alert: str
    account: str
    profile_id: str
    owner: str
    segment: str
    version: int
    at: int
    decided_at: int
    sequence: int
    cause: SegmentCause
    evidence: Cause
    message: str = ""
    traits: dict[str, Any] = {}
    context: dict[str, Any] = {}


class ProfileChange(Struct, omit_defaults=True):
    """One change of a profile. The fold of these is `profiles`:

    `created` and `split` begin a profile, `updated` changes one: each key of `set` replaces that section's entry
    (`{"traits": {"plan": "pro"}}`; a section that is no mapping is replaced whole), each of `unset` removes entries
    (`{"segments": ["lapsed"]}`). `merged`, `expired` and `erased` end it; `merged` says into which (`into`).
    """

    profile_id: str
    entity: str
    change: Literal["created", "updated", "merged", "split", "expired", "erased"]
    at: int
    decided_at: int
    cause: str
    evidence: Cause
    set: dict[str, Any] = {}
    unset: dict[str, list[str]] = {}
    into: str | None = None
    origin: str | None = None


class IdentityPointer(Struct, omit_defaults=True):
    """Where an identifier, or a retired profile_id, leads now. The key of an identifier's record is its text."""

    profile_id: str
    epoch: int
    retired: bool = False


class IdentityConflict(Struct, omit_defaults=True):
    """Evidence that was not followed, and why."""

    a: str
    b: str
    first: int
    reason: str
    detail: str
    epoch: int


class Delivery(Struct, omit_defaults=True):
    """One thing to do at one destination. `delivery_id` is stable: a repetition carries the same.

    `profile_erased` asks to delete everything that is kept of a person: under any of the `identifiers`, and under any
    of `profile_ids` in the body, all the names they ever had.
    """

    delivery_id: str
    destination: str
    profile_id: str
    action: Literal[
        "segment_entered", "segment_exited", "profile_changed", "profile_deleted", "profile_erased", "event", "alert"
    ]
    at: int
    decided_at: int
    identifiers: list[IdentifierPair]
    segment: str | None = None
    cause: str = "event"
    body: dict[str, Any] = {}


# ----------------------------------------------------------------------------------------------------- definitions


class Definition(Struct, omit_defaults=True):
    """One version of something people wrote. The key is "kind/name/version"; `body` is the validated definition."""

    kind: Literal[
        "segment",
        "identity",
        "contract",
        "cleaning",
        "reference",
        "source",
        "destination",
        "trait",
        "accounts",
        "alert",
        "consent",
    ]
    name: str
    version: int
    body: dict[str, Any]
    owner: str = "file"
    applied_at: int = 0
    applied_by: str = ""


class Generation(Struct, omit_defaults=True):
    """The whole set of definitions in force; the key is "generation/number".

    `members` maps "kind/name" to the version in force, `leaves` the id of each leaf to the generation since which it
    has been there without a break, `paused` lists "kind/name".
    """

    number: int
    members: dict[str, int]
    leaves: dict[str, int] = {}
    paused: list[str] = []
    applied_at: int = 0


_encoder = msgspec.json.Encoder()
encode = _encoder.encode

decode_events_record = msgspec.json.Decoder(EventsRecord).decode
decode_edges_record = msgspec.json.Decoder(EdgesRecord).decode
decode_links_record = msgspec.json.Decoder(LinksRecord).decode
