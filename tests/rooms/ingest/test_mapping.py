"""Records of other systems' topics, brought into the form of events."""

import base64
import datetime
import io
import json
import random
import uuid
from decimal import Decimal
from typing import Any

import fastavro
import pytest

from pipeline.contracts import ContractsPlan
from pipeline.definitions.contracts import compile_contracts
from pipeline.definitions.loader import InvalidDefinitionsError, load_text
from pipeline.definitions.sources import compile_sources
from pipeline.errors import DefinitionError
from pipeline.identity import builtin_rules
from pipeline.ingest import REASONS, Checks, Emit, Refusal, Skip, ingest
from pipeline.ingest.mapping import From, Object, Text
from pipeline.records import Event
from pipeline.runtime.ports import Record

NOW_MS = 1_790_000_000_000
TOPIC = "/crm.public.customers"
CRM = """
source: crm
topic: /crm.public.customers
envelope: debezium
changes: [insert, update, snapshot, delete]
event:
  type: identify
  userId: {from: row.id, as: text}
  messageId: {text: 'crm-{source.lsn}-{row.id}'}
  traits: {from: row, without: [id, password_hash]}
  context: {change: {from: change}}
"""
ORDERS = """
source: orders
topic: /shop.orders
event:
  type: track
  event: Order Completed
  userId: {from: value.customer.number, as: text}
  timestamp: {from: value.at, as: time_s}
  messageId: {text: 'order-{value.id}'}
  properties:
    total: {from: value.total}
    channel: shop
    nested: {id: {from: value.id}, gone: {from: value.nothing}}
    key: {from: key}
"""


def outcome(text: str, record: Record, schemas: dict[int, Any] | None = None, **more: Any) -> Event | Refusal | Skip:
    [written] = load_text(text)
    checks = Checks(mappings=compile_sources({written.name: written.body}), schema_of=(schemas or {}).get, **more)
    found = ingest(record, NOW_MS, builtin_rules(), checks)
    return found.event if isinstance(found, Emit) else found


def record(value: Any, topic: str = TOPIC, key: bytes | None = b'{"id": 7}') -> Record:
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record(topic, 1, 5, key, data, NOW_MS - 1_000)


def envelope(op: str, before: Any, after: Any) -> dict[str, Any]:
    """As Debezium's PostgreSQL connector writes it."""
    return {
        "before": before,
        "after": after,
        "source": {
            "version": "3.0.0.Final",
            "connector": "postgresql",
            "name": "crm",
            "ts_ms": NOW_MS - 60_000,
            "snapshot": "false",
            "db": "crm",
            "schema": "public",
            "table": "customers",
            "txId": 751,
            "lsn": 26784608,
        },
        "transaction": None,
        "op": op,
        "ts_ms": NOW_MS - 59_000,
    }


ROW = {"id": 7, "email": "Ada@Example.org", "plan": "free", "password_hash": "x"}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("op", "change", "before", "after"),
    [("c", "insert", None, ROW), ("u", "update", ROW, ROW), ("r", "snapshot", None, ROW), ("d", "delete", ROW, None)],
)
def test_a_changed_row_is_an_event(op: str, change: str, before: Any, after: Any, wrapped: bool) -> None:
    value: Any = envelope(op, before, after)
    if wrapped:
        value = {"schema": {"type": "struct", "fields": []}, "payload": value}
    event = outcome(CRM, record(value))
    assert isinstance(event, Event)
    assert (event.type, event.message_id, event.time) == ("identify", "crm-26784608-7", NOW_MS - 60_000)
    assert event.identifiers == ["user_id:7", "email:ada@example.org"]
    assert event.traits == {"email": "Ada@Example.org", "plan": "free"}
    assert event.context == {"change": change} and event.origin == "crm" and event.source == f"{TOPIC}/1/5"


