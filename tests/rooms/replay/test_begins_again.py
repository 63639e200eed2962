"""A copier whose Kafka goes away for a while begins again by itself, as long as that helps."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import BrokerError
from pipeline.replay import run as running
from pipeline.replay.errors import ReplayError
from pipeline.runtime.errors import Abortable, Retriable
from pipeline.settings import Settings

AWAY = BrokerError("The Kafka does not answer.", "somewhere:9092", "start it")
FAULTS = [AWAY, Abortable("undone"), Retriable("not answered")]


class World:
    """What a copier is put together from: each beginning meets the next of `faults`, after `takes_s` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, faults: list[Exception], takes_s: float = 1.0) -> None:
        self.faults = list(faults)
        self.takes_s = takes_s
        self.now_s = 1_000.0
        self.closed = 0
        self.state = SimpleNamespace(ended=True)
        view = SimpleNamespace(look=lambda: None, is_known=True, successor=None)
        fakes: dict[str, Any] = {
            "Copier": lambda _: self,
            "make_ports": self.make_ports,
            "origin_of": lambda _: None,
            "old_settings": lambda *_: None,
            "WorkspaceView": lambda _: view,
            "time": SimpleNamespace(monotonic=lambda: self.now_s, sleep=lambda _: None),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(running, name, fake)

    def make_ports(self, *_: object) -> None:
        self.now_s += self.takes_s
        if self.faults and isinstance(self.faults[0], BrokerError):
            raise self.faults.pop(0)

    def start(self) -> None:
        if self.faults:
            raise self.faults.pop(0)

    def close(self) -> None:
        self.closed += 1


def test_it_begins_again_whatever_of_its_kafka_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, FAULTS)
    running.run(Settings(), lambda: False)
    assert not world.faults and world.closed == 3


@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_never_begins_says_so_in_the_end(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    World(monkeypatch, [fault] * 100)
    with pytest.raises(ReplayError, match="stands still"):
        running.run(Settings(), lambda: False)


def test_what_failed_now_and_then_in_weeks_is_not_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, FAULTS * 100, takes_s=3_600.0)
    running.run(Settings(), lambda: False)
    assert not world.faults
