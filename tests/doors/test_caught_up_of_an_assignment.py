"""Who is assigned the sources says of them what it has asked itself."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from pipeline import roles
from pipeline.records import decode_events_record
from pipeline.settings import Settings

SECOND = 1_000


class Said:
    """What a stage says, as the instants up to which everything has been read."""

    def __init__(self) -> None:
        self.instants: list[int] = []

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        self.instants.append(decode_events_record(value).received)


def test_what_was_asked_before_a_rebalance_proves_nothing_of_the_time_since(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer, answers = threading.Event(), iter([True, False])

    def within(_: float) -> bool:
        may_answer.wait(10)
        return next(answers)

    monkeypatch.setattr(roles, "SourcesAtEnd", lambda *_: SimpleNamespace(within=within))
    for name in ("KafkaPlans", "FollowedVault", "ensure_keys", "_checks"):
        monkeypatch.setattr(roles, name, lambda *_: SimpleNamespace())
    metrics: Any = SimpleNamespace(ingested=None)
    make = roles._stage_maker("ingest", Settings(secret="the secret of a test"), metrics, CollectorRegistry())
    said: Any = Said()
    state: Any = None

    def asked() -> None:
        for thread in threading.enumerate():
            if thread.name == "sources":
                thread.join()

    first: Any = make(0)
    first.wake(state, said, 100 * SECOND)
    may_answer.set()
    asked()
    # The process was stopped for a minute, and is assigned its partitions anew: what has come meanwhile is not read.
    second: Any = make(0)
    for turn in range(3):
        second.wake(state, said, 160 * SECOND + turn)
        asked()
    assert said.instants == []
