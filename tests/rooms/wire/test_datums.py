"""Records become Avro datums and come back as the very bytes they were."""

import io
import json
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import avro, records
from pipeline.wire.datums import Datums, WriterSchema, records_of, text_of

SAMPLES = Path(__file__).parents[3] / "schemas" / "samples"
SEALED = b"\x01" + bytes(range(60))


def read(topic: str, datum: bytes) -> Any:
    return WriterSchema(text_of(avro.schema_of(topic))).read(datum)


@pytest.mark.parametrize("topic", avro.RECORDS)
def test_every_sample_comes_back_to_the_byte(topic: str) -> None:
    datums = Datums(topic)
    for line in (SAMPLES / f"{topic}.jsonl").read_bytes().splitlines():
        value = as_written(topic, line)
        assert datums.value(read(topic, datums.datum(value))) == value


def as_written(topic: str, line: bytes) -> bytes:
    """A sample as the rooms write it; that of a sealed event is its bytes."""
    for kind in records_of(topic):
        try:
            record = msgspec.json.decode(line, type=kind)
        except msgspec.ValidationError:
            continue
        return record.value if isinstance(record, records.Sealed) else records.encode(record)
    raise AssertionError(line)


@pytest.mark.parametrize("topic", avro.RECORDS)
def test_anybody_reads_what_is_written_with_the_whole_schema(topic: str) -> None:
    """Not only our own reader, which takes unions apart: a datum is what the topic's schema says."""
    schema = fastavro.parse_schema(avro.schema_of(topic))
    datums = Datums(topic)
    for line in (SAMPLES / f"{topic}.jsonl").read_bytes().splitlines():
        datum = datums.datum(as_written(topic, line))
        buffer = io.BytesIO(datum)
        plain: Any = fastavro.schemaless_reader(buffer, schema, None)
        assert buffer.tell() == len(datum), "to its end"
        assert plain == read(topic, datum)


def least(info: msgspec.inspect.Type) -> Any:
    """A value of a type with nothing that may be left out."""
    match info:
        case msgspec.inspect.StructType():
            return info.cls(**{field.name: least(field.type) for field in info.fields if field.required})
        case msgspec.inspect.UnionType(types=types):
            return least(types[0])
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.TupleType(item_types=items):
            return tuple(least(item) for item in items)
    made: dict[type[msgspec.inspect.Type], Any] = {
        msgspec.inspect.StrType: "x",
        msgspec.inspect.IntType: 7,
        msgspec.inspect.FloatType: 0.5,
        msgspec.inspect.BoolType: True,
        msgspec.inspect.BytesType: b"b",
        msgspec.inspect.NoneType: None,
        msgspec.inspect.ListType: [],
        msgspec.inspect.DictType: {},
    }
    return made[type(info)]


@pytest.mark.parametrize("topic", avro.RECORDS)
def test_what_may_be_left_out_is_left_out_again(topic: str) -> None:
    datums = Datums(topic)
    for kind in records_of(topic):
        if kind is not records.Sealed:
            value = records.encode(least(msgspec.inspect.type_info(kind)))
            assert datums.value(read(topic, datums.datum(value))) == value


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
MAPPINGS = st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4)
EVENTS = st.builds(
    records.Event,
    message_id=st.text(max_size=10),
    type=st.text(max_size=5),
    event=st.text(max_size=10),
    identifiers=st.lists(st.text(max_size=10), max_size=3),
    time=st.integers(0, 2**62),
    received=st.integers(0, 2**62),
    properties=MAPPINGS,
    traits=MAPPINGS,
    group_id=st.none() | st.text(max_size=3),
    flags=st.lists(st.text(max_size=4), max_size=2),
)


@given(EVENTS)
def test_any_event_comes_back_to_the_byte(event: records.Event) -> None:
    value = records.encode(event)
    assert EVENT_DATUMS.value(EVENT_SCHEMA.read(EVENT_DATUMS.datum(value))) == value


EVENT_DATUMS = Datums("events")
EVENT_SCHEMA = WriterSchema(text_of(avro.schema_of("events")))


def test_a_sealed_event_stays_sealed() -> None:
    datums = Datums("events")
    datum = datums.datum(SEALED)
    assert read("events", datum) == {"kind": "sealed", "value": SEALED}
    assert datums.value(read("events", datum)) == SEALED


def test_destinations_have_the_schema_of_deliveries() -> None:
    assert Datums("deliveries.crm").schema == avro.schema_of("deliveries")
    assert records_of("raw") == records_of("/somebody.elses") == records_of("unify-changelog") == ()


NO_RECORDS = {
    "no JSON": b"{not json",
    "not UTF-8": b"\xff\xfe",
    "no kind": b'{"a":1}',
    "another kind": b'{"kind":"dance"}',
    "a number too large": b'{"kind":"caught_up","received":' + b"9" * 30 + b"}",
    "sealed, where nothing is": SEALED,
}


@pytest.mark.parametrize("value", NO_RECORDS.values(), ids=list(NO_RECORDS))
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="no record"):
        Datums("links").datum(value)


@pytest.mark.parametrize("datum", [b"", b"\x00", b"\x64", b"\x01", b"\xff" * 9, b"\x00" + b"\xff" * 30])
def test_a_damaged_datum_is_refused(datum: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read("links", datum)


def test_a_later_release_may_add_a_field() -> None:
    schema = json.loads(json.dumps(avro.schema_of("segment-members")))
    schema["fields"].append({"name": "mood", "type": "string", "default": ""})
    [line] = (SAMPLES / "segment-members.jsonl").read_bytes().splitlines()
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), {**json.loads(line), "mood": "good"})
    plain = WriterSchema(json.dumps(schema)).read(buffer.getvalue())
    assert Datums("segment-members").value(plain) == as_written("segment-members", line)


def test_a_later_release_may_add_a_kind() -> None:
    plain = {"kind": "dance", "clock": 7}
    assert json.loads(Datums("links").value(plain)) == plain, "the stage refuses it, as it does in JSON"


def test_a_schema_that_was_printed_by_java_is_read() -> None:
    """Confluent's registry prints what it is given: names within a namespace become short."""
    whole = json.dumps(avro.schema_of("links"))
    first, *rest = json.loads(whole)
    shortened = json.loads(json.dumps([first, *rest]).replace('"headwater.', '"'))
    schema = WriterSchema(json.dumps(shortened))
    for line in (SAMPLES / "links.jsonl").read_bytes().splitlines():
        value = as_written("links", line)
        assert Datums("links").value(schema.read(Datums("links").datum(value))) == value


def test_a_text_that_is_no_schema_is_refused() -> None:
    for text in ("{", '{"type":"dance"}', "syntax = 'proto3';", '{"type":"record"}'):
        with pytest.raises(ValueError, match="no Avro schema"):
            WriterSchema(text)
