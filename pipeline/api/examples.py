"""The shapes of answers, for the OpenAPI document, each with an example. A test holds real answers to them."""

from typing import Any

import msgspec

from pipeline.api.operating import ReplayRequest
from pipeline.api.privacy import PrivacyAsked
from pipeline.api.writes import ChangeRequest, LinkRequest
from pipeline.records import AccountAlert, PrivacyReceipt, ProfileDocument, SegmentMember

_ID = "3e57d298-e2d2-5f9a-ac3c-68b3322459ff"


def ref(name: str) -> dict[str, str]:
    """A reference to a schema."""
    return {"$ref": f"#/components/schemas/{name}"}


_, _GENERATED = msgspec.json.schema_components(
    [
        ProfileDocument,
        SegmentMember,
        LinkRequest,
        ChangeRequest,
        PrivacyAsked,
        PrivacyReceipt,
        AccountAlert,
        ReplayRequest,
    ],
    ref_template="#/components/schemas/{name}",
)
_INTEGER, _STRING, _OBJECT = {"type": "integer"}, {"type": "string"}, {"type": "object"}
_BOOLEAN = {"type": "boolean"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


_EVENT = {
    "type": "object",
    "required": ["event", "type", "time", "message_id"],
    "properties": {"event": _STRING, "type": _STRING, "time": _INTEGER, "message_id": _STRING},
}
_MEMBERSHIP = _object(
    segment=_STRING, since=_INTEGER, sequence=_INTEGER, version=_INTEGER, why=_or_null({"type": "object"})
)
# Only what was asked for is there.
_PROFILE = _GENERATED.pop("ProfileDocument") | {"title": "Profile", "required": ["profile_id", "entity"]}

_PERSON = {"type": "object", "required": ["profile_id"], "properties": {"profile_id": _STRING, "totals": _OBJECT}}
_ACCOUNT = _object(account=_STRING, profile_id=_STRING, people=_INTEGER, traits=_OBJECT, segments=_list(_STRING))
_LETTER = _object(
    id=_STRING, at=_INTEGER, stage=_STRING, reason=_STRING, detail=_STRING, pointer=_STRING, source=_STRING
)

SCHEMAS: dict[str, Any] = {
    **_GENERATED,
    "Profile": _PROFILE,
    "ProfileSegments": _object(segments=_list(_MEMBERSHIP)),
    "Events": _object(events=_list(_EVENT)),
    "SupportView": _object(
        profile_id=_STRING,
        entity=_STRING,
        who=_OBJECT,
        orders=_object(count=_INTEGER, last=_or_null(_INTEGER), recent=_list(_EVENT)),
        preferred_channel=_or_null(_STRING),
        open_questions=_list(_EVENT),
        last_events=_list(_EVENT),
        segments=_list(_MEMBERSHIP),
    ),
    "Account": _object(people=_INTEGER, account=ref("Profile")),
    "Accounts": _object(accounts=_list(_ACCOUNT), next=_or_null(_STRING)),
    "Ranking": _object(ranked=_list(_ACCOUNT), judged=_INTEGER, all=_BOOLEAN, days=_INTEGER),
    "Alerts": _object(alerts=_list(ref("AccountAlert"))),
    "Activity": _object(
        account=_STRING,
        days=_list(_object(day=_INTEGER, events=_INTEGER)),
        active=_INTEGER,
        counted=_INTEGER,
        all=_BOOLEAN,
    ),
    "Overview": _object(
        at=_INTEGER,
        roles=_list(_OBJECT),
        throughput=_list(_OBJECT),
        latency=_list(_OBJECT),
        destinations=_list(_OBJECT),
        dead_letters=_OBJECT,
        violations=_list(_OBJECT),
        generation=_OBJECT,
        troubles=_OBJECT,
        age_ms=_INTEGER,
    ),
    "DeadLetters": _object(letters=_list(_LETTER), known=_INTEGER, reasons=_OBJECT),
    "DeadLetter": _LETTER,
    "Replayed": _object(sent={"type": "object", "additionalProperties": _INTEGER}),
    "Newest": _object(events=_list(_OBJECT), found=_or_null(_list(_INTEGER))),
    "Trace": _object(
        event=_EVENT,
        place=_list(_INTEGER),
        source=_STRING,
        cleaned=_list(_OBJECT),
        contract=_or_null(_STRING),
        profile_id=_or_null(_STRING),
        who=_list(_OBJECT),
        touched=_list(_OBJECT),
        changes=_list(_OBJECT),
        flips=_list(_OBJECT),
        deliveries=_list(_OBJECT),
        all=_BOOLEAN,
        trouble=_STRING,
    ),
    "Provenance": _object(
        profile_id=_STRING,
        since_days=_INTEGER,
        traits=_OBJECT,
        links=_list(_OBJECT),
        unfollowed=_list(_OBJECT),
        taken_back=_list(_OBJECT),
        days=_list(_OBJECT),
        trouble=_STRING,
    ),
    "Backfills": _object(latest=_INTEGER, not_in_force=_INTEGER, partitions=_list(_OBJECT)),
    "Growth": _object(days=_INTEGER, segments=_list(_object(segment=_STRING, size=_INTEGER, hours=_list(_OBJECT)))),
    "People": _object(account=_STRING, people=_list(_PERSON), next=_or_null(_STRING)),
    "Segments": _object(generation=_INTEGER, segments=_list(_object(segment=_STRING, version=_INTEGER, size=_INTEGER))),
    "Segment": _object(segment=_STRING, version=_INTEGER, size=_INTEGER, definition=_OBJECT),
    "Members": _object(segment=_STRING, size=_INTEGER, members=_list(ref("SegmentMember")), next=_or_null(_STRING)),
    "Overlap": _object(
        sizes={"type": "object", "additionalProperties": _INTEGER},
        all=_INTEGER,
        any=_INTEGER,
        pairs=_list(_object(segments=_list(_STRING), both=_INTEGER)),
    ),
    "Applied": _object(
        generation=_or_null(_INTEGER), changes=_list(_OBJECT), dry_run=_BOOLEAN, in_force=_or_null(_BOOLEAN)
    ),
    "Definitions": _object(
        generation=_INTEGER, definitions=_list(_object(kind=_STRING, name=_STRING, version=_INTEGER, owner=_STRING))
    ),
    "History": _object(
        kind=_STRING,
        name=_STRING,
        in_force=_or_null(_INTEGER),
        versions=_list(_object(version=_INTEGER, owner=_STRING, applied_at=_INTEGER, applied_by=_STRING)),
    ),
    "Preview": _object(
        judged=_INTEGER, people=_INTEGER, all=_BOOLEAN, whole=_INTEGER, matching=_INTEGER, members=_list(_PERSON)
    ),
    "Why": _object(segment=_STRING, member=_BOOLEAN, whole=_BOOLEAN, at=_INTEGER, why=_OBJECT),
    "Vocabulary": _object(events=_list(_STRING), paths=_OBJECT, traits=_OBJECT, purposes=_list(_STRING)),
    "Told": _object(told=_STRING),
    "Requested": _object(request_id=_STRING),
}

PROFILE = {
    "profile_id": _ID,
    "entity": "person",
    "identifiers": [{"namespace": "email", "value": "ada@example.org"}],
    "identifiers_total": 1,
    "traits": {"plan": "pro"},
    "totals": {"Order Completed": {"count": 3, "first": 1780000000000, "last": 1790000000000}},
    "segments": {"repeat_buyers": {"since": 1790000000000, "sequence": 1, "version": 1}},
    "first_seen": 1780000000000,
    "last_seen": 1790000000000,
}
_EVENT_EXAMPLE = {
    "event": "Order Completed",
    "type": "track",
    "time": 1790000000000,
    "message_id": "m-1",
    "identifiers": ["email:ada@example.org"],
    "properties": {"total": 12.5},
    "traits": {},
    "context": {},
}
EVENTS = {"events": [_EVENT_EXAMPLE | {"position": {"partition": 0, "offset": 1042}}]}
_WHY = {
    "segment": "repeat_buyers",
    "since": 1790000000000,
    "sequence": 1,
    "version": 1,
    "why": {"at": 1790000000000, "decided_at": 1790000000250, "sequence": 1, "cause": "event"},
}
PROFILE_SEGMENTS = {"segments": [_WHY]}
SUPPORT = {
    "profile_id": _ID,
    "entity": "person",
    "who": {"identifiers": PROFILE["identifiers"], "traits": {"plan": "pro"}, "consents": {}},
    "orders": {"count": 3, "last": 1790000000000, "recent": [_EVENT_EXAMPLE]},
    "preferred_channel": "email",
    "open_questions": [],
    "last_events": [_EVENT_EXAMPLE],
    "segments": [_WHY],
}
_DEFINITION = {
    "segment": "repeat_buyers",
    "when": {"performed": {"event": "Order Completed", "count": {"at_least": 2}}},
}
ACCOUNT = {
    "people": 3,
    "account": {
        "profile_id": _ID,
        "entity": "account",
        "identifiers": [{"namespace": "account", "value": "acme.example"}],
        "identifiers_total": 1,
        "traits": {"plan": "team"},
    },
}
_LISTED = {"account": "acme.example", "profile_id": _ID, "people": 3, "traits": {"plan": "team"}, "segments": ["warm"]}
ACCOUNTS = {"accounts": [_LISTED], "next": None}
RANKING = {"ranked": [_LISTED | {"events": 214, "active": 3}], "judged": 40, "all": True, "days": 30}
ACTIVITY = {
    "account": "acme.example",
    "days": [{"day": 1789948800000, "events": 12}],
    "active": 2,
    "counted": 3,
    "all": True,
}
ALERTS = {
    "alerts": [
        {
            "alert_id": f"call_them/{_ID}/1",
            "alert": "call_them",
            "account": "acme.example",
            "profile_id": _ID,
            "owner": "eva@example.org",
            "segment": "warm",
            "version": 1,
            "at": 1790000000000,
            "decided_at": 1790000000250,
            "sequence": 1,
            "cause": "event",
            "evidence": {"message_id": "m-1", "partition": 0, "offset": 1042},
            "context": {"people": 3},
        }
    ]
}
PEOPLE = {"account": "acme.example", "people": [PROFILE], "next": None}
SEGMENT = {"segment": "repeat_buyers", "version": 1, "size": 7120, "definition": _DEFINITION}
SEGMENTS = {
    "generation": 1,
    "segments": [
        {
            "segment": "repeat_buyers",
            "entity": "person",
            "description": "",
            "version": 1,
            "owner": "file",
            "paused": False,
            "size": 7120,
        }
    ],
}
_MEMBER = {
    "segment": "repeat_buyers",
    "profile_id": _ID,
    "entity": "person",
    "version": 1,
    "since": 1790000000000,
    "sequence": 1,
}
MEMBERS = {"segment": "repeat_buyers", "size": 7120, "members": [_MEMBER], "next": None}
APPLIED = {"generation": 2, "changes": [], "dry_run": False, "in_force": True}
OVERLAP = {
    "sizes": {"lapsed": 900, "repeat_buyers": 7120},
    "all": 210,
    "any": 7810,
    "pairs": [{"segments": ["lapsed", "repeat_buyers"], "both": 210}],
}
ASKED = {"request": "erase", "identifier": "email:ada@example.org"}
RECEIPT = {
    "request_id": "20270115-4f1d0a9c3e",
    "request": "erase",
    "subject": "5d7d7fffd3c6f7686ae4e579459b2110",
    "requested_at": 1_800_000_000_000,
    "state": "done",
    "by": "support",
    "identifiers": 2,
    "finished_at": 1_800_000_003_000,
    "stores": [{"store": "state of unify", "state": "done", "at": 1_800_000_003_000, "how": "gone"}],
}
LINK = {"a": "user_id:42", "b": "anonymous_id:f3a1"}
_APPLIED = {"owner": "ui", "applied_at": 1790000000000, "applied_by": "ui.ada"}
DEFINITIONS = {
    "generation": 1,
    "definitions": [{"kind": "segment", "name": "repeat_buyers", "version": 1, "paused": False, **_APPLIED}],
}
HISTORY = {
    "kind": "segment",
    "name": "repeat_buyers",
    "in_force": 1,
    "paused": False,
    "versions": [{"version": 1, **_APPLIED, "definition": _DEFINITION}],
}
_TREE = {"rule": "count of Order Completed ≥ 2", "true": True, "value": "2 or more"}
PREVIEW = {
    "judged": 1000,
    "people": 20000,
    "all": False,
    "whole": 940,
    "matching": 61,
    "estimate": 1220,
    "overlap": {"lapsed": 12},
    "members": [{"profile_id": _ID, "traits": {"plan": "pro"}, "whole": True, "why": _TREE}],
}
WHY = {"segment": "repeat_buyers", "member": True, "whole": True, "at": 1790000000000, "why": _TREE}
VOCABULARY = {
    "events": ["Page Viewed"],
    "paths": {"properties.path": ["/pricing"]},
    "traits": {"plan": ["free", "pro"]},
    "purposes": ["marketing"],
    "segments": ["repeat_buyers"],
    "computed": [],
}
CHANGE = {"pause": ["segment/repeat_buyers"]}
DEAD_LETTER = {
    "id": "0/17",
    "at": 1790000000000,
    "stage": "ingest",
    "reason": "not_json",
    "detail": "The value is not JSON.",
    "pointer": "",
    "source": "raw/0/1042",
}
DEAD_LETTERS = {"letters": [DEAD_LETTER], "known": 1, "reasons": {"not_json": 1}}
REPLAY = {"ids": ["0/17"]}
BACKFILLS = {
    "latest": 7,
    "not_in_force": 7,
    "partitions": [{"partition": 0, "in_force": 6, "marked": 7, "generation": 7, "read": 5200, "until": 10400}],
}
GROWTH = {
    "days": 7,
    "segments": [
        {
            "segment": "repeat_buyers",
            "entity": "person",
            "size": 7120,
            "hours": [{"at": 1789999200000, "entered": 20, "exited": 3}],
        }
    ],
    "all": 1,
}
OVERVIEW = {
    "at": 1790000000000,
    "roles": [
        {
            "group": "unify",
            "working": 1,
            "behind": 2,
            "done_per_second": 812.4,
            "came_per_second": 811.9,
            "stuck": False,
            "waits": False,
        }
    ],
    "throughput": [{"at": 1789999940000, "groups": {"unify": {"done": 812.4, "came": 811.9, "behind": 2}}}],
    "latency": [{"at": 1789999940000, "events": 40_000, "p50_ms": 21, "p95_ms": 44, "p99_ms": 70}],
    "destinations": [
        {
            "destination": "crm",
            "state": "well",
            "behind": 0,
            "working": 1,
            "failure": "",
            "since": None,
            "dead_letters": 0,
            "errors": [],
        }
    ],
    "dead_letters": {"recent": 0, "known": 1, "reasons": {"not_json": 1}},
    "violations": [{"contract": "shop/1", "event": "Cart Viewed", "what": "contract_violation:/total", "count": 3}],
    "generation": {"latest": 7, "not_in_force": 0},
    "troubles": {},
    "age_ms": 12,
}
NEWEST = {
    "events": [
        {
            "partition": 0,
            "offset": 1042,
            "message_id": "m-1",
            "event": "Order Completed",
            "type": "track",
            "received": 1790000000000,
            "source": "raw",
            "flags": 0,
        }
    ],
    "found": None,
}
TRACE = {
    "event": _EVENT_EXAMPLE,
    "place": [0, 1042],
    "source": "raw/0/977",
    "origin": "",
    "raw": None,
    "raw_kept": True,
    "cleaned": [{"path": "properties.total", "before": "12.5", "after": 12.5}],
    "contract": "shop/1",
    "profile_id": _ID,
    "who": [{"identifier": "email:ada@example.org", "profile_id": _ID}],
    "touched": [{"segment": "repeat_buyers", "rule": "count of Order Completed ≥ 2", "by": "leaf"}],
    "generation": 7,
    "changes": [],
    "flips": [],
    "deliveries": [
        {
            "destination": "crm",
            "action": "segment_entered",
            "segment": "repeat_buyers",
            "decided_at": 1790000000250,
            "became": "handed over",
            "why": "",
        }
    ],
    "all": True,
    "trouble": "",
}
PROVENANCE = {
    "profile_id": _ID,
    "since_days": 30,
    "traits": {
        "plan": {
            "at": 1790000000000,
            "event": "Identify",
            "source": "web",
            "contract": None,
            "position": {"partition": 0, "offset": 1042},
        }
    },
    "links": [
        {
            "a": "user_id:42",
            "b": "email:ada@example.org",
            "first": 1789000000000,
            "last": 1790000000000,
            "count": 3,
            "position": {"partition": 0, "offset": 1042},
        }
    ],
    "unfollowed": [{"a": "device_id:kiosk", "b": "user_id:42", "reason": "crowded", "since": 1789000000000}],
    "taken_back": [],
    "days": [{"day": 1789948800000, "events": 2}],
    "trouble": "",
}
