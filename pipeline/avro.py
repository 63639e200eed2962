"""Avro schemas of the topics, derived from the structs in `records.py`, so that the two cannot drift apart.

A topic that carries several kinds of record has a union of records. What has no fixed shape (properties, traits) is
a string that holds JSON, marked with the logical type ``json``; importing this module teaches fastavro to convert it.

    python -m pipeline.avro schemas/      writes one .avsc per topic
"""

import json
import sys
from pathlib import Path
from typing import Any

import fastavro
import msgspec
from msgspec import inspect

from pipeline import records, workspaces

NAMESPACE = "headwater"

RECORDS: dict[str, tuple[type[msgspec.Struct], ...]] = {
    "events": (records.Event, records.Marker, records.CaughtUp, records.Ready, records.Sealed),
    "dead-letters": (records.DeadLetter,),
    "identity-edges": (
        records.Evidence,
        records.Unlink,
        records.Relink,
        records.Release,
        records.EraseRequest,
        records.Readmitted,
        records.RulesChanged,
        records.BackfillDone,
        records.ResolveOn,
    ),
    "identity-decisions": (records.Unlink, records.Relink, records.Release, records.Erased),
    "identity-conflicts": (records.IdentityConflict,),
    "links": (
        records.Tick,
        records.Forward,
        records.Assign,
        records.Recall,
        records.Absorb,
        records.Contribute,
        records.HistorySent,
        records.Expired,
        records.LivesAgain,
        records.Unfollowed,
        records.Noted,
        records.Forget,
        records.Erase,
        records.Bury,
        records.Readmit,
        records.Sweep,
        records.Takeover,
        records.Named,
        records.Belongs,
        records.Regard,
        records.RegardOn,
        records.PeopleSwept,
        records.AccountsSweep,
    ),
    "profiles": (records.ProfileDocument,),
    "identities": (records.IdentityPointer,),
    "profile-changes": (records.ProfileChange,),
    "segment-changes": (records.SegmentChange,),
    "segment-members": (records.SegmentMember,),
    "account-alerts": (records.AccountAlert,),
    "deliveries": (records.Delivery,),
    "privacy-requests": (records.PrivacyRequest,),
    "privacy-receipts": (records.PrivacyReceipt,),
    "privacy-progress": (records.Forgotten, records.DestinationErased),
    "suppressions": (records.Suppression,),
    "audit": (records.AuditEntry,),
    "definitions": (records.Definition, records.Generation),
    "workspace": (
        workspaces.ReplayOrigin,
        workspaces.ReplayPosition,
        workspaces.ErasureCopied,
        workspaces.UnlinkCopied,
        workspaces.Successor,
        workspaces.SourcePosition,
        workspaces.SecretCheck,
    ),
}
"""The records of each topic whose values are messages. `raw` is its producers' own, and the changelogs hold bytes."""

OPAQUE: dict[str, str] = {
    "raw": "What applications produce: one JSON object in the shape of the tracking spec, as bytes.",
    "unify-changelog": "The stored form of a state value: eight bytes of wake time, then its encoding.",
    "keys": "The seeds of the keys under which events are sealed, as pipeline/vault/keyring.py describes them.",
    "identity-changelog": "The stored form of a state value: eight bytes of wake time, then its encoding.",
}

# As the rooms do it: what was read can be written again to the byte.
_encode_json = msgspec.json.Encoder().encode
_decode_json = msgspec.json.Decoder().decode

JSON_TEXT = {"type": "string", "logicalType": "json"}

_PRIMITIVES: dict[type[inspect.Type], str] = {
    inspect.BoolType: "boolean",
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.StrType: "string",
    inspect.BytesType: "bytes",
    inspect.NoneType: "null",
}


def schema_of(topic: str) -> Any:
    """The Avro schema of a topic's values: a record, a union of records, or bytes."""
    if topic in OPAQUE:
        return {"type": "bytes", "doc": OPAQUE[topic]}
    named: set[str] = set()
    schemas = [_record(inspect.type_info(kind), named) for kind in RECORDS[topic]]
    return schemas[0] if len(schemas) == 1 else schemas


def record_schema(kind: type[msgspec.Struct]) -> Any:
    """The schema of one kind of record by itself."""
    return _record(inspect.type_info(kind), set())


def tag_of(kind: type[msgspec.Struct]) -> str:
    """What tells a kind of record from the others of its topic; empty if it has no such tag."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return str(info.tag or "")


def _record(info: inspect.Type, named: set[str]) -> Any:
    assert isinstance(info, inspect.StructType)
    name = info.cls.__name__
    if name in named:
        return f"{NAMESPACE}.{name}"
    named.add(name)
    fields: list[dict[str, Any]] = []
    if info.tag_field is not None:
        fields.append({"name": info.tag_field, "type": "string", "default": info.tag})
    fields += [_field(field, named) for field in info.fields]
    doc = " ".join((info.cls.__doc__ or "").split())
    return {"type": "record", "name": name, "namespace": NAMESPACE, "doc": doc, "fields": fields}


def _field(field: inspect.Field, named: set[str]) -> dict[str, Any]:
    described: dict[str, Any] = {"name": field.encode_name, "type": _type(field.type, named)}
    if field.default is not msgspec.NODEFAULT:
        described["default"] = field.default.decode() if isinstance(field.default, bytes) else field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        empty = field.default_factory()
        described["default"] = json.dumps(empty) if described["type"] == JSON_TEXT else empty
    if isinstance(described["type"], list) and described.get("default") is None:
        described["type"].sort(key=lambda branch: branch != "null")
    return described


def _type(info: inspect.Type, named: set[str]) -> Any:
    if primitive := _PRIMITIVES.get(type(info)):
        return primitive
    match info:
        case inspect.LiteralType():
            return "string"
        case inspect.StructType():
            return _record(info, named)
        case inspect.UnionType(types=types):
            return [_type(branch, named) for branch in types]
        case inspect.ListType(item_type=item):
            return {"type": "array", "items": _type(item, named)}
        case inspect.DictType(value_type=value) if not isinstance(value, inspect.AnyType):
            return {"type": "map", "values": _type(value, named)}
        case inspect.DictType() | inspect.AnyType() | inspect.TupleType():
            return dict(JSON_TEXT)
    raise TypeError(f"no Avro type for {info!r}; extend pipeline/avro.py")


def _write_json(value: Any, *_: Any) -> str:
    # A text is a default of the schema: JSON already.
    return value if isinstance(value, str) else _encode_json(value).decode()


def _read_json(text: str, *_: Any) -> Any:
    return _decode_json(text)


fastavro.write.LOGICAL_WRITERS["string-json"] = _write_json
fastavro.read.LOGICAL_READERS["string-json"] = _read_json


def topics() -> list[str]:
    """All topics that have a schema."""
    return [*RECORDS, *OPAQUE]


def render(topic: str) -> str:
    """The text of a topic's .avsc file."""
    return json.dumps(schema_of(topic), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for topic_name in topics():
        (folder / f"{topic_name}.avsc").write_text(render(topic_name))
