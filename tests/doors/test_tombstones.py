"""How long tombstones are kept is the topic's to say: a topic made by hand may keep them for a day, as Kafka does."""

from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import admin, roles
from pipeline.admin import DELETE_RETENTION_MS, tombstones_kept_ms
from pipeline.errors import TopicsError
from pipeline.runtime.failpoints import no_failpoints
from pipeline.runtime.settings import WorkerSettings
from pipeline.settings import Settings
from pipeline.topology import DAY_MS

SETTINGS = Settings(bootstrap_servers="127.0.0.1:1", prefix="w.", secret="s")
DAY = {"delete.retention.ms": str(DAY_MS)}
WEEKS = {"delete.retention.ms": str(2 * DELETE_RETENTION_MS)}
HASTENED = {"delete.retention.ms": "60000", "file.delete.delay.ms": "1001"}


@pytest.mark.parametrize(
    ("configs", "kept_ms"),
    [
        ({"w.profiles": DAY, "w.identities": WEEKS}, DAY_MS),
        ({"w.profiles": WEEKS}, DELETE_RETENTION_MS),
        ({"w.profiles": WEEKS, "w.identities": HASTENED}, DELETE_RETENTION_MS),
        ({}, DELETE_RETENTION_MS),
    ],
)
def test_the_shortest_counts(monkeypatch: pytest.MonkeyPatch, configs: Any, kept_ms: int) -> None:
    monkeypatch.setattr(admin, "topic_configs", lambda _, names: {one: configs[one] for one in names if one in configs})
    assert tombstones_kept_ms(SETTINGS, ["profiles", "identities"]) == kept_ms


def test_who_may_not_see_it_goes_by_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> Any:
        raise TopicsError("The topic's settings could not be read.", "w.profiles", "give the right")

    monkeypatch.setattr(admin, "topic_configs", refused)
    assert tombstones_kept_ms(SETTINGS, ["profiles"]) == DELETE_RETENTION_MS


class Made(Exception):
    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings


@pytest.mark.parametrize(("role", "kept_ms"), [("unify", DAY_MS), ("identity", DAY_MS), ("ingest", None)])
def test_a_worker_goes_by_its_changelog(monkeypatch: pytest.MonkeyPatch, role: str, kept_ms: int | None) -> None:
    def made(_: Any, __: Any, ___: Any, settings: WorkerSettings, *more: Any) -> Any:
        raise Made(settings)

    def configs(_: Settings, names: Any) -> Any:
        assert list(names) == [f"w.{role}-changelog"]
        return dict.fromkeys(names, DAY)

    monkeypatch.setattr(admin, "topic_configs", configs)
    monkeypatch.setattr(roles, "kafka_adapters", lambda *_: SimpleNamespace(history=None))
    monkeypatch.setattr(roles, "_stage_maker", lambda *_: None)
    monkeypatch.setattr(roles, "Worker", made)
    with pytest.raises(Made) as found:
        roles.run_stage(role, SETTINGS, lambda: True, no_failpoints)
    assert kept_ms is None or found.value.settings.tombstone_retention_ms == kept_ms
