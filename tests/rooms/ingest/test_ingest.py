"""Ingest: one line per raw record and what becomes of it."""

import json
from typing import Any

import pytest

from pipeline.identity import BUILT_IN, IdentityRules, Namespace
from pipeline.ingest import Emit, ingest
from pipeline.records import decode_events_record
from tests.rooms.ingest.harness import (
    DROP,
    HOUR_MS,
    KEYS,
    NOW_MS,
    RULES,
    NoState,
    Sent,
    emitted,
    raw_record,
    refused,
    stage,
    track,
)

# ------------------------------------------------------------------------------------------------------ what is refused

REFUSED = [
    (None, "tombstone", ""),
    (b"", "empty", ""),
    (b" \r\n", "empty", ""),
    (b"\xff\xfe{\x00}\x00", "not_utf8", ""),
    (b'{"type": "\xff"}', "not_utf8", ""),
    (b"{", "not_json", ""),
    (b"{'type': 'track'}", "not_json", ""),
    (b'{"a": "\\ud80"}', "not_json", ""),
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
    (track(timestamp="¹⁷⁴⁰⁸³⁰⁴⁰⁰⁰⁰⁰"), "bad_timestamp", "/timestamp"),
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
    (
        track(
            context={
                "externalIds": [{"type": "card", "id": 7, "collection": "users"}, {"type": "email", "id": "A@x.io"}]
            }
        ),
        ["user_id:ann", "email:a@x.io", "card:*"],
    ),
    (
        track(context={"externalIds": [7, {"id": "c"}, {"type": 3, "id": "c"}, {"type": "card", "id": None}]}),
        ["user_id:ann"],
    ),
    (track(context={"externalIds": {"type": "card", "id": "c1"}}), ["user_id:ann"]),
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


def test_an_account_is_no_identifier_of_a_person() -> None:
    event = emitted(track(identifiers={"account": "acme"}))
    assert event.identifiers == ["user_id:ann"]
    assert event.flags == ["junk_identifier:account"]
    refusal = refused(track(userId=None, identifiers={"account": "acme"}))
    assert refusal.reason == "only_junk_identifiers"
    assert "account names accounts, not people" in refusal.detail


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
    assert emitted(track(messageId=DROP), NOW_MS - 7).message_id == f"raw/3/42@{NOW_MS - 7}"
    for junk in ("undefined", "", "00000000-0000-0000-0000-000000000000"):
        event = emitted(track(messageId=junk))
        assert (event.message_id, event.flags) == ("raw/3/42@0", ["junk_message_id"])
    assert emitted(track()).source == "raw/3/42"


def test_case_59_a_source_made_again_gives_other_names_to_events_without_a_message_id() -> None:
    """Its positions come a second time; an event that happened to have the same route would pass for a duplicate."""
    before, after = (emitted(track(messageId=DROP), NOW_MS - age) for age in (HOUR_MS, 5))
    assert before.source == after.source and before.message_id != after.message_id
    again = emitted(track(messageId=DROP), NOW_MS - 5)
    assert again.message_id == after.message_id, "read again, it is the same event"


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
    cut = {"title": "Sale! \ud83d", "back": "\\ude00", "whole": "\U0001f600", "two\udc00": "\ude00\ud83d"}
    whole = {"title": "Sale! \ufffd", "back": "\\ude00", "whole": "\U0001f600", "two\ufffd": "\ufffd\ufffd"}
    assert emitted(json.dumps(track(properties=cut)).encode()).properties == whole
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
    ({"timestamp": 0}, 0, 1, NOW_MS, []),
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
    # the archive of another platform: its `timestamp` is corrected, here by an hour, and must not be once more
    (
        {"timestamp": AT, "originalTimestamp": NOW_MS, "sentAt": NOW_MS + 500, "receivedAt": AT_MS + 500},
        0,
        AT_MS,
        AT_MS + 500,
        [],
    ),
    # both from one wrong clock, as some SDKs send them
    (
        {"timestamp": NOW_MS, "originalTimestamp": NOW_MS, "sentAt": NOW_MS + 500, "receivedAt": AT_MS + 500},
        0,
        AT_MS,
        AT_MS + 500,
        [],
    ),
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


# changes, when the broker took it in, time, received
APPENDED: list[tuple[dict[str, Any], int, int, int]] = [
    # it waited for an hour, and was not received an hour later for that
    ({}, AT_MS, AT_MS, AT_MS),
    ({"timestamp": AT_MS - 60_000}, AT_MS, AT_MS - 60_000, AT_MS),
    ({"timestamp": NOW_MS}, AT_MS, AT_MS, AT_MS),
    ({"timestamp": AT_MS + HOUR_MS - 5, "sentAt": AT_MS + HOUR_MS}, AT_MS, AT_MS - 5, AT_MS),
    # who vouches for an earlier time is believed, for a later one not
    ({"receivedAt": AT_MS - 7}, AT_MS, AT_MS - 7, AT_MS - 7),
    ({"receivedAt": NOW_MS}, AT_MS, AT_MS, AT_MS),
    # the broker's clock is ahead of ours
    ({}, NOW_MS + HOUR_MS, NOW_MS, NOW_MS),
]


@pytest.mark.parametrize(("changes", "appended_ms", "time", "received"), APPENDED)
def test_received_is_when_the_broker_took_it_in(
    changes: dict[str, Any], appended_ms: int, time: int, received: int
) -> None:
    outcome = ingest(raw_record(track(**changes), appended_ms)._replace(appended_ms=appended_ms), NOW_MS, RULES)
    assert isinstance(outcome, Emit)
    assert (outcome.event.time, outcome.event.received) == (time, received)


def test_case_41_two_events_with_the_same_timestamp_keep_it() -> None:
    first = emitted(track(timestamp=AT, traits={"plan": "a"}))
    second = emitted(track(timestamp=AT, traits={"plan": "b"}, messageId="m2"))
    assert first.time == second.time == AT_MS


def test_a_correction_cannot_lead_before_1970() -> None:
    far = {"timestamp": "1970-01-01T00:00:00Z", "sentAt": "9999-01-01T00:00:00Z", "receivedAt": AT}
    assert refused(track(**far)).reason == "bad_timestamp"


@pytest.mark.parametrize("changes", [{"timestamp": "1970-01-01T00:00:00Z"}, {"timestamp": 0}])
def test_a_clock_that_stands_at_its_beginning_is_seen(changes: dict[str, Any]) -> None:
    """0 means "never" from there on: somebody with no other event had no profile, and the event was nowhere."""
    assert emitted(track(**changes)).time == 1
    at_first = emitted(track(receivedAt="1970-01-01T00:00:00Z"))
    assert (at_first.time, at_first.received) == (1, 1)
