"""Ingest: one line per raw record and what becomes of it; any bytes at all have exactly one outcome."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.identifiers import Keys
from pipeline.identity import BUILT_IN, IdentityRules, Namespace, builtin_rules
from pipeline.ingest import (
    FLAGS,
    MAX_DEPTH,
    MAX_IDENTIFIERS,
    MAX_RAW_BYTES,
    REASONS,
    Emit,
    IngestStage,
    Refusal,
    caught_up_due,
    ingest,
)
from pipeline.records import CaughtUp, DeadLetter, Event, decode_events_record
from pipeline.runtime.ports import Record

RULES = builtin_rules(default_region="DE")
KEYS = Keys(b"secret")
HOUR_MS = 3_600_000
NOW_MS = 1_740_830_400_000  # 2025-03-01T12:00:00Z
DROP = object()


def raw_record(value: Any, record_ms: int = 0, partition: int = 3) -> Record:
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record("raw", partition, 42, b"key", data, record_ms)


def track(**changes: Any) -> dict[str, Any]:
    event = {"type": "track", "event": "Order Completed", "userId": "ann", "messageId": "m1", **changes}
    return {name: value for name, value in event.items() if value is not DROP}


def emitted(value: Any, record_ms: int = 0, rules: IdentityRules = RULES) -> Event:
    outcome = ingest(raw_record(value, record_ms), NOW_MS, rules)
    assert isinstance(outcome, Emit), outcome
    decoded = decode_events_record(outcome.value)
    assert decoded == outcome.event
    return outcome.event


def refused(value: Any) -> Refusal:
    outcome = ingest(raw_record(value), NOW_MS, RULES)
    assert isinstance(outcome, Refusal), outcome
    assert outcome.reason in REASONS
    assert outcome.detail.endswith(".")
    return outcome


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


class Sent:
    """Outputs that keep what was sent."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | None, bytes, int | None]] = []

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        self.records.append((topic, key, value, partition))

    def upsert(self, topic: str, key: bytes, value: bytes | None) -> None:
        raise AssertionError("ingest writes no compacted topic")


class NoState:
    """Ingest keeps none: touching it is an AttributeError."""


def stage(**changes: Any) -> IngestStage:
    settings: dict[str, Any] = {"keys": KEYS, "rules": lambda: RULES, "now_ms": lambda: NOW_MS, "partitions": 4}
    return IngestStage(**(settings | changes))


# ------------------------------------------------------------------------------------------------------ what is refused

