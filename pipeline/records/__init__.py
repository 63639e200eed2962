"""The messages that travel between rooms: one struct per record of every topic.

Conventions: times are milliseconds since the epoch, UTC; identifiers are texts ``namespace:value`` in the internal
topics (events, identity-edges, links) and `{namespace, value}` in the public ones; a topic that carries several
kinds of record tells them apart by `kind`. `schemas/` holds the Avro schema of each.
"""

import msgspec

from pipeline.records.definitions import (
    Definition,
    Generation,
)
from pipeline.records.edges import (
    BackfillDone,
    EdgesRecord,
    Erased,
    EraseRequest,
    Evidence,
    Readmitted,
    Release,
    Relink,
    ResolveOn,
    RulesChanged,
    Unlink,
)
from pipeline.records.events import (
    CHANNEL,
    EVERYTHING,
    CaughtUp,
    Cause,
    DeadLetter,
    Event,
    EventsRecord,
    Marker,
    Ready,
    Received,
    Sealed,
    source_name,
)
from pipeline.records.links import (
    Absorb,
    AccountsSweep,
    Assign,
    Belongs,
    Bury,
    Contribute,
    Erase,
    Expired,
    Forget,
    Forward,
    HistorySent,
    LinkNote,
    LinksRecord,
    LivesAgain,
    Named,
    Noted,
    PeopleSwept,
    Readmit,
    Recall,
    Regard,
    RegardOn,
    Sweep,
    Takeover,
    Tick,
    Unfollowed,
)
from pipeline.records.privacy import (
    AuditEntry,
    DestinationErased,
    Forgotten,
    PrivacyProgress,
    PrivacyReceipt,
    PrivacyRequest,
    ReceiptEntry,
    RequestKind,
    Suppression,
)
from pipeline.records.told import (
    AccountAlert,
    Delivery,
    Entity,
    IdentifierPair,
    IdentityConflict,
    IdentityPointer,
    Membership,
    ProfileChange,
    ProfileDocument,
    SegmentCause,
    SegmentChange,
    SegmentMember,
    Total,
    UnfollowedLink,
)

__all__ = [
    "CHANNEL",
    "EVERYTHING",
    "UNREADABLE",
    "Absorb",
    "AccountAlert",
    "AccountsSweep",
    "Assign",
    "AuditEntry",
    "BackfillDone",
    "Belongs",
    "Bury",
    "CaughtUp",
    "Cause",
    "Contribute",
    "DeadLetter",
    "Definition",
    "Delivery",
    "DestinationErased",
    "EdgesRecord",
    "Entity",
    "Erase",
    "EraseRequest",
    "Erased",
    "Event",
    "EventsRecord",
    "Evidence",
    "Expired",
    "Forget",
    "Forgotten",
    "Forward",
    "Generation",
    "HistorySent",
    "IdentifierPair",
    "IdentityConflict",
    "IdentityPointer",
    "LinkNote",
    "LinksRecord",
    "LivesAgain",
    "Marker",
    "Membership",
    "Named",
    "Noted",
    "PeopleSwept",
    "PrivacyProgress",
    "PrivacyReceipt",
    "PrivacyRequest",
    "ProfileChange",
    "ProfileDocument",
    "Readmit",
    "Readmitted",
    "Ready",
    "Recall",
    "ReceiptEntry",
    "Received",
    "Regard",
    "RegardOn",
    "Release",
    "Relink",
    "RequestKind",
    "ResolveOn",
    "RulesChanged",
    "Sealed",
    "SegmentCause",
    "SegmentChange",
    "SegmentMember",
    "Suppression",
    "Sweep",
    "Takeover",
    "Tick",
    "Total",
    "Unfollowed",
    "UnfollowedLink",
    "Unlink",
    "decode_edges_record",
    "decode_events_record",
    "decode_links_record",
    "decode_received",
    "encode",
    "read_events_record",
    "source_name",
]

_encoder = msgspec.json.Encoder()
encode = _encoder.encode

decode_events_record = msgspec.json.Decoder(EventsRecord).decode
decode_received = msgspec.json.Decoder(Received).decode
decode_edges_record = msgspec.json.Decoder(EdgesRecord).decode
decode_links_record = msgspec.json.Decoder(LinksRecord).decode


UNREADABLE = (ValueError, RecursionError, msgspec.MsgspecError)
"""What decoding raises of bytes that no role of ours wrote."""


def read_events_record(value: bytes | None) -> EventsRecord | None:
    """A record of `events`, for who only looks at what is there; None of what cannot be read. It was put aside when it
    was new, and is nobody's event."""
    try:
        return decode_events_record(value) if value else None
    except UNREADABLE:
        return None
