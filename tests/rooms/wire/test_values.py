"""The format of a workspace at the edge to Kafka: what is written, what is read, and what a registry may do to it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import avro
from pipeline.errors import InputError, SettingsError
from pipeline.records import Marker, SegmentMember, encode
from pipeline.runtime.ports import Record
from pipeline.settings import Settings, load
from pipeline.wire import JSON, Values, values_of
from pipeline.wire.registry import RegistryError, Schemas
from tests.registry import USER, Registry, running_registry

MEMBER = encode(SegmentMember("lapsed", "p1", "person", 1, 1_790_000_000_000, 4))
MARKER = encode(Marker(7, 1_790_000_000_000))


@pytest.fixture
def registry() -> Iterator[Registry]:
    with running_registry() as found:
        yield found


def values(registry: Registry, **given: Any) -> Values:
    return Values(lambda topic: f"shop.{topic}", {"url": registry.url}, writes_avro=True, **given)


def record(topic: str, value: bytes | None) -> Record:
    return Record(topic, 0, 0, b"k", value)


def test_what_is_written_has_the_head_and_comes_back(registry: Registry) -> None:
    written = values(registry).written("segment-members", MEMBER)
    assert written is not None and written[0] == 0
    [subject] = registry.subjects
    assert subject == "shop.segment-members-value"
    assert int.from_bytes(written[1:5], "big") == registry.subjects[subject][0]
    assert json.loads(registry.texts[1]) == avro.schema_of("segment-members")
    # Another process, which has written nothing and knows the registry only.
    reader = Values(registry={"url": registry.url})
    assert reader.opened([record("segment-members", written)]) == [record("segment-members", MEMBER)]


def test_both_formats_may_stand_in_one_topic(registry: Registry) -> None:
    codec = values(registry)
    written = codec.written("events", MARKER)
    sealed = b"\x01" + bytes(range(60))
    read = codec.opened(
        [record("events", v) for v in (MARKER, written, sealed, codec.written("events", sealed), None, b"")]
    )
    assert [each.value for each in read] == [MARKER, MARKER, sealed, sealed, None, b""]


def test_topics_without_records_stay_as_they_are(registry: Registry) -> None:
    codec = values(registry)
    for topic in ("raw", "/somebody.elses", "unify-changelog", "identity-changelog", "keys"):
        for value in (b'{"type":"page"}', b"\x00" * 20):
            assert codec.written(topic, value) == value
            assert codec.opened([record(topic, value)]) == [record(topic, value)]
    assert not registry.asked


def test_a_tombstone_stays_one(registry: Registry) -> None:
    assert values(registry).written("profiles", None) is None


def test_json_is_written_where_nothing_is_said(registry: Registry) -> None:
    assert JSON.written("events", MARKER) == MARKER
    written = values(registry).written("events", MARKER)
    with pytest.raises(SettingsError, match="no schema registry is set"):
        JSON.opened([record("events", written)])


def test_each_schema_is_asked_for_once(registry: Registry) -> None:
    codec = values(registry)
    written = [codec.written("events", MARKER) for _ in range(50)]
    reader = Values(registry={"url": registry.url})
    for each in written:
        reader.opened([record("events", each)])
    assert registry.asked == ["POST /subjects/shop.events-value/versions", "GET /schemas/ids/1"]


def test_what_is_known_of_a_registry_is_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.wire.registry._MOST_KNOWN", 10)
    schemas = Schemas({"url": registry.url})
    for number in range(2, 40):
        assert schemas(number) is None
    assert len(schemas._known) + len(schemas._missing) == 10


def test_destinations_have_subjects_of_their_own(registry: Registry) -> None:
    codec = values(registry)
    assert codec.register(["deliveries.crm", "deliveries.mail", "raw", "keys"]) == [
        "shop.deliveries.crm-value",
        "shop.deliveries.mail-value",
    ]
    assert registry.subjects == {"shop.deliveries.crm-value": [1], "shop.deliveries.mail-value": [1]}


def test_a_schema_that_does_not_go_with_the_former_is_refused(registry: Registry) -> None:
    former = avro.schema_of("segment-members")
    former["fields"][4]["type"] = "string"
    registry.answer("POST", "/subjects/shop.segment-members-value/versions", {"schema": json.dumps(former)}, "")
    with pytest.raises(RegistryError, match="does not go with the former ones") as refused:
        values(registry).written("segment-members", MEMBER)
    assert "shop.segment-members-value" in refused.value.where


def test_whoever_may_not_register_needs_what_is_registered(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="does not know the schema of this release") as refused:
        values(registry, registers=False).written("events", MARKER)
    assert "topics --create" in refused.value.what_to_do
    assert not registry.subjects
    values(registry).register(["events"])
    assert values(registry, registers=False).written("events", MARKER) == values(registry).written("events", MARKER)


def test_a_registry_that_is_away_is_waited_for_and_then_told() -> None:
    gone = Schemas({"url": "http://127.0.0.1:9"}, give_up_s=0.01)
    with pytest.raises(RegistryError, match="does not answer") as told:
        gone.register("shop.events-value", "{}")
    assert "doctor" in told.value.what_to_do


def test_a_registry_that_fails_for_a_moment_is_asked_again(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.fails = 503
    monkeypatch.setattr("pipeline.wire.registry.time.sleep", lambda _: setattr(registry, "fails", 0))
    assert values(registry).written("events", MARKER) is not None
    assert len(registry.asked) == 2


def test_credentials_are_given_and_their_lack_is_told(registry: Registry) -> None:
    registry.needs_user = True
    with pytest.raises(RegistryError, match="refuses us: 401") as refused:
        values(registry).written("events", MARKER)
    assert "basic.auth.user.info" in refused.value.what_to_do
    known = Values(registry={"url": registry.url, "basic.auth.user.info": USER}, writes_avro=True)
    assert known.written("events", MARKER)


def test_a_registry_that_has_lost_a_schema_stops_the_reader(registry: Registry) -> None:
    written = values(registry).written("events", MARKER)
    registry.texts.clear()
    with pytest.raises(RegistryError, match="no Avro schema 1"):
        Values(registry={"url": registry.url}).opened([record("events", written)])


def test_a_damaged_value_is_given_as_it_is(registry: Registry) -> None:
    written = values(registry).written("events", MARKER)
    assert written is not None
    for damaged in (written[:8], b"\x00\x00", written[:5] + b"\x63" + written[6:]):
        [read] = values(registry).opened([record("events", damaged)])
        assert read.value == damaged, "the stage refuses it, as it refuses what is no JSON"


def test_what_is_no_record_of_the_topic_is_not_written(registry: Registry) -> None:
    with pytest.raises(InputError, match="cannot be written in Avro"):
        values(registry).written("deliveries.crm", b"not json")


def test_an_url_that_is_none_is_told() -> None:
    with pytest.raises(SettingsError, match="client cannot be made"):
        Schemas({"url": "registry:8081"})(1)
    with pytest.raises(SettingsError, match="client cannot be made"):
        Schemas({"url": "http://127.0.0.1:9", "no.such.property": 1})(1)


def test_settings_say_the_format(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "headwater.yaml"
    file.write_text("format: avro\nprefix: shop.\n")
    with pytest.raises(SettingsError, match="needs a schema registry"):
        load(file)
    file.write_text(f"format: avro\nprefix: shop.\nschema_registry: {{url: '{registry.url}'}}\n")
    # The password from the environment does not take the address away.
    monkeypatch.setenv("HEADWATER_SCHEMA_REGISTRY__BASIC_AUTH_USER_INFO", USER)
    registry.needs_user = True
    settings = load(file)
    assert values_of(settings) is values_of(load(file)), "one for all clients of a process"
    assert values_of(settings).written("events", MARKER) != MARKER
    assert values_of(Settings(prefix="shop.")).written("events", MARKER) == MARKER
    assert list(registry.subjects) == ["shop.events-value"]