REFUSED = [
    (None, "tombstone", ""),
    (b"", "empty", ""),
    (b" \r\n", "empty", ""),
    (b"\xff\xfe{\x00}\x00", "not_utf8", ""),
    (b'{"type": "\xff"}', "not_utf8", ""),
    (b"{", "not_json", ""),
    (b"{'type': 'track'}", "not_json", ""),
    (b'{"a": "\\ud800"}', "not_json", ""),
    (b"[]", "not_object", ""),
    (b'[{"type": "track"}]', "not_object", ""),
    (b"null", "not_object", ""),
    (b'"text"', "not_object", ""),
    (b"7", "not_object", ""),
    (track(type=DROP), "unknown_type", "/type"),
    (track(type="Track"), "unknown_type", "/type"),
    (track(type="purchase"), "unknown_type", "/type"),
    (track(type=7), "wrong_type", "/type"),
    (track(event=DROP), "missing_event", "/event"),
    (track(event="  "), "missing_event", "/event"),
    (track(event=7), "wrong_type", "/event"),
    (track(event="x" * 513), "too_long", "/event"),
    (track(messageId="x" * 513), "too_long", "/messageId"),
    (track(messageId={"a": 1}), "wrong_type", "/messageId"),
    (track(userId=["ann"]), "wrong_type", "/userId"),
    (track(userId=True), "wrong_type", "/userId"),
    (track(properties="text"), "wrong_type", "/properties"),
    (track(properties=[1]), "wrong_type", "/properties"),
    (track(traits=7), "wrong_type", "/traits"),
    (track(context={"traits": "text"}), "wrong_type", "/context/traits"),
    (track(identifiers=["ann"]), "wrong_type", "/identifiers"),
    (track(identifiers={"card": {"a": 1}}), "wrong_type", "/identifiers"),
    (track(identifiers={"card": list(range(1, 40))}), "too_many_identifiers", "/identifiers"),
    (track(userId=DROP), "no_identifier", ""),
    (track(userId=None), "no_identifier", ""),
    (track(timestamp="yesterday"), "bad_timestamp", "/timestamp"),
    (track(timestamp=""), "bad_timestamp", "/timestamp"),
    (track(timestamp="2025-02-30T00:00:00Z"), "bad_timestamp", "/timestamp"),
    (track(timestamp=1_740_830_400), "bad_timestamp", "/timestamp"),
    (track(timestamp="1740830400"), "bad_timestamp", "/timestamp"),
    (track(timestamp=-5), "bad_timestamp", "/timestamp"),
    (track(timestamp=1e300), "bad_timestamp", "/timestamp"),
    (track(timestamp="1960-01-01T00:00:00Z"), "bad_timestamp", "/timestamp"),
    (track(timestamp=True), "wrong_type", "/timestamp"),
    (track(originalTimestamp="never"), "bad_timestamp", "/originalTimestamp"),
    (track(properties={"n": 2**63}), "number_out_of_range", "/properties/n"),
    (track(properties={"a/b": [{"n": -(2**63) - 1}]}), "number_out_of_range", "/properties/a~1b/0/n"),
    (track(context={"traits": {"n": 10**30}}), "number_out_of_range", "/context/traits/n"),
    (b'{"type":"track","properties":{"n":' + b"9" * 5000 + b"}}", "number_out_of_range", "/properties"),
    (b'{"type":"track","properties":{"n":1e999}}', "number_out_of_range", "/properties"),
    (b'{"type":"track","properties":{"n":NaN}}', "not_json", ""),
    (b'{"type":"track","properties":{"n":-Infinity}}', "not_json", ""),
    ({"type": "group", "userId": "ann"}, "missing_group", "/groupId"),
    ({"type": "group", "userId": "ann", "groupId": "null"}, "missing_group", "/groupId"),
    ({"type": "alias", "userId": "ann"}, "missing_previous", "/previousId"),
    ({"type": "alias", "previousId": "a1"}, "missing_previous", "/userId"),
    ({"type": "alias", "userId": "ann", "previousId": "undefined"}, "missing_previous", "/previousId"),
]


@pytest.mark.parametrize(("value", "reason", "pointer"), REFUSED)
def test_refused(value: Any, reason: str, pointer: str) -> None:
    refusal = refused(value)
    assert (refusal.reason, refusal.pointer) == (reason, pointer), refusal


def test_a_refusal_is_a_sentence_a_person_understands() -> None:
    assert refused(track(userId=True)).detail == "userId must be number or text, not true/false."
    assert refused(track(type="buy")).detail.startswith("'buy' is not a type; the types are track, identify, page")
    assert refused(track(properties=7)).detail == "properties must be object, not number."
    assert "NaN and Infinity are no JSON" in refused(b'{"properties":{"n":NaN}}').detail
    assert "seconds" in refused(track(timestamp=1_740_830_400)).detail


# ---------------------------------------------------------------------------------------------------- who: identifiers

WHO = [
    (track(), ["user_id:ann"]),
    (track(userId=7), ["user_id:7"]),
    (track(userId=7.0), ["user_id:7"]),
    (track(userId=12345678901234567890123), ["user_id:12345678901234567890123"]),
    (track(anonymousId="a1"), ["user_id:ann", "anonymous_id:a1"]),
    (track(anonymousId="a1", userId=DROP), ["anonymous_id:a1"]),
    (track(anonymousId="a1", context={"device": {"id": "d1"}}), ["user_id:ann", "device_id:d1", "anonymous_id:a1"]),
    (track(context={"device": "phone"}), ["user_id:ann"]),
    (
        track(traits={"email": "Ann@X.io", "phone": "0151 12345678"}),
        ["user_id:ann", "email:ann@x.io", "phone:+4915112345678"],
    ),
    (track(context={"traits": {"email": "Ann@X.io"}}), ["user_id:ann", "email:ann@x.io"]),
    (track(properties={"email": "bob@x.io"}), ["user_id:ann"]),
    (
        track(identifiers={"card": ["c1", "c1", 2], "email": "A@x.io", "none": None}),
        ["user_id:ann", "email:a@x.io", "card:*", "card:*"],
    ),
    (track(identifiers={"user_id": "ann"}), ["user_id:ann"]),
    (track(identifiers=[]), ["user_id:ann"]),
    (track(type="alias", previousId="a1"), ["user_id:ann", "anonymous_id:a1"]),
    (track(previousId="a1"), ["user_id:ann"]),
    # an account's address is nobody's own
    (track(type="group", groupId="g1", traits={"email": "office@x.io"}), ["user_id:ann"]),
    (track(type="group", groupId="g1", context={"traits": {"email": "a@x.io"}}), ["user_id:ann", "email:a@x.io"]),
]


