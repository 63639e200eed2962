"""`headwater produce` beside a state folder that is not as it should be: told, and no traceback."""

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from pipeline.cli import produce
from pipeline.errors import InputError, StateError
from pipeline.ingest import Refusal, decode
from pipeline.settings import Settings, load
from pipeline.sources.files import inspect_file
from pipeline.sources.progress import FileProgress

Produce = Callable[..., int]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text('{"type": "page", "userId": "ada"}\n' * 3)
    return path


@pytest.fixture
def produced(file: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> Produce:
    """The command, with a Kafka that takes everything; how many records came there."""
    came: list[object] = []

    def take(_: Settings, __: str, records: Iterable[Any], ___: object) -> int:
        before = len(came)
        came.extend(records)
        return len(came) - before

    monkeypatch.setenv("HEADWATER_STATE_DIR", str(state))
    monkeypatch.setattr(produce, "find_kafka", lambda settings: settings)
    monkeypatch.setattr(produce, "topic_partitions", lambda *_: [])
    monkeypatch.setattr(produce, "produce_all", take)

    def call(resume: bool) -> int:
        came.clear()
        produce.command(file, None, None, "track", None, ",", resume)
        return len(came)

    return call


@pytest.fixture
def kept(file: Path, state: Path) -> Path:
    """Where the progress of the file is kept."""
    return state / "produced" / f"{inspect_file(file).digest}.{load().topic('raw')}"


def test_one_that_was_interrupted_goes_on_and_what_is_no_number_counts_as_nothing(
    produced: Produce, file: Path, state: Path, kept: Path
) -> None:
    for said, left in (("2", 1), ("-2", 3), ("two", 3), ("²", 3), ("", 3)):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(said)
        assert produced(resume=True) == left
        assert not kept.exists()


def test_a_line_no_broker_would_take_is_cut_so_that_the_file_goes_on(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest refuses what comes of it, as it does of any that is too large: the others are not stopped by it."""
    came: list[Any] = []
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(produce, "find_kafka", lambda settings: settings)
    monkeypatch.setattr(produce, "topic_partitions", lambda *_: [])
    monkeypatch.setattr(produce, "produce_all", lambda _, __, records, ___: came.extend(records) or len(came))
    long = {"type": "page", "userId": "u" * 1_000, "name": "x" * 3_000_000}
    file.write_text(f"{file.read_text()}{json.dumps(long)}\n")
    produce.command(file, None, None, "track", None, ",", False)
    key, value = came[3]
    assert decode(value) == Refusal("too_large", "The value has 524,288 bytes; an event may have 262,144.")
    assert len(key) + len(value) < 1_000_000


def test_a_topic_of_our_own_is_no_source(produced: Produce, file: Path) -> None:
    for topic in ("events", "profiles"):
        with pytest.raises(InputError, match="written by Headwater alone"):
            produce.command(file, topic, None, "track", None, ",", False)
    produce.command(file, "shop", None, "track", None, ",", False)


def test_progress_that_cannot_be_read_ends_only_who_wants_to_go_on_from_it(produced: Produce, kept: Path) -> None:
    kept.mkdir(parents=True)
    with pytest.raises(StateError) as caught:
        produced(resume=True)
    assert caught.value.what == "How far the file was produced cannot be read: Is a directory."
    assert caught.value.where == str(kept)
    assert "HEADWATER_STATE_DIR" in caught.value.what_to_do and "duplicates" in caught.value.what_to_do


def test_progress_that_cannot_be_kept_or_forgotten(produced: Produce, kept: Path, state: Path) -> None:
    state.mkdir()
    (state / "produced").touch()
    with pytest.raises(StateError, match="produced cannot be read: Not a directory"):
        produced(resume=True)
    with pytest.raises(StateError, match=r"produced cannot be kept: (File exists|Not a directory)"):
        produced(resume=False)
    (state / "produced").unlink()
    kept.mkdir(parents=True)
    with pytest.raises(StateError, match=r"produced cannot be forgotten: Is a directory|Operation not permitted"):
        FileProgress(state, *kept.name.split(".", 1)).end()


def test_a_kafka_that_takes_nothing_is_told_once_until_it_goes_on() -> None:
    told = io.StringIO()
    progress = Progress(console=Console(file=told, width=200))
    now = [0.0]
    show = produce.shown(progress, progress.add_task("file"), 0, lambda: now[0])

    def said() -> int:
        return told.getvalue().count("Kafka has acknowledged nothing for 10 s")

    for second, sent in ((0, 0), (5, 5), (14, 5)):
        now[0] = second
        show(sent)
    assert said() == 0
    for second in (15, 16, 90):
        now[0] = second
        show(5)
    assert said() == 1
    show(6)
    now[0] = 101
    show(6)
    assert said() == 2
