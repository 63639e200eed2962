"""The role and its sources: what is wrong with one is no other's trouble."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from connectors.base import Options, SecretReference
from connectors.sources import Pulled, Source
from pipeline.definitions.catalog import Catalog
from pipeline.records import Definition, Generation, encode
from pipeline.settings import Settings
from pipeline.sources.pulling import PullMetrics
from pipeline.sources.role import SourceRole


class SlowOptions(Options):
    token: SecretReference | None = None


class Slow(Source):
    """Does not come back before it may."""

    kind = "slow"
    options_model = SlowOptions
    called, may_end = threading.Event(), threading.Event()

    def poll(self, position: str | None, limit: int) -> Sequence[Pulled]:
        self.called.set()
        assert self.may_end.wait(300)
        return []


class Log:
    """Keeps nothing."""

    opened: list[str] = []

    def __init__(self, settings: Settings, name: str, topic: str) -> None:
        self.opened.append(name)

    def position(self) -> None:
        return None

    def write(self, records: Any, position: str) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SourceRole]:
    Log.opened = []
    monkeypatch.setattr("pipeline.sources.role.KafkaPullLog", Log)
    monkeypatch.setattr("pipeline.definitions.sources.source_kind", lambda kind: Slow)
    settings = Settings.model_validate({"state_dir": tmp_path, "secret": "s", "bootstrap_servers": "127.0.0.1:1"})
    role, catalog = SourceRole(settings, None, PullMetrics(CollectorRegistry())), Catalog()

    def in_force(number: int, more: Any = None, **sources: tuple[int, str]) -> SourceRole:
        for name, (version, topic) in sources.items():
            body = {"source": name, "topic": topic, "pull": {"kind": "slow", **(more or {})}}
            catalog.add(f"source/{name}/{version}".encode(), encode(Definition("source", name, version, body)))
        members = {f"source/{name}": version for name, (version, _) in sources.items()}
        catalog.add(b"generation/%d" % number, encode(Generation(number, members)))
        role.follow(catalog)
        return role

    return in_force


def up(role: SourceRole, source: str) -> float | None:
    samples = [sample for family in role._metrics.up.collect() for sample in family.samples]
    return next((sample.value for sample in samples if sample.labels["source"] == source), None)


def test_one_that_would_be_pulled_where_nobody_reads_stops_no_other(
    follow: Callable[..., SourceRole], caplog: pytest.LogCaptureFixture
) -> None:
    Slow.may_end.set()
    role = follow(1, lost=(1, "nowhere"), well=(1, "raw"))
    try:
        assert up(role, "lost") == 0
        give_up = time.monotonic() + 60
        while "well" not in Log.opened:
            assert time.monotonic() < give_up
        follow(1, lost=(1, "nowhere"), well=(1, "raw"))
        assert Log.opened == ["well"]
        follow(2, well=(1, "raw"))
        assert up(role, "lost") is None, "a source that is removed would be down for ever"
        assert "ingest does not read" in caplog.text
    finally:
        role.close()


def test_one_that_is_changed_while_it_hangs_holds_up_no_other(follow: Callable[..., SourceRole]) -> None:
    Slow.called.clear()
    Slow.may_end.clear()
    role = follow(1, slow=(1, "raw"))
    try:
        assert Slow.called.wait(60)
        begun = time.monotonic()
        follow(2, slow=(2, "raw"), other=(1, "raw"))
        assert time.monotonic() - begun < 100
        give_up = time.monotonic() + 60
        while Log.opened != ["slow", "other"]:
            assert time.monotonic() < give_up
        Slow.may_end.set()
        while Log.opened != ["slow", "other", "slow"]:
            assert time.monotonic() < give_up
            follow(2, slow=(2, "raw"), other=(1, "raw"))
        while up(role, "slow") is not None:
            assert time.monotonic() < give_up, "a source that has ended is still told of"
            follow(3, other=(1, "raw"))
    finally:
        Slow.may_end.set()
        role.close()


def test_a_secret_that_changes_in_its_file_needs_no_restart(follow: Callable[..., SourceRole], tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("first")
    Slow.may_end.set()

    def followed(opened: int) -> SourceRole:
        give_up = time.monotonic() + 60
        while True:
            role = follow(1, {"token": {"file": str(secret)}}, well=(1, "raw"))
            if len(Log.opened) >= opened:
                return role
            assert time.monotonic() < give_up
            time.sleep(0.01)

    role = followed(1)
    try:
        secret.write_text("first\n")
        followed(1)
        secret.write_text("other")
        followed(2)
        followed(2)
    finally:
        role.close()
    assert Log.opened == ["well"] * 2