@pytest.mark.parametrize(("value", "identifiers"), WHO)
def test_identifiers_strongest_first(value: Any, identifiers: list[str]) -> None:
    event = emitted(value)
    shown = ["card:*" if one.startswith("card:") else one for one in event.identifiers]
    assert shown == identifiers
    assert event.flags == []


def test_the_route_is_the_strongest_identifier_and_the_key_its_actor() -> None:
    out = Sent()
    stage().step(raw_record(track(anonymousId="a1")), NoState(), out)  # type: ignore[arg-type]
    [(topic, key, value, partition)] = out.records
    assert (topic, key, partition) == ("events", KEYS.actor("user_id:ann"), None)
    assert decode_events_record(value) == emitted(track(anonymousId="a1"))


def test_rules_decide_the_route() -> None:
    card = Namespace("card", 1, unique=True, normaliser="digits")
    rules = IdentityRules({one.name: one for one in (*BUILT_IN, card)})
    event = emitted(track(identifiers={"card": "no. 77"}), rules=rules)
    assert event.identifiers == ["card:77", "user_id:ann"]


def test_case_01_junk_identifiers_are_dropped_and_the_event_says_so() -> None:
    event = emitted(track(anonymousId="undefined", context={"device": {"id": "00000000-0000-0000-0000-000000000000"}}))
    assert event.identifiers == ["user_id:ann"]
    assert event.flags == ["junk_identifier:anonymous_id", "junk_identifier:device_id"]


@pytest.mark.parametrize(
    "junk", ["null", "'undefined'", "[object Object]", "00000000-0000-0000-0000-000000000000", 0, ""]
)
def test_case_17_an_event_with_only_blocked_identifiers_is_a_dead_letter(junk: Any) -> None:
    refusal = refused(track(userId=junk, traits={"email": "not an address"}))
    assert refusal.reason == "only_junk_identifiers"
    assert "user_id" in refusal.detail
    assert "not an e-mail address" in refusal.detail


def test_case_11_the_same_person_however_the_address_is_written() -> None:
    spellings = [" Ann@X.io", "ann@x.IO", "ANN@X.IO "]
    found = {tuple(emitted(track(userId=DROP, traits={"email": one})).identifiers) for one in spellings}
    assert found == {("email:ann@x.io",)}


def test_case_18_the_same_value_in_two_namespaces() -> None:
    assert emitted(track(userId="7", anonymousId="7")).identifiers == ["user_id:7", "anonymous_id:7"]


# ------------------------------------------------------------------------------------------------ what: the six calls


def test_the_names_rules_refer_to() -> None:
    calls: list[tuple[dict[str, Any], str]] = [
        ({"type": "track", "event": "Order Completed"}, "Order Completed"),
        ({"type": "identify"}, "Identify"),
        ({"type": "page", "name": "Home", "category": "Shop"}, "Page Viewed"),
        ({"type": "screen", "name": "Home"}, "Screen Viewed"),
        ({"type": "group", "groupId": "g1"}, "Group"),
        ({"type": "alias", "previousId": "a1"}, "Alias"),
    ]
    for call, name in calls:
        event = emitted({"userId": "ann", **call})
        assert (event.type, event.event) == (call["type"], name)
    assert emitted({"userId": "ann", "type": "page", "name": "Home", "category": "Shop"}).properties == {
        "name": "Home",
        "category": "Shop",
    }
    page = {"userId": "ann", "type": "page", "name": "Home", "properties": {"name": "Start"}}
    assert emitted(page).properties == {"name": "Start"}


def test_traits_come_from_both_places_and_the_nearer_wins() -> None:
    both = {"context": {"traits": {"plan": "free", "city": "Ulm"}, "ip": "10.0.0.1"}, "traits": {"plan": "pro"}}
    event = emitted({"type": "identify", "userId": "ann", **both})
    assert event.traits == {"plan": "pro", "city": "Ulm"}
    assert event.context == {"ip": "10.0.0.1"}
    assert emitted(track(context={"traits": {"city": "Ulm"}})).traits == {"city": "Ulm"}