def test_a_large_value_that_an_update_has_not_changed_stays_what_it_was() -> None:
    gone = "__debezium_unavailable_value"
    unchanged = {"bio": gone, "photo": base64.b64encode(gone.encode()).decode(), "tags": [gone], "store": {gone: gone}}
    # What Debezium writes for an array of numbers, or of days, and for one of UUIDs (UUID.nameUUIDFromBytes in Java).
    unchanged |= {"scores": list(gone.encode()), "carts": ["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]}
    event = outcome(CRM, record(envelope("u", None, {**ROW, **unchanged, "said": f"it was {gone}", "list": [[]]})))
    assert isinstance(event, Event)
    assert event.traits == {"email": "Ada@Example.org", "plan": "free", "said": f"it was {gone}", "list": [[]]}


def test_what_is_no_change_that_counts_is_skipped() -> None:
    only_new = CRM.replace("changes: [insert, update, snapshot, delete]", "changes: [insert]")
    assert outcome(only_new, record(envelope("u", ROW, ROW))) == Skip("update")
    assert outcome(CRM, record(envelope("t", None, None))) == Skip("other_change")
    assert outcome(CRM, record(None)) == Skip("tombstone")


def test_a_record_of_any_form_is_mapped() -> None:
    value = {"id": 3, "customer": {"number": 41}, "at": 1_789_999_000, "total": 12.5}
    event = outcome(ORDERS, record(value, "/shop.orders"))
    assert isinstance(event, Event)
    assert (event.event, event.message_id, event.time) == ("Order Completed", "order-3", 1_789_999_000_000)
    assert event.identifiers == ["user_id:41"]
    assert event.properties == {"total": 12.5, "channel": "shop", "nested": {"id": 3}, "key": {"id": 7}}
    bare = outcome(ORDERS, record({"id": 3, "customer": {"number": 41}}, "/shop.orders", b"\xff"))
    assert isinstance(bare, Event) and bare.properties == {"channel": "shop", "nested": {"id": 3}}


@pytest.mark.parametrize(
    ("key", "read"),
    [
        (b"customer-7", "customer-7"),
        ("Zo\u00eb 7".encode(), "Zo\u00eb 7"),
        (b'"7"', "7"),
        (b"7", 7),
        (b"\xff7", None),
        (b"\x00\x00\x00\x00\x00\x00\x00\x07", None),
        (b"", None),
    ],
)
def test_a_key_that_is_no_json_is_a_text(key: bytes, read: Any) -> None:
    event = outcome(ORDERS, record({"id": 3, "customer": {"number": 41}}, "/shop.orders", key))
    assert isinstance(event, Event) and event.properties.get("key") == read


def test_fields_in_a_list_are_read() -> None:
    text = f"""{ORDERS}
  context:
    externalIds: [{{type: card, id: {{from: value.card}}}}, {{type: shop, id: {{text: 's-{{value.id}}'}}}}]
    words: [web, 7, {{from: value.id}}, {{from: value.nothing}}, [{{from: value.card}}]]
"""
    value = {"id": 3, "customer": {"number": 41}, "card": "7711"}
    event = outcome(text, record(value, "/shop.orders"))
    assert isinstance(event, Event) and set(event.identifiers) == {"user_id:41", "card:7711", "shop:s-3"}
    assert event.context["words"] == ["web", 7, 3, ["7711"]]
    without = outcome(text, record({**value, "card": None}, "/shop.orders"))
    assert isinstance(without, Event) and set(without.identifiers) == {"user_id:41", "shop:s-3"}
    assert not without.flags


def test_what_ingest_forgives_is_forgiven_before_a_mapping_too() -> None:
    value = {"id": 3, "customer": {"number": 41}, "total": "12 \ud83d"}
    event = outcome(ORDERS, record(b"\xef\xbb\xbf" + json.dumps(value).encode(), "/shop.orders"))
    assert isinstance(event, Event) and event.properties["total"] == "12 \ufffd"


BAD: list[tuple[str, Any, str]] = [
    (CRM, b"{not json", "not_json"),
    (CRM, {"id": 7}, "not_mapped"),
    (CRM, [1], "not_mapped"),
    (CRM, envelope("c", None, {"id": None}), "no_identifier"),
    (ORDERS, b"[" * 5_000, "not_json"),
    (ORDERS, {"customer": {"number": "null"}}, "only_junk_identifiers"),
]


@pytest.mark.parametrize(("text", "value", "reason"), BAD, ids=[reason for *_, reason in BAD])
def test_what_cannot_be_mapped_is_refused_with_its_reason(text: str, value: Any, reason: str) -> None:
    topic = TOPIC if text == CRM else "/shop.orders"
    refused = outcome(text, record(value, topic))
    assert isinstance(refused, Refusal) and refused.reason == reason and reason in REASONS


@pytest.mark.parametrize(
    ("value", "without", "kept"),
    [
        ({"id": 1, "a": {"b": 2, "c": 3}}, {"id", "a.b"}, {"a": {"c": 3}}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a.b.c"}, {"a": {"b": {"d": 2}}}),
        ({"a.b": 1, "a": {"b": 2}, "c": 3}, {"a.b"}, {"a": {}, "c": 3}),
        ([{"sku": "x", "cost": 1}, 5], {"cost"}, [{"sku": "x"}, 5]),
        ({"items": [{"sku": "x", "cost": 1}]}, {"items.cost"}, {"items": [{"sku": "x"}]}),
        ({"a": "text"}, {"a.b", "c.d"}, {"a": "text"}),
        ([[{"cost": 1}]], {"cost"}, [[{"cost": 1}]]),
    ],
)
def test_what_is_left_out_may_stand_deeper_and_in_lists(value: Any, without: set[str], kept: Any) -> None:
    assert From(("row",), None, frozenset(without)).of({"row": value}) == kept


def test_other_topics_are_left_as_they_are() -> None:
    event = outcome(CRM, record({"type": "page", "userId": "ada"}, "raw"))
    assert isinstance(event, Event) and event.origin == ""


def test_the_contract_of_the_source_is_met() -> None:
    [written] = load_text(
        "contract: crm\nsources: [crm]\non_violation: reject\nevents: {Identify: {traits: {required: [name]}}}"
    )
    contracts: ContractsPlan = compile_contracts({"crm": (1, written.body)})
    refused = outcome(CRM, record(envelope("c", None, ROW)), contracts=contracts)
    assert isinstance(refused, Refusal) and refused.pointer == "/traits/name"


CUSTOMER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "Customer",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "email", "type": ["null", "string"]},
            {"name": "since", "type": {"type": "int", "logicalType": "date"}},
            {"name": "changed", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "balance", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "photo", "type": "bytes"},
        ],
    }
)
AVRO = """
source: customers
topic: /customers
encoding: avro
event:
  type: identify
  userId: {from: value.id, as: text}
  timestamp: {from: value.changed}
  traits: {from: value, without: [id, changed]}
"""


