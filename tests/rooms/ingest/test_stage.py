"""The ingest stage: bounds, dead letters, counts, and when it says that the sources are read."""

import base64
import json

import msgspec
import pytest

from pipeline.identity import BUILT_IN, IdentityRules, Namespace
from pipeline.ingest import (
    MAX_DEPTH,
    MAX_IDENTIFIERS,
    MAX_RAW_BYTES,
    caught_up_due,
)
from pipeline.ingest.stage import ON_ITS_WAY_MS
from pipeline.records import CaughtUp, DeadLetter, Event, Suppression, decode_events_record
from tests.rooms.ingest.harness import (
    HOUR_MS,
    KEYS,
    NOW_MS,
    RULES,
    NoState,
    Sent,
    emitted,
    nested,
    raw_record,
    refused,
    stage,
    track,
)

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
    counted: list[tuple[str, str, int]] = []
    one = stage(counted=lambda *told: counted.append(told))
    one.step(raw_record(b"\xff{", partition=9), NoState(), out)  # type: ignore[arg-type]
    [(topic, key, value, partition)] = out.records
    letter = msgspec.json.decode(value, type=DeadLetter)
    assert (topic, key, partition) == ("dead-letters", b"key", 1)
    assert (letter.value, letter.key, letter.stage, letter.at) == (b"\xff{", b"key", "ingest", NOW_MS)
    assert (letter.topic, letter.partition, letter.offset, letter.reason) == ("raw", 9, 42, "not_utf8")
    assert base64.b64encode(b"\xff{") in value
    one.finish(NoState(), out)  # type: ignore[arg-type]
    assert counted == [("refused", "not_utf8", 1)]


def test_junk_is_counted_once_per_batch_and_not_of_one_that_was_dropped() -> None:
    counted: list[tuple[str, str, int]] = []
    one, out = stage(counted=lambda *told: counted.append(told)), Sent()
    one.step(raw_record(track(anonymousId="null")), NoState(), out)  # type: ignore[arg-type]
    one.forget()
    for _ in range(3):
        one.step(raw_record(track(anonymousId="null")), NoState(), out)  # type: ignore[arg-type]
    assert counted == []
    for _ in range(2):
        one.finish(NoState(), out)  # type: ignore[arg-type]
    assert counted == [("emitted", "", 3), ("flagged", "junk_identifier", 3)]


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
        self.at_end: bool | None = True
        self.times = 0
        self.out = Sent()
        self.stage = stage(sources_at_end=self._answer)

    def _answer(self) -> bool | None:
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
    assert asked.wake(0) == [-ON_ITS_WAY_MS] * 4
    assert asked.wake(999) == []
    assert asked.wake(1_000) == [1_000 - ON_ITS_WAY_MS] * 4
    assert asked.wake(1_500) == []
    assert asked.wake(2_100) == [2_100 - ON_ITS_WAY_MS] * 4
    assert asked.times == 3
    assert {(topic, key) for topic, key, _, _ in asked.out.records} == {("events", None)}
    assert [partition for *_, partition in asked.out.records[:4]] == [0, 1, 2, 3]


def test_caught_up_is_silent_while_behind_and_the_door_is_not_asked_at_every_batch() -> None:
    asked = Asked()
    asked.at_end = False
    assert [asked.wake(later) for later in range(0, 1_000, 10)] == [[]] * 100
    assert asked.times == 4
    asked.at_end = True
    assert asked.wake(1_000) == [1_000 - ON_ITS_WAY_MS] * 4


def test_caught_up_is_said_again_after_an_abort() -> None:
    asked = Asked()
    assert asked.wake(0) == [-ON_ITS_WAY_MS] * 4
    asked.stage.forget()
    assert asked.wake(249) == []
    assert asked.wake(250) == [250 - ON_ITS_WAY_MS] * 4


def test_caught_up_does_not_wait_for_the_answer_and_says_the_time_of_the_question() -> None:
    asked = Asked()
    asked.at_end = None
    assert asked.wake(0) == []
    assert asked.wake(3) == []
    assert asked.times == 2, "it is asked again until there is an answer"
    asked.at_end = True
    assert asked.wake(250) == [-ON_ITS_WAY_MS] * 4, "the answer is about the moment of the question"
    assert asked.wake(999) == []
    assert asked.wake(1_000) == [1_000 - ON_ITS_WAY_MS] * 4