def test_the_traits_of_a_group_describe_the_account() -> None:
    event = emitted(track(type="group", groupId=12, traits={"plan": "team"}, context={"traits": {"city": "Ulm"}}))
    assert (event.group_id, event.properties, event.traits) == ("12", {"plan": "team"}, {"city": "Ulm"})


def test_the_account_of_any_call() -> None:
    assert emitted(track(context={"groupId": "g1"})).group_id == "g1"
    event = emitted(track(groupId="null"))
    assert (event.group_id, event.flags) == (None, ["junk_group"])


def test_message_ids() -> None:
    assert emitted(track()).message_id == "m1"
    assert emitted(track(messageId=7)).message_id == "7"
    assert emitted(track(messageId=DROP)).message_id == "raw/3/42"
    for junk in ("undefined", "", "00000000-0000-0000-0000-000000000000"):
        event = emitted(track(messageId=junk))
        assert (event.message_id, event.flags) == ("raw/3/42", ["junk_message_id"])
    assert emitted(track()).source == "raw/3/42"


def test_case_38_a_property_stays_what_it_is() -> None:
    given_properties = {"a": "3", "b": 3, "c": 3.0, "d": None, "e": True, "f": [1, "1"], "g": {"h": ""}}
    event = emitted(track(properties=given_properties))
    assert event.properties == given_properties
    assert [type(value) for value in event.properties.values()] == [type(value) for value in given_properties.values()]


def test_lenient_where_producers_are_known_to_stray() -> None:
    assert emitted(track(properties=[], context=[], traits=[])).properties == {}
    assert emitted(b"\xef\xbb\xbf" + json.dumps(track()).encode()) == emitted(track())
    twice = b'{"type":"track","event":"A","event":"B","userId":"ann","properties":{"n":1,"n":2}}'
    assert (emitted(twice).event, emitted(twice).properties) == ("B", {"n": 2})
    assert emitted(track(integrations={"All": True}, channel="web")).event == "Order Completed"


# ---------------------------------------------------------------------------------------------------------- when: time

AT = "2025-03-01T11:00:00Z"
AT_MS = NOW_MS - HOUR_MS
FUTURE = ["future_timestamp"]

# changes, the raw record's timestamp, time, received, flags
WHEN: list[tuple[dict[str, Any], int, int, int, list[str]]] = [
    ({}, 0, NOW_MS, NOW_MS, []),
    ({"timestamp": AT}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": "2025-03-01T11:00:00"}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": "2025-03-01 12:00:00+01:00"}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": "2025-03-01t11:00:00z"}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": "20250301T110000Z"}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": "2025-03-01T11:00:00.123456789Z"}, 0, AT_MS + 123, NOW_MS, []),
    ({"timestamp": "2025-03-01"}, 0, NOW_MS - 12 * HOUR_MS, NOW_MS, []),
    ({"timestamp": AT_MS}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": float(AT_MS)}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": str(AT_MS)}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": None, "originalTimestamp": AT}, 0, AT_MS, NOW_MS, []),
    ({"timestamp": 0}, 0, 0, NOW_MS, []),
    # received travels with the event, if it is a time and not in the future
    ({"receivedAt": AT}, 0, AT_MS, AT_MS, []),
    ({"receivedAt": NOW_MS + 1}, 0, NOW_MS, NOW_MS, []),
    ({"receivedAt": "soon"}, 0, NOW_MS, NOW_MS, ["bad_received_at"]),
    ({"timestamp": AT, "receivedAt": "2025-03-01T11:30:00Z"}, 0, AT_MS, AT_MS + HOUR_MS // 2, []),
    # the raw record's own timestamp is no receivedAt
    ({"timestamp": AT}, AT_MS, AT_MS, NOW_MS, []),
    ({}, AT_MS, NOW_MS, NOW_MS, []),
    ({"sentAt": "whenever", "timestamp": AT}, 0, AT_MS, NOW_MS, ["bad_sent_at"]),
    # an event that waited an hour in the topic was not late: the clock is compared at its arrival
    ({"timestamp": AT_MS - 60_000, "sentAt": AT}, AT_MS, AT_MS - 60_000, NOW_MS, []),
    # history has a sentAt too, but no receivedAt: nobody's clock is days wrong in all events
    (
        {"timestamp": "2024-01-01T00:00:00Z", "sentAt": "2024-01-01T00:00:01Z"},
        0,
        1_704_067_200_000,
        NOW_MS,
        ["clock_not_corrected"],
    ),
]

