"""Of what people decided about identity a past has what was decided by then, also what was taken back since."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.cli.features import Entity, export
from pipeline.errors import InputError
from pipeline.features.export import check_parquet, decided, taken_in
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.records import Erased, Event, Relink, Unlink, encode
from pipeline.runtime.ports import Record


def records(*made: Any) -> list[Record]:
    return [
        Record("identity-decisions", 0, offset, key, encode(one) if one is not None else None, 0)
        for offset, (key, one) in enumerate(made)
    ]


LOG = records(
    (b"ab", Unlink("a:1", 100, "b:1")),
    (b"cd", Unlink("c:1", 150, "d:1")),
    (b"ab", Relink("a:1", 200, "b:1")),
    (b"ab", Unlink("a:1", 300, "b:1", forever=True)),
)


def at(instant: int) -> list[tuple[int, bytes]]:
    happened, erasures = decided(LOG, instant)
    assert not erasures
    return sorted((one.received, one.value) for one in happened)


def test_what_was_taken_back_later_held_until_then() -> None:
    ab, cd = encode(Unlink("a:1", 100, "b:1")), encode(Unlink("c:1", 150, "d:1"))
    assert at(99) == []
    assert at(199) == [(100, ab), (150, cd)], "that it was undone at 200 nobody knew"
    assert at(299) == [(100, ab), (150, cd), (200, encode(Relink("a:1", 200, "b:1")))]
    assert len(at(300)) == 4


def test_of_one_thing_the_later_word_holds_whatever_the_clocks_said() -> None:
    undone, again = Relink("a:1", 200, "b:1"), Unlink("a:1", 150, "b:1")
    happened, _ = decided(records((b"ab", undone), (b"ab", again)), 200)
    assert [(one.received, one.value) for one in happened] == [(200, encode(undone)), (200, encode(again))]
    assert decided(records((b"ab", undone), (b"ab", again)), 199)[0] == []


def test_what_an_erasure_took_is_in_no_past() -> None:
    happened, _ = decided([*LOG, *records((b"ab", None))], 1_000)
    assert [one.received for one in happened] == [150]


def test_whom_an_erasure_took_since_is_in_no_past_either() -> None:
    happened, erasures = decided([*LOG, *records((b"erase/x", Erased("x", 900, 1)))], 199)
    assert [one.received for one in happened] == [100, 150]
    assert {actor: each.received for actor, each in erasures.items()} == {b"x": 900}


KEYS = Keys(b"the secret of a test")
ADA, TAB, BOB = "user_id:ada", "anonymous_id:tab", "user_id:bob"


def names_at(at: int, *came: tuple[int, list[str], dict[str, Any]]) -> list[list[str]]:
    """The identifiers of the events that features as of `at` rest on, where Ada and her browser were erased at 100."""
    erased = [Erased(KEYS.actor(one).decode(), 100, 1, keep_out=True) for one in (ADA, TAB)]
    _, erasures = decided(records(*((one.actor.encode(), one) for one in erased)), at)
    events = [
        Event(f"m{received}", "track", "Login", named, received, received, context=context)
        for received, named, context in came
    ]
    log = [
        Record("events", 0, offset, KEYS.actor(one.identifiers[0]), encode(one)) for offset, one in enumerate(events)
    ]
    found = taken_in(log, at, builtin_rules(), KEYS, erasures)
    return [msgspec.json.decode(one.value)["identifiers"] for one in found]


def test_who_is_kept_out_is_in_no_past_before_they_consent_anew() -> None:
    """Also where an ingest that had not heard of the erasure took something in."""
    consent = {"consent": {"news": True}}
    came = (
        (90, [ADA, TAB], {}),
        (110, [ADA], {}),
        (120, [BOB, TAB], {}),
        (130, [ADA], consent),
        (140, [ADA], {}),
        (150, [TAB], {}),
        (160, [TAB], consent),
    )
    assert names_at(125, *came) == [[BOB]]
    assert names_at(159, *came) == [[BOB], [ADA], [ADA]], "what the consent did not name stays out"
    assert names_at(160, *came) == [[BOB], [ADA], [ADA], [TAB]]


def test_an_instant_that_has_not_come_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("pipeline.cli.features.find_kafka", lambda settings: settings)
    monkeypatch.setattr("pipeline.features.export.features_at", lambda settings, at, entity: asked.append(at))
    with pytest.raises(InputError, match="has not come"):
        export("2999-01-01T00:00:00Z", tmp_path / "out.parquet", Entity.person)
    assert asked == [] and not list(tmp_path.iterdir())


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def looked_for(settings: object) -> None:
        raise AssertionError("a Kafka was looked for")

    monkeypatch.setattr("pipeline.cli.features.find_kafka", looked_for)


@pytest.mark.usefixtures("nothing_is_read")
def test_where_no_file_can_be_written_is_told_before_the_history_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path, tmp_path / "file" / "x.parquet"):
        with pytest.raises(
            InputError, match=r"No file can be written there: (it is a folder|Not a directory|File exists)"
        ):
            export("2020-03-01", out, Entity.person)


@pytest.mark.usefixtures("nothing_is_read")
def test_without_pyarrow_that_is_told_before_the_history_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs the package pyarrow"):
        export("2020-03-01", tmp_path / "x.parquet", Entity.person)


def test_looking_whether_a_file_can_be_written_leaves_none(tmp_path: Path) -> None:
    out = tmp_path / "new" / "x.parquet"
    check_parquet(out)
    assert list(out.parent.iterdir()) == []
