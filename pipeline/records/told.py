"""What the world is told: profiles, segments, changes of both, alerts, deliveries."""

from typing import Any, Literal

from msgspec import Struct

from pipeline.records.events import Cause

Entity = Literal["person", "account"]


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