CASE_25: list[tuple[dict[str, Any], int, int, int, list[str]]] = [
    # a future date without anything to correct it by: it counts from when it was received
    ({"timestamp": "2031-01-01T00:00:00Z"}, 0, NOW_MS, NOW_MS, FUTURE),
    ({"timestamp": NOW_MS + 1}, 0, NOW_MS, NOW_MS, FUTURE),
    ({"timestamp": "2031-01-01T00:00:00Z", "receivedAt": AT}, 0, AT_MS, AT_MS, FUTURE),
    # a clock an hour fast, an hour slow: sentAt says by how much
    ({"timestamp": NOW_MS + HOUR_MS - 5_000, "sentAt": NOW_MS + HOUR_MS}, 0, NOW_MS - 5_000, NOW_MS, []),
    ({"timestamp": NOW_MS - HOUR_MS - 5_000, "sentAt": NOW_MS - HOUR_MS}, 0, NOW_MS - 5_000, NOW_MS, []),
    # years wrong, and a collector vouches for it
    (
        {"timestamp": "1999-01-01T00:00:00Z", "sentAt": "1999-01-01T00:00:05Z", "receivedAt": AT},
        0,
        AT_MS - 5_000,
        AT_MS,
        [],
    ),
    # sent before it happened
    ({"timestamp": NOW_MS + 10, "sentAt": NOW_MS}, 0, NOW_MS, NOW_MS, FUTURE),
]


@pytest.mark.parametrize(("changes", "record_ms", "time", "received", "flags"), WHEN)
def test_time(changes: dict[str, Any], record_ms: int, time: int, received: int, flags: list[str]) -> None:
    event = emitted(track(**changes), record_ms)
    assert (event.time, event.received, event.flags) == (time, received, flags)


@pytest.mark.parametrize(("changes", "record_ms", "time", "received", "flags"), CASE_25)
def test_case_25_future_dates_and_wrong_clocks(
    changes: dict[str, Any], record_ms: int, time: int, received: int, flags: list[str]
) -> None:
    test_time(changes, record_ms, time, received, flags)


def test_case_41_two_events_with_the_same_timestamp_keep_it() -> None:
    first = emitted(track(timestamp=AT, traits={"plan": "a"}))
    second = emitted(track(timestamp=AT, traits={"plan": "b"}, messageId="m2"))
    assert first.time == second.time == AT_MS


def test_a_correction_cannot_lead_before_1970() -> None:
    far = {"timestamp": "1970-01-01T00:00:00Z", "sentAt": "9999-01-01T00:00:00Z", "receivedAt": AT}
    assert refused(track(**far)).reason == "bad_timestamp"


# -------------------------------------------------------------------------------------------------------------- bounds


def test_case_56_a_megabyte() -> None:
    value = json.dumps(track(properties={"x": "y" * 1_048_576})).encode()
    assert refused(value).reason == "too_large"
    out = Sent()
    stage().step(raw_record(value), NoState(), out)  # type: ignore[arg-type]
    [(topic, _, sent, _)] = out.records
    letter = msgspec.json.decode(sent, type=DeadLetter)
    assert topic == "dead-letters"
    assert letter.value is not None and value.startswith(letter.value)
    assert "first 700,000 bytes" in letter.detail
    assert len(sent) < 1_000_000


def test_case_56_the_largest_that_is_taken() -> None:
    empty = len(json.dumps(track(properties={"x": ""})).encode())
    assert emitted(track(properties={"x": "y" * (MAX_RAW_BYTES - empty)}))
    assert refused(track(properties={"x": "y" * (MAX_RAW_BYTES - empty + 1)})).reason == "too_large"


def test_case_56_numbers_that_grow_when_written_out() -> None:
    value = b'{"type":"track","event":"A","userId":"ann","properties":{"n":[' + b"1e15," * 52_000 + b"1]}}"
    assert len(value) < MAX_RAW_BYTES
    assert refused(value).reason == "too_large"


def test_case_56_no_bytes_and_no_utf8() -> None:
    assert refused(b"").reason == "empty"
    assert refused(b"\x00\x9f\x92\x96").reason == "not_utf8"


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 100, 900, 1_000, 100_000])
def test_case_56_nested_a_thousand_deep(levels: int) -> None:
    deep = b'{"a":' * levels + b"1" + b"}" * levels
    value = b'{"type":"track","event":"A","userId":"ann","properties":' + deep + b"}"
    assert refused(value).reason in ("too_deep", "too_large")
    assert refused(b"[" * levels).reason in ("too_deep", "not_json")