def wire(schema_id: int, value: dict[str, Any]) -> bytes:
    """Confluent's wire format."""
    body = io.BytesIO()
    fastavro.schemaless_writer(body, CUSTOMER, value)
    return b"\x00" + schema_id.to_bytes(4, "big") + body.getvalue()


def customer() -> dict[str, Any]:
    return {
        "id": 7,
        "email": "ada@example.org",
        "since": datetime.date(2024, 2, 29),
        "changed": datetime.datetime.fromtimestamp((NOW_MS - 5_000) / 1_000, datetime.UTC),
        "balance": Decimal("12.50"),
        "photo": b"\x00\xff",
    }


def test_avro_is_read_by_the_schema_that_wrote_it() -> None:
    event = outcome(AVRO, record(wire(3, customer()), "/customers", None), {3: CUSTOMER})
    assert isinstance(event, Event)
    assert (event.identifiers, event.time) == (["user_id:7", "email:ada@example.org"], NOW_MS - 5_000)
    assert event.traits == {"email": "ada@example.org", "since": "2024-02-29", "balance": 12.5, "photo": "AP8="}


UTC = datetime.UTC
AT = datetime.datetime(2026, 3, 1, 12, 0, 0, 123_000, UTC)
AT_MS = 1_772_366_400_123
ID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "kind", "made"),
    [
        (AT, "time_ms", AT_MS),
        (AT, "time_us", AT_MS),
        (AT.replace(tzinfo=None), "time_ms", AT_MS),
        (datetime.date(2026, 3, 1), "days", AT_MS - 43_200_123),
        (AT_MS * 1_000_000 + 999_999, "time_ns", AT_MS),
        (AT_MS * 1_000 + 999, "time_us", AT_MS),
        (1_772_366_400.123, "time_s", AT_MS),
        (Decimal("1772366400.123"), "time_s", AT_MS),
        (20_513, "days", 20_513 * 86_400_000),
        ("1772366400", "time_s", AT_MS - 123),
        (" 1772366400.123", "time_s", AT_MS),
        (str(AT_MS * 1_000_000), "time_ns", AT_MS),
        ("2026-03-01T12:00:00Z", "time_s", "2026-03-01T12:00:00Z"),
        ("soon", "time_s", "soon"),
        (True, "time_ms", None),
        (float("nan"), "time_ms", None),
        (float("inf"), "time_s", None),
        (ID, "text", str(ID)),
        (Decimal("12.50"), "text", "12.50"),
        (Decimal("1E+3"), "text", "1000"),
        (AT, "text", "2026-03-01T12:00:00.123000+00:00"),
        (float("nan"), "text", None),
        (41, "text", "41"),
        (41.0, "text", "41"),
        (41.5, "text", "41.5"),
        (True, "text", "true"),
        ([1], "text", None),
    ],
)
def test_what_avro_has_and_json_has_not(value: Any, kind: Any, made: Any) -> None:
    """A field that is read as missing makes the event one of now, or of nobody."""
    found = Object((("a", From(("v",), kind)), ("b", Text(("x-", ("v",)))))).of({"v": value})
    assert found.get("a") == made
    if kind == "text":
        assert found.get("b") == (None if made is None else f"x-{made}")


