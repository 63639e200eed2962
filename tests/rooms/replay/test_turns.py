"""Whose turn it is, where that cannot be read just now; and that who waits or rests is alive."""

import threading
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import workspace_view
from pipeline.broker.local import free_port
from pipeline.errors import BrokerError, TopicMissing
from pipeline.records import encode
from pipeline.replay import turns
from pipeline.replay.turns import WAITING, Turns
from pipeline.rights import rights
from pipeline.settings import Settings
from pipeline.workspaces import ORIGIN_KEY, POSITION_KEY, SUCCESSOR_KEY, ReplayOrigin, ReplayPosition, Successor

COPY = (ORIGIN_KEY, encode(ReplayOrigin("old.", 1, 0)))
TAKEN_OVER = (POSITION_KEY, encode(ReplayPosition([], [], [], ended=True)))
WENT_ON = (SUCCESSOR_KEY, encode(Successor("new.", 1)))


class Topic:
    """The topic `workspace`, and what goes wrong with it, look by look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *records: tuple[bytes, bytes]) -> None:
        self.records = list(records)
        self.faults: list[Exception] = []
        self.fails_at = "opening"
        self.looks = 0
        monkeypatch.setattr(workspace_view, "TopicReader", self.opened)
        monkeypatch.setattr(turns, "_LOOK_EVERY_S", 0.01)

    def opened(self, *_: Any, **__: Any) -> "Topic":
        self._fail("opening")
        return self

    def read_to_end(self) -> Iterator[Any]:
        self._fail("reading")
        yield from self.read(0, 0)

    def read(self, limit: int, timeout_s: float) -> list[Any]:
        self.looks += 1
        found, self.records = self.records, []
        return [SimpleNamespace(key=key, value=value) for key, value in found]

    def _fail(self, where: str) -> None:
        if self.faults and where == self.fails_at:
            self.looks += 1
            raise self.faults.pop(0)

    def close(self) -> None:
        pass


SETTINGS = Settings.model_validate({"prefix": "w.", "secret": "s", "bootstrap_servers": "k:1"})


def over_after(topic: Topic, looks: int) -> Any:
    return lambda: topic.looks >= looks


@pytest.mark.parametrize("where", ["opening", "reading"])
def test_a_copy_that_cannot_read_that_it_is_one_waits_all_the_same(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    topic = Topic(monkeypatch, COPY)
    topic.faults, topic.fails_at = [BrokerError("the broker is away, or it is not allowed")] * 6, where
    Turns(SETTINGS, "deliver").wait(over_after(topic, 20))
    assert topic.looks == 20, "it waited until it was asked to end"


def test_who_is_no_copy_begins_as_soon_as_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(monkeypatch)
    topic.faults = [BrokerError("the broker is away")] * 3
    Turns(SETTINGS, "ingest").wait(over_after(topic, 100))
    assert topic.looks == 4
    topic.faults = [TopicMissing("of an earlier release")]
    Turns(SETTINGS, "ingest").wait(over_after(topic, 100))
    assert topic.looks == 5


def test_a_copy_that_has_taken_over_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = Topic(monkeypatch, COPY, TAKEN_OVER)
    Turns(SETTINGS, "ingest").wait(over_after(topic, 100))
    assert topic.looks == 1


def test_whose_turn_it_is_may_be_read_by_all_who_wait_for_theirs() -> None:
    may = {
        right.role for right in rights(SETTINGS, ["crm"]) if right.name == "w.workspace" and "Read" in right.operations
    }
    assert may >= WAITING


def asked(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=4) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(("record", "does"), [(COPY, "wait"), (WENT_ON, "rest")])
def test_who_waits_or_rests_answers_whoever_asks_whether_it_is_alive(
    monkeypatch: pytest.MonkeyPatch, record: tuple[bytes, bytes], does: str
) -> None:
    Topic(monkeypatch, record)
    port, ended = free_port(), threading.Event()
    settings = SETTINGS.model_copy(update={"metrics_port": port})
    working = threading.Thread(target=getattr(Turns(settings, "ingest"), does), args=(ended.is_set,))
    working.start()
    try:
        for _ in range(100):
            try:
                told = asked(port)
                break
            except OSError:
                ended.wait(0.02)
        else:
            raise AssertionError("nothing answers")
        assert "process_cpu_seconds_total" in told
    finally:
        ended.set()
        working.join()
    # The role's own come at the same place.
    with pytest.raises(OSError):
        asked(port)