def test_case_56_nested_as_deep_as_allowed() -> None:
    assert emitted(track(properties=nested(MAX_DEPTH))).properties == nested(MAX_DEPTH)
    assert refused(track(properties=nested(MAX_DEPTH + 1))).reason == "too_deep"
    assert emitted(track(properties={"flat": [{"a": 1}] * 500}))


def test_a_row_of_digits_in_a_text_is_no_number() -> None:
    assert emitted(track(properties={"id": "9" * 40, "n": 2**63 - 1, "m": -(2**63)}))


def test_as_many_identifiers_as_allowed() -> None:
    cards = [f"c{number}" for number in range(MAX_IDENTIFIERS - 1)]
    assert len(emitted(track(identifiers={"card": cards})).identifiers) == MAX_IDENTIFIERS
    assert refused(track(identifiers={"card": [*cards, "one more"]})).reason == "too_many_identifiers"


# ----------------------------------------------------------------------------------------------------------- the stage


def test_a_dead_letter_has_the_original_bytes_and_where_they_came_from() -> None:
    out = Sent()
    counted: list[tuple[str, str]] = []
    one = stage(counted=lambda outcome, reason: counted.append((outcome, reason)))
    one.step(raw_record(b"\xff{", partition=9), NoState(), out)  # type: ignore[arg-type]
    [(topic, key, value, partition)] = out.records
    letter = msgspec.json.decode(value, type=DeadLetter)
    assert (topic, key, partition) == ("dead-letters", b"key", 1)
    assert (letter.value, letter.key, letter.stage, letter.at) == (b"\xff{", b"key", "ingest", NOW_MS)
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == ("raw", 9, 42, "not_utf8")
    assert base64.b64encode(b"\xff{") in value
    assert counted == [("refused", "not_utf8")]


def test_junk_is_counted() -> None:
    counted: list[tuple[str, str]] = []
    one = stage(counted=lambda outcome, reason: counted.append((outcome, reason)))
    one.step(raw_record(track(anonymousId="null")), NoState(), Sent())  # type: ignore[arg-type]
    assert counted == [("emitted", ""), ("flagged", "junk_identifier")]


def test_new_rules_hold_from_the_next_batch_on() -> None:
    blocking = Namespace("user_id", 10, unique=True, blocked=("^ann$",))
    in_force = [RULES]
    one, out = stage(rules=lambda: in_force[0]), Sent()
    one.step(raw_record(track()), NoState(), out)  # type: ignore[arg-type]
    in_force[0] = IdentityRules({**{each.name: each for each in BUILT_IN}, "user_id": blocking})
    one.step(raw_record(track()), NoState(), out)  # type: ignore[arg-type]
    one.finish(NoState(), out)  # type: ignore[arg-type]
    one.step(raw_record(track()), NoState(), out)  # type: ignore[arg-type]
    assert [topic for topic, *_ in out.records] == ["events", "events", "dead-letters"]


class Asked:
    """A stage that is woken, and the door that answers it."""

    def __init__(self) -> None:
        self.at_end = True
        self.times = 0
        self.out = Sent()
        self.stage = stage(sources_at_end=self._answer)

    def _answer(self) -> bool:
        self.times += 1
        return self.at_end

    def wake(self, later_ms: int) -> list[int]:
        """What is said, as times after NOW_MS: one for each record."""
        before = len(self.out.records)
        self.stage.wake(NoState(), self.out, NOW_MS + later_ms)  # type: ignore[arg-type]
        said = [decode_events_record(value) for _, _, value, _ in self.out.records[before:]]
        assert all(isinstance(one, CaughtUp) for one in said)
        return [one.received - NOW_MS for one in said]


def test_caught_up_is_written_into_every_partition_once_a_second_while_at_the_end() -> None:
    asked = Asked()
    assert asked.wake(0) == []  # nothing was asked before, so nothing is known of any time
    assert asked.wake(999) == []
    assert asked.wake(1_000) == [0, 0, 0, 0]
    assert asked.wake(1_500) == []
    assert asked.wake(2_100) == [1_000] * 4
    assert asked.times == 3
    assert {(topic, key) for topic, key, _, _ in asked.out.records} == {("events", None)}
    assert [partition for *_, partition in asked.out.records[:4]] == [0, 1, 2, 3]


