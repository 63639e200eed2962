"""Keys that are followed, and do not come any more: whoever needs them stops, and gives up no event."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import BrokerError
from pipeline.privacy import vault
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.poison import blame
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from pipeline.vault import KeyRing, Sealer

SETTINGS = Settings(secret="the secret of a test")
RING = KeyRing()
ROOT = tuple(Record("keys", 0, 0, key, value) for key, value in RING.begin(bytes(16)))


class Reader:
    """The topic `keys` with a root, or without; then nothing comes, or the broker is gone."""

    records: tuple[Record, ...] = ()
    is_gone = False

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def read_to_end(self) -> Iterator[Record]:
        yield from self.records

    def read(self, *_: Any) -> list[Record]:
        if self.is_gone:
            raise BrokerError("Reading failed.")
        time.sleep(0.01)
        return []

    def close(self) -> None:
        pass


SEALED = Sealer(RING).seal(b"0" * 32, "Page Viewed", b"{}")


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "TopicReader", Reader)


def test_an_event_that_comes_before_the_keys_is_no_poison() -> None:
    with vault.FollowedVault(SETTINGS) as followed:
        with pytest.raises(BrokerError, match="are not there") as told:
            followed.open(SEALED)
        assert followed.open(b"{}") == b"{}", "what was never sealed needs none"
    assert isinstance(blame(told.value, 0), WorkerStopped)


def test_who_opens_events_is_told_that_the_keys_are_not_followed_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader, "records", ROOT)
    with vault.FollowedVault(SETTINGS) as followed:
        assert followed.open(SEALED) == b"{}"
    monkeypatch.setattr(Reader, "is_gone", True)
    with vault.FollowedVault(SETTINGS) as followed:
        followed._thread.join(10)
        with pytest.raises(BrokerError, match="Reading failed"):
            followed.open(SEALED)
