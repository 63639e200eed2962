"""Records of a topic that are no events yet: brought into the shape of the tracking spec by a mapping.

    encoding   json, or avro in Confluent's wire format (a zero, four bytes of schema id, the datum)
    envelope   none, or debezium: {before, after, source, op, ts_ms}, with or without {schema, payload} around it

A mapping is a tree of constants, fields, texts and lists of these. What it makes is JSON, and goes on like any raw
event; so every bound of ingest holds for it too. A field that is not there, or null, is left out; so is a number that
is none (NaN).

Avro has values that JSON has not. An instant is a text in ISO 8601 (and a time whatever `as` calls it), a UUID a
text, a decimal a number.
"""

import base64
import datetime
import decimal
import io
import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from pipeline.ingest.decode import forgiving
from pipeline.ingest.outcomes import Refusal, Skip
from pipeline.runtime.ports import Record

As = Literal["text", "time_s", "time_ms", "time_us", "time_ns", "days"]
SchemaOf = Callable[[int], Any]
"""Gives the parsed Avro schema of an id, or None if the registry does not know it."""

CHANGES = {"c": "insert", "u": "update", "d": "delete", "r": "snapshot"}
_MAX_TEXT = 2_000
# Debezium's `unavailable.value.placeholder`: as a text, as bytes are written in JSON, as a UUID made of it (in a list
# of such), and, in a list of numbers or dates, each of its bytes.
_UNAVAILABLE = b"__debezium_unavailable_value"
_PLACEHOLDERS = (_UNAVAILABLE.decode(), base64.b64encode(_UNAVAILABLE).decode(), "b68a35a7-17ad-35b3-af2a-ae46edb4545a")
_PLACEHOLDER_NUMBERS = list(_UNAVAILABLE)
# (times, divided by): whole numbers stay whole, for a product with 0.000001 is a millisecond off now and then.
_PER_MS = {"time_s": (1_000, 1), "time_ms": (1, 1), "time_us": (1, 1_000), "time_ns": (1, 1_000_000)}
_PER_MS["days"] = (86_400_000, 1)
_number = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?").fullmatch
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS = datetime.timedelta(milliseconds=1)
_MISSING: Any = object()

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Constant(NamedTuple):
    """The same for every record."""

    value: Any

    def of(self, document: dict[str, Any]) -> Any:
        """The value."""
        return self.value


class From(NamedTuple):
    """A field of the record; `without` leaves out some fields of an object, or of each object in a list."""

    path: tuple[str, ...]
    kind: As | None = None
    without: frozenset[str] = frozenset()

    def of(self, document: dict[str, Any]) -> Any:
        """The value, or _MISSING."""
        value = _at(document, self.path)
        if value is None:
            return _MISSING
        if self.without and isinstance(value, (dict, list)):
            return _left_out(value, self.without)
        if self.kind == "text":
            return _text(value)
        return _time_ms(value, self.kind) if self.kind is not None else value


def _left_out(value: Any, names: frozenset[str]) -> Any:
    """`a.b` is b in what a holds; a field may also be called so."""
    if isinstance(value, list):
        # No lists in lists: a record may hold a thousand of them.
        return [_left_out(one, names) if isinstance(one, dict) else one for one in value]
    if not isinstance(value, dict):
        return value
    kept = {name: inner for name, inner in value.items() if name not in names}
    for name in names:
        first, dot, rest = name.partition(".")
        if dot and first in kept:
            kept[first] = _left_out(kept[first], frozenset((rest,)))
    return kept


class Text(NamedTuple):
    """A text with fields in it; missing if one of them is."""

    parts: tuple[str | tuple[str, ...], ...]

    def of(self, document: dict[str, Any]) -> Any:
        """The text, or _MISSING."""
        made = ""
        for part in self.parts:
            value = part if isinstance(part, str) else _text(_at(document, part))
            if value is _MISSING:
                return _MISSING
            made += value
        return made[:_MAX_TEXT]


class Object(NamedTuple):
    """Named parts."""

    parts: tuple[tuple[str, Any], ...]

    def of(self, document: dict[str, Any]) -> Any:
        """The parts that are there."""
        made = ((name, part.of(document)) for name, part in self.parts)
        return {name: value for name, value in made if value is not _MISSING}


class Items(NamedTuple):
    """A list, item by item."""

    parts: tuple[Any, ...]

    def of(self, document: dict[str, Any]) -> Any:
        """The items that are there."""
        made = (part.of(document) for part in self.parts)
        return [value for value in made if value is not _MISSING]


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if not math.isfinite(value):
            return _MISSING
        # As identifiers are read of events: who is 41 to an SDK is 41.0 to a connector that knows no whole numbers.
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    if isinstance(value, decimal.Decimal):
        return f"{value:f}"
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value) if isinstance(value, str | int | float | uuid.UUID) else _MISSING