def test_caught_up_is_silent_while_behind_and_the_door_is_not_asked_at_every_batch() -> None:
    asked = Asked()
    asked.at_end = False
    assert [asked.wake(later) for later in range(0, 1_000, 10)] == [[]] * 100
    assert asked.times == 4
    asked.at_end = True
    assert asked.wake(1_000) == [750] * 4


def test_caught_up_is_said_again_after_an_abort() -> None:
    asked = Asked()
    asked.wake(0)
    assert asked.wake(1_000) == [0] * 4
    asked.stage.forget()
    assert asked.wake(1_249) == []
    assert asked.wake(1_250) == [1_000] * 4


def test_a_clock_set_back_neither_silences_caught_up_nor_lets_it_promise_the_future() -> None:
    asked = Asked()
    asked.wake(0)
    assert asked.wake(-HOUR_MS) == [-HOUR_MS] * 4
    assert caught_up_due(NOW_MS, True, NOW_MS - 1)


# ---------------------------------------------------------------------------------------------------------------- fuzz

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.sampled_from(["null", "2025-03-01T00:00:00Z", "a@x.io", "track", "0", 1_740_830_400_000, 10**5000 % 10**40]),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
)
fields = [
    "type", "event", "messageId", "userId", "anonymousId", "previousId", "groupId", "identifiers", "timestamp", "name",
    "originalTimestamp", "sentAt", "receivedAt", "properties", "traits", "context", "category", "other",
]  # fmt: skip
plausible = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "identify", "page", "group", "alias", "nothing"]), "event": st.text(max_size=5)},
    optional={
        "userId": scalars,
        "anonymousId": scalars,
        "previousId": scalars,
        "groupId": scalars,
        "timestamp": st.one_of(scalars, st.datetimes().map(str), st.integers(0, 2 * NOW_MS)),
        "sentAt": st.one_of(scalars, st.datetimes().map(str)),
        "receivedAt": st.one_of(scalars, st.datetimes().map(str)),
        "identifiers": st.one_of(anything, st.dictionaries(st.text(max_size=5), scalars, max_size=3)),
        "context": st.one_of(anything, st.fixed_dictionaries({"device": anything, "traits": anything})),
        "properties": anything,
        "traits": st.one_of(anything, st.fixed_dictionaries({"email": scalars, "phone": scalars})),
    },
)


def has_one_outcome(data: bytes) -> None:
    record = raw_record(data)
    outcome = ingest(record, NOW_MS, RULES)
    out = Sent()
    stage().step(record, NoState(), out)  # type: ignore[arg-type]
    [(topic, key, value, _)] = out.records
    if isinstance(outcome, Emit):
        event = decode_events_record(value)
        assert topic == "events" and event == outcome.event and isinstance(event, Event)
        assert key == KEYS.actor(event.identifiers[0])
        assert 0 <= event.time <= event.received <= NOW_MS
        assert event.identifiers == sorted(set(event.identifiers), key=RULES.order)
        assert all(flag in FLAGS or flag.startswith("junk_identifier:") for flag in event.flags)
        assert event.message_id
        # What stands behind keeps it in messagepack, where numbers have 64 bits.
        msgspec.msgpack.encode(event)
    else:
        assert topic == "dead-letters" and outcome.reason in REASONS
        assert msgspec.json.decode(value, type=DeadLetter).value == data


@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_any_bytes_have_exactly_one_outcome(data: bytes) -> None:
    has_one_outcome(data)


@given(anything)
def test_any_json_has_exactly_one_outcome(value: Any) -> None:
    has_one_outcome(json.dumps(value).encode())


@given(st.dictionaries(st.sampled_from(fields), anything))
def test_any_types_of_fields_have_exactly_one_outcome(value: Any) -> None:
    has_one_outcome(json.dumps(value).encode())


@given(plausible)
@settings(max_examples=300)
def test_any_plausible_event_has_exactly_one_outcome(value: Any) -> None:
    has_one_outcome(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(plausible, st.integers(0, 400), st.integers(0, 255))
def test_any_damaged_event_has_exactly_one_outcome(value: Any, place: int, byte: int) -> None:
    data = bytearray(json.dumps(value).encode())
    data[place % len(data)] = byte
    has_one_outcome(bytes(data))
