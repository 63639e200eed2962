"""Any bytes at all have exactly one outcome, and it can be read back."""

import json
import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest import (
    FLAGS,
    REASONS,
    Emit,
    ingest,
)
from pipeline.records import DeadLetter, Event, decode_events_record
from tests.rooms.ingest.harness import (
    KEYS,
    NOW_MS,
    RULES,
    NoState,
    Sent,
    raw_record,
    stage,
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**25), 10**25),
    st.floats(allow_nan=True),
    st.text(max_size=20),
    st.sampled_from(
        ["null", "2025-03-01T00:00:00Z", "a@x.io", "track", "0", "²" * 12, 1_740_830_400_000, 10**5000 % 10**40]
    ),
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
        assert all(flag in FLAGS or flag.partition(":")[0] + ":" in FLAGS for flag in event.flags)
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


@given(st.lists(st.sampled_from(["\\", "\ud83d", "\ude00", "u", "d83d", '"', "\n", "\U0001f600"])).map("".join))
def test_only_halves_of_surrogate_pairs_are_replaced(text: str) -> None:
    written = json.dumps(text)
    # What json.loads gives for two halves beside each other is one character: as ours must.
    whole = re.sub("[\ud800-\udfff]", "\ufffd", json.loads(written))
    event = {"type": "track", "event": "E", "userId": "ann", "properties": {"a": text}}
    outcome = ingest(raw_record(json.dumps(event).encode()), NOW_MS, RULES)
    assert isinstance(outcome, Emit) and outcome.event.properties == {"a": whole}