def test_a_time_that_is_none_is_refused_and_no_event_of_now() -> None:
    value = {"id": 3, "customer": {"number": 41.0}, "at": "1789999000"}
    event = outcome(ORDERS, record(value, "/shop.orders"))
    assert isinstance(event, Event) and (event.time, event.identifiers) == (1_789_999_000_000, ["user_id:41"])
    refused = outcome(ORDERS, record({**value, "at": "soon"}, "/shop.orders"))
    assert isinstance(refused, Refusal) and (refused.reason, refused.pointer) == ("bad_timestamp", "/timestamp")


def test_times_in_nanoseconds_are_whole_milliseconds() -> None:
    rng = random.Random(1)
    for _ in range(2_000):
        ms = rng.randrange(1_500_000_000_000, 1_900_000_000_000)
        assert From(("v",), "time_ns").of({"v": ms * 1_000_000}) == ms


def test_a_uuid_names_a_person_and_an_instant_is_when_it_was() -> None:
    schema = fastavro.parse_schema(
        {
            "type": "record",
            "name": "Customer",
            "fields": [
                {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
                {"name": "changed", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            ],
        }
    )
    body = io.BytesIO()
    moment = datetime.datetime.fromtimestamp((NOW_MS - 5_000) / 1_000, UTC)
    fastavro.schemaless_writer(body, schema, {"id": ID, "changed": moment})
    text = AVRO.replace("{from: value.changed}", "{from: value.changed, as: time_us}")
    event = outcome(text, record(b"\x00\x00\x00\x00\x03" + body.getvalue(), "/customers", None), {3: schema})
    assert isinstance(event, Event)
    assert (event.identifiers, event.time) == ([f"user_id:{ID}"], NOW_MS - 5_000)


def test_the_key_beside_avro_may_be_a_bare_text() -> None:
    text = AVRO.replace("{from: value.id, as: text}", "{from: key, as: text}")
    assert text != AVRO
    for key, read in (
        (b"c-7", ["user_id:c-7"]),
        (wire(3, customer()), []),
        (wire(3, customer())[:-4], []),
        (wire(4, customer()), []),
    ):
        event = outcome(text, record(wire(3, customer()), "/customers", key), {3: CUSTOMER})
        assert isinstance(event, Event) and event.identifiers == [*read, "email:ada@example.org"]


def test_avro_that_cannot_be_read_is_refused() -> None:
    good = wire(3, customer())
    for data, reason in (
        (b'{"id": 7}', "not_avro"),
        (b"\x00\x00", "not_avro"),
        (good[:-4], "not_avro"),
        (good[:6] + b"\xff" * 20, "not_avro"),
        (wire(4, customer()), "unknown_schema"),
    ):
        refused = outcome(AVRO, record(data, "/customers", None), {3: CUSTOMER})
        assert isinstance(refused, Refusal) and refused.reason == reason in REASONS


WRONG = [
    ("userId: {from: id}", "no field"),
    ("userId: {from: row.id, as: number}", "`as` is one of"),
    ("userId: {from: row.id, as: []}", "`as` is one of"),
    ("userId: {from: row.id, default: 3}", "not with `default`"),
    ("userId: {text: 'x-{nothing}'}", "no field"),
    ("user: {from: row.id}", "no `user`"),
    ("traits: {from: row, without: id}", "list of names"),
    ("context: {externalIds: [{type: card, id: {from: card}}]}", "no field"),
]


@pytest.mark.parametrize(("line", "what"), WRONG)
def test_what_is_no_mapping_is_told(line: str, what: str) -> None:
    with pytest.raises(InvalidDefinitionsError, match=what):
        load_text(f"source: crm\ntopic: /x\nenvelope: debezium\nevent:\n  type: identify\n  {line}\n")


def test_what_is_no_field_of_a_plain_record_is_told() -> None:
    with pytest.raises(InvalidDefinitionsError, match=r"like value\.id"):
        load_text("source: crm\ntopic: /x\nevent: {type: identify, userId: {from: id}}\n")


def test_a_topic_has_one_source() -> None:
    [written] = load_text(CRM)
    with pytest.raises(DefinitionError, match="both map the topic"):
        compile_sources({"crm": written.body, "b": {**written.body, "source": "b"}})


def test_the_registrys_client_is_asked_once_for_each_schema() -> None:
    from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

    from pipeline.wire.registry import Schemas

    client = SchemaRegistryClient.new_client({"url": "mock://registry"})
    plain = {key: value for key, value in json.loads(json.dumps(CUSTOMER)).items() if not key.startswith("__")}
    known = client.register_schema("customers-value", Schema(json.dumps(plain), "AVRO"))
    schemas = Schemas({}, client)
    assert schemas(known) is schemas(known) and schemas(known)["name"] == "Customer"
    assert schemas(known + 50) is None
