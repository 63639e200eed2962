"""Requests of people about their data, what became of them, and who has looked."""

from typing import Any, Literal

from msgspec import Struct

RequestKind = Literal["erase", "export", "rectify", "suppress"]


class PrivacyRequest(Struct, omit_defaults=True):
    """What somebody may ask for about their data. `identifier` is one of theirs, as text, or their profile_id;
    `traits`: rectify to these, None takes a trait back; `lift` ends a suppression. The topic keeps it for a day."""

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
    """What became of a request, store by store. `subject` is the keyed hash of the identifier that was named, or that
    the profile is named after whose id was; nothing else in it says who it was. The key is the request's id."""

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
    action: Literal["applied", "decided", "looked_up", "explained", "exported", "erased", "rectified", "suppressed"]
    subject: str = ""
    what: str = ""
    request_id: str = ""


class Forgotten(Struct, tag_field="kind", tag="forgotten", omit_defaults=True):
    """An actor of somebody who is being erased has forgotten: in the state, and in what is told of it. `destinations`:
    those that may hold something of theirs, and are asked to delete it. `profile_id`: the one it had, which is nobody's
    any more; what waits of it for a destination does not go out."""

    request_id: str
    actor: str
    at: int
    destinations: list[str] = []
    profile_id: str = ""


class DestinationErased(Struct, tag_field="kind", tag="destination_erased", omit_defaults=True):
    """A destination was asked to delete a person, and has answered. `actor` is that of which it was asked; `detail`
    says why it cannot, if it cannot."""

    request_id: str
    actor: str
    destination: str
    at: int
    detail: str = ""


PrivacyProgress = Forgotten | DestinationErased