def test_a_clock_set_back_neither_silences_caught_up_nor_lets_it_promise_the_future() -> None:
    asked = Asked()
    asked.wake(0)
    assert asked.wake(-HOUR_MS) == [-HOUR_MS - ON_ITS_WAY_MS] * 4
    asked.at_end = None
    asked.wake(0)
    asked.at_end = True
    assert asked.wake(-HOUR_MS) == [-HOUR_MS - ON_ITS_WAY_MS] * 4
    assert caught_up_due(NOW_MS, True, NOW_MS - 1)


# --------------------------------------------------------------------------------------------------- who was erased


class Vault:
    """Knows who was erased, and seals nothing."""

    def __init__(self, *erased: str) -> None:
        self.kept_out = {KEYS.actor(text): Suppression(NOW_MS) for text in erased}

    def readmit(self, actor: bytes) -> None:
        del self.kept_out[actor]

    def seal(self, actor: bytes, name: str, encoded: bytes) -> bytes:
        return encoded


NAMES_THEM = [
    b'{"type": "track", "userId": "ada", "no event": "x"}',
    b'{"type": "nonsense", "context": {"traits": {"email": " ADA@example.org "}}}',
    b'{"type": "track", "event": "A", "identifiers": {"loyalty": "l-1"}, cut of',
    b'{"type": "track", "anonymousId": 4711, "event": ""}',
    b'{"type": "?", "context": {"externalIds": [{"type": "loyalty", "encoding": "none", "id": "l-1"}]}}',
    b'{"context": {"externalIds": [{"id": "l-1", "collection": "users", "encoding": "none", "type": "loyalty"}]}}',
    b'"user": "\\u0061da" is no event',
]


@pytest.mark.parametrize("value", NAMES_THEM)
def test_what_cannot_be_used_of_somebody_who_was_erased_is_kept_without_its_content(value: bytes) -> None:
    vault = Vault("user_id:ada", "email:ada@example.org", "loyalty:l-1", "anonymous_id:4711")
    for known, is_kept in ((vault, False), (Vault("user_id:bob"), True), (Vault(), True)):
        out = Sent()
        stage(vault=known).step(raw_record(value), NoState(), out)  # type: ignore[arg-type]
        [(topic, key, sent, _)] = out.records
        letter = msgspec.json.decode(sent, type=DeadLetter)
        assert topic == "dead-letters" and letter.reason
        assert (letter.value == value) is is_kept
        assert is_kept or (letter.value is None and key is None and "erased" in letter.detail)


def test_so_is_what_names_them_by_an_address_that_is_blocked_by_now() -> None:
    blocked = Namespace("email", 20, normaliser="email", blocked=("^ada@",))
    rules = IdentityRules({one.name: one for one in (*BUILT_IN, blocked)})
    out = Sent()
    value = b'{"type": "track", "event": "A", "traits": {"email": "Ada@example.org"}}'
    stage(vault=Vault("email:ada@example.org"), rules=lambda: rules).step(raw_record(value), NoState(), out)  # type: ignore[arg-type]
    [(_, _, sent, _)] = out.records
    letter = msgspec.json.decode(sent, type=DeadLetter)
    assert letter.reason == "only_junk_identifiers" and letter.value is None and b"ada" not in sent


def test_an_identifier_of_somebody_who_was_erased_leaves_the_event_of_another_with_its_field() -> None:
    context = {
        "externalIds": [{"type": "loyalty", "id": "l-1"}, {"type": "card", "id": "c-1"}],
        "device": {"id": "d-1"},
    }
    out = Sent()
    stage(vault=Vault("loyalty:l-1", "device_id:d-1")).step(raw_record(track(context=context)), NoState(), out)  # type: ignore[arg-type]
    event = decode_events_record(out.records[0][2])
    assert isinstance(event, Event) and event.identifiers == ["user_id:ann", "card:c-1"]
    assert event.context == {"externalIds": [{"type": "card", "id": "c-1"}], "device": {}}
    assert event.flags == ["kept_out_identifier"] * 2


def test_the_key_of_a_record_may_name_somebody_too() -> None:
    out = Sent()
    record = raw_record(b"no event")._replace(key=b"ada")
    stage(vault=Vault("user_id:ada")).step(record, NoState(), out)  # type: ignore[arg-type]
    [(_, key, sent, _)] = out.records
    assert key is None and b"ada" not in sent