def _time_ms(value: Any, kind: As) -> Any:
    if isinstance(value, datetime.datetime):
        return ((value if value.tzinfo else value.replace(tzinfo=datetime.UTC)) - _EPOCH) // _MS
    if isinstance(value, datetime.date):
        return (value - _EPOCH.date()).days * 86_400_000
    if isinstance(value, str):
        if _number(value.strip()) is None:
            return value  # ingest takes it for a time in ISO 8601, or says what is wrong with it
        value = decimal.Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal) or not math.isfinite(value):
        return _MISSING
    times, divided_by = _PER_MS[kind]
    whole = int(value)
    return whole * times // divided_by if whole == value else int(value * times / divided_by)


def _at(document: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        if not isinstance(document, dict):
            return None
        document = document.get(step)
    return document


@dataclass(frozen=True, slots=True)
class Mapping:
    """How the records of one topic become events of a source. `changes`: of a Debezium envelope, those that count."""

    source: str
    topic: str
    encoding: Literal["json", "avro"]
    envelope: Literal["none", "debezium"]
    changes: frozenset[str]
    event: Object


@dataclass(frozen=True, slots=True)
class MappingPlan:
    """All mappings in force; a topic has one at most."""

    mappings: tuple[Mapping, ...] = ()
    by_topic: dict[str, Mapping] = field(init=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.by_topic.update({mapping.topic: mapping for mapping in self.mappings})


NO_MAPPINGS = MappingPlan()


def no_registry(schema_id: int) -> Any:
    """Where there is no registry, no schema is known."""
    return None


def mapped(mapping: Mapping, record: Record, schema_of: SchemaOf) -> bytes | Refusal | Skip:
    """The event a record means, as JSON; or why it means none."""
    if record.value is None:
        # After a delete Debezium writes one, so that compaction forgets the row; any compacted topic may have them.
        return Skip("tombstone")
    value = _decoded(record.value, mapping.encoding, schema_of)
    if isinstance(value, Refusal):
        return value
    document: dict[str, Any] = {"key": _key(record.key, mapping.encoding, schema_of), "value": value}
    if mapping.envelope == "debezium":
        value = _payload(value)
        if not isinstance(value, dict) or not isinstance(value.get("op"), str):
            return Refusal("not_mapped", "The value is no Debezium envelope: it has no `op`.")
        change = CHANGES.get(value["op"])
        if change is None or change not in mapping.changes:
            return Skip(change or "other_change")
        value = {**value, "before": _available(value.get("before")), "after": _available(value.get("after"))}
        row = value.get("after") if value.get("after") is not None else value.get("before")
        document |= {**value, "value": value, "row": row, "change": change}
    event = mapping.event.of(document)
    event["source"] = mapping.source
    if mapping.envelope == "debezium":
        event.setdefault("timestamp", _at(document, ("source", "ts_ms")))
    try:
        return _encode(event)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return Refusal("not_mapped", f"What the mapping makes cannot be written as JSON: {error}.")


def _available(row: Any) -> Any:
    """A row without what Debezium could not know: a large value that PostgreSQL keeps beside the row (TOAST), and that
    an update has not changed. The placeholder stands for "as it was", and would take its place."""
    if not isinstance(row, dict):
        return row
    return {name: value for name, value in row.items() if not _is_placeholder(value)}


def _is_placeholder(value: Any) -> bool:
    if value == _PLACEHOLDER_NUMBERS:
        return True
    if isinstance(value, list | dict) and len(value) == 1:
        value = next(iter(value))
    if isinstance(value, bytes):
        return value == _UNAVAILABLE
    return isinstance(value, str) and value in _PLACEHOLDERS


def _payload(value: Any) -> Any:
    """What stands inside when the converter writes the schema beside it."""
    return value["payload"] if isinstance(value, dict) and set(value) == {"schema", "payload"} else value


def _key(data: bytes | None, encoding: str, schema_of: SchemaOf) -> Any:
    """Keys are often bare texts, whatever values are written as. One that can be read neither way is not there."""
    if not data:
        return None
    found = _decoded(data, encoding, schema_of)
    if not isinstance(found, Refusal):
        return _payload(found)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None  # a number in binary, or a damaged datum, is no text


def _decoded(data: bytes, encoding: str, schema_of: SchemaOf) -> Any:
    if encoding == "avro":
        return _of_avro(data, schema_of)
    try:
        return forgiving(_decode, data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Refusal("not_json", "The value is not JSON, which the mapping of its topic expects.")


def _of_avro(data: bytes, schema_of: SchemaOf) -> Any:
    if len(data) < 5 or data[0] != 0:
        return Refusal("not_avro", "The value has not the wire format of a schema registry: a zero and a schema id.")
    schema_id = int.from_bytes(data[1:5], "big")
    schema = schema_of(schema_id)
    if schema is None:
        return Refusal("unknown_schema", f"The registry does not know the schema {schema_id}.")
    import fastavro

    try:
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)
    except Exception as error:  # noqa: BLE001 a damaged datum makes the reader raise whatever it stumbles over
        return Refusal("not_avro", f"The value is not what its schema {schema_id} says: {type(error).__name__}.")
