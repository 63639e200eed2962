"""`headwater dead-letters` on a real broker: seen, mended, sent again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from pipeline.admin import create_topics
from pipeline.cli import build
from pipeline.errors import HeadwaterError, InputError, LookupFailed
from pipeline.records import DeadLetter, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

Say = Callable[..., str]


@pytest.fixture
def deployment(workspace: Settings, tmp_path: Path) -> Iterator[Deployment]:
    create_topics(workspace)
    with Deployment(workspace, tmp_path) as running:
        yield running


@pytest.fixture
def say(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs `headwater dead-letters …`; what it printed."""
    for name, value in deployment.environment().items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> str:
        said = CliRunner().invoke(build(["dead-letters"]), ["dead-letters", *words])
        if isinstance(said.exception, HeadwaterError):
            raise said.exception
        assert said.exit_code == 0, said.output
        return said.stdout

    return run


def letters(say: Say, *words: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in say("list", "--json", *words).splitlines()]


def test_a_dead_letter_is_seen_mended_and_sent_again(deployment: Deployment, say: Say, tmp_path: Path) -> None:
    assert say("list").strip() == "0 dead letters."
    deployment.start("ingest")
    dance = '{"type": "dance", "userId": "eve", "messageId": "m-1"}'
    deployment.produce([dance.encode(), b"{no json", {"type": "page", "userId": "ada"}])
    deployment.wait_until(lambda: len(letters(say)) == 2, "two dead letters")
    [letter] = letters(say, "--reason", "unknown_type")
    assert letters(say, "--topic", "elsewhere") == []
    assert len(letters(say, "--limit", "1")) == 1
    listed = " ".join(say("list").split())
    assert "unknown_type" in listed and "2 dead letters" in listed

    shown = say("show", letter["id"])
    assert dance in shown and "at /type" in shown and f"offset {letter['offset']}" in shown
    assert say("show", letter["id"], "--value") == dance

    mended = tmp_path / "letter.json"
    mended.write_text(dance.replace("dance", "page") + "\n")
    would = say("replay", "--reason", "unknown_type", "--dry-run")
    assert "1 would be sent to" in would
    assert "1 sent again to" in say("replay", letter["id"], "--value", str(mended))

    def of_eve() -> list[Any]:
        return [each for each in deployment.values("events") if each.get("identifiers") == ["user_id:eve"]]

    deployment.wait_until(lambda: len(of_eve()) == 1, "the mended event")
    assert (of_eve()[0]["type"], of_eve()[0]["message_id"]) == ("page", "m-1")
    # As it was it is refused again, and is there anew.
    say("replay", "--reason", "not_json")
    deployment.wait_until(lambda: len(letters(say, "--reason", "not_json")) == 2, "refused again")
    originals = [each for each in deployment.read("raw") if each.value == b"{no json"]
    assert len(originals) == 2


def test_a_replay_keeps_the_key_and_the_topic(deployment: Deployment, say: Say) -> None:
    settings = deployment.settings
    sent = [
        DeadLetter("step raised", "why", "events", 1, 7, 1_000, b"a clean event", b"an actor", "unify"),
        DeadLetter("step raised", "why", "raw", 1, 7, 1_000, b"a raw event", None, "ingest"),
    ]
    produce_all(settings, "dead-letters", [(None, encode(letter)) for letter in sent])
    said = say("replay", "--all")
    assert f"1 sent again to {settings.prefix}events" in said and f"1 sent again to {settings.prefix}raw" in said
    assert [(each.key, each.value) for each in deployment.read("events")] == [(b"an actor", b"a clean event")]
    assert [(each.key, each.value) for each in deployment.read("raw")] == [(None, b"a raw event")]


def test_what_cannot_be_replayed_is_refused_before_anything_is_sent(deployment: Deployment, say: Say) -> None:
    kept = DeadLetter("too_large", "why", "raw", 0, 3, 1_000, b"x" * 700_000, None)
    tombstone = DeadLetter("tombstone", "why", "raw", 0, 4, 1_000, None, b"k")
    whole = DeadLetter("not_json", "why", "raw", 0, 5, 1_000, b"{", b"k")
    produce_all(deployment.settings, "dead-letters", [(b"k", encode(each)) for each in (whole, kept, tombstone)])
    with pytest.raises(InputError, match="Only the beginning"):
        say("replay", "--reason", "too_large")
    with pytest.raises(InputError, match="had no value"):
        say("replay", "--reason", "tombstone")
    with pytest.raises(InputError, match=r"Only the beginning|had no value"):
        say("replay", "--all")
    assert deployment.read("raw") == []
    with pytest.raises(InputError, match="Which dead letters"):
        say("replay")
    with pytest.raises(InputError, match="Which dead letters"):
        say("replay", "0/0", "--all")
    with pytest.raises(InputError, match="mends one"):
        say("replay", "--all", "--value", "x.json")
    with pytest.raises(InputError, match="no id"):
        say("show", "seven")
    with pytest.raises(LookupFailed, match="no dead letter"):
        say("show", "0/99")
