"""Records as Avro datums, and back to the very bytes of their JSON.

The rooms speak JSON. Where a workspace's format is Avro, what they wrote becomes a datum at the edge to Kafka, and JSON
again when it is read. A topic with several kinds of record has a union of records; what is chosen of it is its place in
the union, then the record, so that each kind can be written and read by its own schema. Handing the whole union to
fastavro would have it try the branches one after the other: 70 µs instead of 13 for a message of `links`.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import fastavro
import msgspec

from pipeline import avro, records

SEALED_FIRST = b"\x01"
"""A sealed event begins with it (`pipeline/vault/sealing.py`)."""

_decode_json = msgspec.json.Decoder().decode
_TAG = "kind"
_SEALED = avro.tag_of(records.Sealed)


def records_of(topic: str) -> tuple[type[msgspec.Struct], ...]:
    """The kinds of record of a topic by its logical name; none where its values are no records of ours."""
    return avro.RECORDS.get("deliveries" if topic.startswith("deliveries.") else topic, ())


class Datums:
    """Writes and reads the values of one topic."""

    def __init__(self, topic: str) -> None:
        """`topic` is its logical name; it must have records."""
        kinds = records_of(topic)
        assert kinds, f"{topic} has no records"
        self.schema = avro.schema_of("deliveries" if topic.startswith("deliveries.") else topic)
        self._decoders = [msgspec.json.Decoder(kind) for kind in kinds]
        self._kinds = {avro.tag_of(kind): (place, kind) for place, kind in enumerate(kinds)}
        self._is_tagged = len(kinds) > 1 and "" not in self._kinds
        self._untagged = kinds
        self._texts = {kind: _default_texts(kind) for kind in kinds}
        self._bytes = [_default_bytes(kind) for kind in kinds]
        self._heads = [_zigzag(place) if len(kinds) > 1 else b"" for place in range(len(kinds))]
        self._schemas = [fastavro.parse_schema(avro.record_schema(kind)) for kind in kinds]

    def datum(self, value: bytes) -> bytes:
        """The datum of a value. Raises ValueError for one that is no record of the topic."""
        try:
            place, record = self._record(value)
            plain = msgspec.to_builtins(record, builtin_types=(bytes,))
            for name, default in self._bytes[place]:
                plain.setdefault(name, default)
            buffer = io.BytesIO()
            buffer.write(self._heads[place])
            fastavro.schemaless_writer(buffer, self._schemas[place], plain)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError, TypeError) as error:
            raise ValueError(f"it is no record of this topic: {error}") from None
        return buffer.getvalue()

    def _record(self, value: bytes) -> tuple[int, Any]:
        if value[:1] == SEALED_FIRST and records.Sealed in self._untagged:
            return self._kinds[_SEALED][0], records.Sealed(value)
        if len(self._decoders) == 1:
            return 0, self._decoders[0].decode(value)
        if self._is_tagged:
            tag = _decode_tag(value).kind
            if tag not in self._kinds:
                raise ValueError(f"it is no record of this topic: there is no kind {tag!r}")
            place = self._kinds[tag][0]
            return place, self._decoders[place].decode(value)
        for place, decoder in enumerate(self._decoders):
            try:
                return place, decoder.decode(value)
            except msgspec.ValidationError as error:
                failure = error
        raise failure

    def value(self, plain: Mapping[str, Any]) -> bytes:
        """The value of a datum that was read: to the byte what was written, where the writer was of this release."""
        if self._is_tagged:
            if plain.get(_TAG) == _SEALED:
                return bytes(plain["value"])
            known = self._kinds.get(plain.get(_TAG, ""))
            kinds = [known[1]] if known else []
        else:
            kinds = [*self._untagged]
        for kind in kinds:
            try:
                return records.encode(msgspec.convert(_without_texts(plain, self._texts[kind]), kind))
            except msgspec.ValidationError:
                continue
        # A later release may write what this one does not know: the reader decides, as it does of JSON.
        return records.encode(plain)


def _defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return {field.encode_name: field.default for field in info.fields}


def _default_texts(kind: type[msgspec.Struct]) -> dict[str, str]:
    return {name: default for name, default in _defaults(kind).items() if isinstance(default, str) and default}


def _default_bytes(kind: type[msgspec.Struct]) -> list[tuple[str, bytes]]:
    """fastavro fills in what is left out; but bytes stand in a schema as a text, which it then refuses to write."""
    return [(name, default) for name, default in _defaults(kind).items() if isinstance(default, bytes)]


def _without_texts(plain: Mapping[str, Any], texts: Mapping[str, str]) -> Mapping[str, Any]:
    """Without the fields that hold their default: a text is left out of JSON only if it is the very one of the code."""
    if not texts:
        return plain
    return {name: value for name, value in plain.items() if name not in texts or texts[name] != value}


class _Tagged(msgspec.Struct):
    kind: str


_decode_tag = msgspec.json.Decoder(_Tagged).decode


class WriterSchema:
    """A schema as a registry knows it, ready to read what was written with it."""

    def __init__(self, text: str) -> None:
        """`text` is the schema as JSON. Raises ValueError if it is none."""
        try:
            self.parsed = fastavro.parse_schema(_decode_json(text))
        except (ValueError, fastavro.schema.SchemaParseException, msgspec.MsgspecError, AttributeError) as error:
            raise ValueError(f"it is no Avro schema: {error!r}") from None
        self._branches = _each_by_itself(self.parsed)

    def read(self, data: bytes, start: int = 0) -> Any:
        """The datum that begins at `start`. Raises ValueError if it is damaged, or not of this schema."""
        buffer = io.BytesIO(data)
        buffer.seek(start)
        try:
            if not self._branches:
                return fastavro.schemaless_reader(buffer, self.parsed, None)
            return fastavro.schemaless_reader(buffer, self._branches[_place(buffer)], None)
        except Exception as error:  # noqa: BLE001 a damaged datum makes the reader raise whatever it stumbles over
            raise ValueError(f"the datum cannot be read: {type(error).__name__}") from None


def _each_by_itself(parsed: Any) -> list[Any]:
    """The branches of a union of records, each with all it names written out, so that it can be read by itself; none if
    the schema is no such union."""
    if not isinstance(parsed, list) or not all(_is_record(branch) for branch in parsed):
        return []
    named: dict[str, Any] = {}
    _collect(parsed, named)
    return [fastavro.parse_schema(_written_out(branch, named, set())) for branch in parsed]


def _is_record(branch: Any) -> bool:
    return isinstance(branch, dict) and branch.get("type") == "record"


def _collect(schema: Any, named: dict[str, Any]) -> None:
    if isinstance(schema, list):
        for branch in schema:
            _collect(branch, named)
    elif isinstance(schema, dict):
        if "name" in schema and schema.get("type") in ("record", "enum", "fixed"):
            named[schema["name"]] = schema
        for part in (schema.get("type"), schema.get("items"), schema.get("values")):
            _collect(part, named)
        for field in schema.get("fields", ()):
            _collect(field["type"], named)


def _written_out(schema: Any, named: Mapping[str, Any], seen: set[str]) -> Any:
    if isinstance(schema, str):
        return _written_out(named[schema], named, seen) if schema in named and schema not in seen else schema
    if isinstance(schema, list):
        return [_written_out(branch, named, seen) for branch in schema]
    if "name" in schema:
        if schema["name"] in seen:
            return schema["name"]
        seen.add(schema["name"])
    made = {key: value for key, value in schema.items() if not key.startswith("__")}
    if isinstance(made.get("type"), dict | list):
        made["type"] = _written_out(made["type"], named, seen)
    for part in ("items", "values"):
        if part in made:
            made[part] = _written_out(made[part], named, seen)
    if "fields" in made:
        made["fields"] = [{**field, "type": _written_out(field["type"], named, seen)} for field in made["fields"]]
    return made


def _zigzag(number: int) -> bytes:
    """A small whole number as Avro writes a long."""
    rest, written = number << 1, bytearray()
    while rest > 0x7F:
        written.append(rest & 0x7F | 0x80)
        rest >>= 7
    written.append(rest)
    return bytes(written)


def _place(buffer: io.BytesIO) -> int:
    """The place in a union that stands next. Raises IndexError at the end of the buffer, or for none."""
    number = shift = 0
    while True:
        read = buffer.read(1)
        if not read:
            raise IndexError("the datum ends")
        number |= (read[0] & 0x7F) << shift
        if read[0] < 0x80:
            break
        shift += 7
    if number & 1:
        raise IndexError("a place below zero")
    return number >> 1


def text_of(schema: Any) -> str:
    """A schema as it is registered: without white space, in the order of its fields."""
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)
