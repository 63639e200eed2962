"""What no role of ours wrote may stand in `events`. It was put aside when it was new: who looks at the history passes
over it, and goes on."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from pipeline import roles
from pipeline.cli.watch import _json_line, line
from pipeline.errors import StateError
from pipeline.privacy import vault
from pipeline.records import Event, encode, read_events_record
from pipeline.replay.passage import glance
from pipeline.roles import received_ms
from pipeline.runtime.kafka.unsealing import Unsealing
from pipeline.runtime.opening import OpeningReader
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import KeyRing, Sealer
from tests.rooms.api.harness import ADA, World, body, event, profile, show

TOO_DEEP = b'{"kind":"event","properties":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}"
UNREADABLE = [
    b"",
    b"junk",
    b"\xff\xfe",
    b"[1]",
    b'{"kind":"nobody"}',
    b'{"kind":"event","message_id":1}',
    b'{"kind":"event","message_id":"\xff"}',
    b'{"kind":"marker","generation":"x"}',
    TOO_DEEP,
]
NOBODYS = b'{"kind":"event","message_id":"m","type":"track","event":"E","identifiers":[],"time":1,"received":1}'
"""An event that can be read, and is of nobody."""


NOBODY_SEALED = [b"\x01", b"\x01junk", b"\x01" + b"x" * 100]


def record(value: bytes | None) -> Record:
    return Record("events", 0, 0, b"k", value, 9)


def with_keys(seed: bytes = bytes(16)) -> Sealer:
    sealer = Sealer(KeyRing())
    for key, part in sealer.ring.begin(seed):
        sealer.take(key, part)
    return sealer


@pytest.mark.parametrize("value", UNREADABLE)
def test_the_worker_that_has_put_it_aside_does_not_end(value: bytes) -> None:
    assert received_ms(record(value)) == 0
    assert read_events_record(value) is None


@pytest.mark.parametrize("value", [b"", b"junk", b"\xff\xfe", b"[1]", TOO_DEEP])
def test_who_looks_whether_a_history_was_sealed_passes_over_it(value: bytes) -> None:
    assert not vault._is_event(record(value))


@pytest.mark.parametrize("value", UNREADABLE)
def test_who_looks_how_far_raw_records_have_come_passes_over_it(value: bytes) -> None:
    assert roles._told(Settings(secret="s")).source(record(value)) is None


@pytest.mark.parametrize("value", [b"junk", b"\xff\xfe", TOO_DEEP])
def test_who_follows_the_topic_is_shown_it_as_it_stands(value: bytes) -> None:
    assert line(record(value)).startswith("[dim]events[/] ")
    assert _json_line(record(value)).startswith('{"key":"k","value":')


@pytest.mark.parametrize("value", [*UNREADABLE, NOBODYS, None])
def test_the_api_goes_on_behind_it(value: bytes | None, tmp_path: Path) -> None:
    world = World(tmp_path)
    world.follower.read(show(world, profile(ADA, "user_id:1")))
    world.follower.read([world.record("events", "k", value, 0), event(world, "user_id:1", 5)])
    assert body(world.ask("/v1/profiles/user_id:1/events"))["events"][0]["event"] == "Page Viewed"


@pytest.mark.parametrize("value", NOBODY_SEALED)
def test_what_nobody_sealed_is_left_out_and_the_first_is_told(
    value: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sealer = with_keys()
    plain = encode(Event("m1", "track", "Seen", ["user_id:1"], 5, 7))
    sealed = sealer.seal(b"a" * 32, "Seen", plain)
    unsealing = Unsealing(Settings(secret="s"))
    monkeypatch.setattr(unsealing, "_sealer", sealer)
    monkeypatch.setattr(unsealing, "_look", lambda: None)
    assert unsealing([record(value), record(sealed), record(None)]) == [record(plain), record(None)]
    assert unsealing([record(value)]) == []
    assert caplog.text.count("events/0@0 is passed over") == 1


@pytest.mark.parametrize("value", NOBODY_SEALED)
def test_an_export_and_a_replay_meet_it_as_it_stands_there(value: bytes) -> None:
    sealer, reader = with_keys(), MagicMock()
    plain = encode(Event("m1", "track", "Seen", ["user_id:1"], 5, 7))
    reader.read.return_value = [record(value), record(sealer.seal(b"a" * 32, "Seen", plain))]
    assert OpeningReader(reader, sealer.open).read(10, 0) == [record(value), record(plain)]
    assert glance(value) is None and read_events_record(value) is None


def test_a_history_of_which_nothing_can_be_opened_ends_an_export_and_a_replay() -> None:
    """With other keys than it was sealed with, all of it would be taken for what nobody sealed."""
    theirs, ours, reader = with_keys(b"t" * 16), with_keys(), MagicMock()
    plain = encode(Event("m1", "track", "Seen", ["user_id:1"], 5, 7))
    few = [record(theirs.seal(b"a" * 32, "Seen", plain)) for _ in range(99)]
    one = [record(ours.seal(b"a" * 32, "Seen", plain))]
    reader.read.side_effect = [few, one, few, few]
    opening = OpeningReader(reader, ours.open)
    assert opening.read(100, 0) == few and opening.read(1, 0) == [record(plain)] and opening.read(100, 0) == few
    with pytest.raises(StateError, match="100 sealed events") as caught:
        opening.read(100, 0)
    assert caught.value.where == "up to events/0@0"
