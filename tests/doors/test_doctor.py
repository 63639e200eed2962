"""What `headwater doctor` says of restores, from what the workers of this machine have left in the state folder, and
of how soon Kafka answers."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pipeline.doctor import Finding, examine, facts
from pipeline.doctor.machine import secret
from pipeline.errors import BrokerError
from pipeline.runtime.progress import Progress, RestoringPartition
from pipeline.settings import Settings

NOW_MS = 1_790_000_000_000


def findings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *told: Progress) -> list[Finding]:
    for each in told:
        folder = tmp_path / "state" / each.role
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"progress-{each.slot}.json").write_bytes(msgspec.json.encode(each))
    settings = Settings.model_validate({"state_dir": tmp_path / "state", "cache_dir": tmp_path, "secret": "x" * 20})

    def none(_: Settings) -> Settings:
        raise BrokerError("There is no Kafka here.")

    monkeypatch.setattr("pipeline.doctor.find_kafka", none)
    return [each for each in examine(settings, lambda: NOW_MS) if each.subject.startswith("state of")]


def restoring(at_ms: int, **changes: Any) -> Progress:
    partitions = [RestoringPartition(1, 100, 700, 1_100), RestoringPartition(2, 0, 0, 2_000)]
    given: dict[str, Any] = {"restoring": partitions, "seconds_left": 12.4, "records_per_second": 193.5} | changes
    return Progress("unify", "0", os.getpid(), at_ms, NOW_MS - 9_000, [0], **given)


def test_progress_and_time_to_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = findings(tmp_path, monkeypatch, restoring(NOW_MS - 500))
    assert (found.subject, found.verdict) == ("state of unify, slot 0", "good")
    assert found.detail == (
        "restoring 2 of 3 partitions: 20% read back, 2,400 changelog offsets left at 194 a second, ready in about 12 s"
    )


def test_a_target_that_is_not_known_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = findings(
        tmp_path, monkeypatch, restoring(NOW_MS - 500, restoring=[RestoringPartition(1, 0, 0, None)], seconds_left=None)
    )
    assert found.detail == "restoring 1 of 2 partitions; waiting to hear from the Kafka how much there is"


def test_a_worker_that_fell_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = findings(tmp_path, monkeypatch, restoring(NOW_MS - 70_000))
    assert found.verdict == "warning" and "nothing was heard of it for 70 s" in found.detail
    assert "headwater run unify" in found.what_to_do


def test_when_it_was_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = Progress("identity", "0", 1, NOW_MS - 3_600_000, NOW_MS - 3_603_250, [0], [], NOW_MS - 3_600_000)
    (found,) = findings(tmp_path, monkeypatch, ready)
    assert (found.verdict, found.subject) == ("good", "state of identity, slot 0")
    assert found.detail == "1 partition ready 3.2 s after they were assigned, at 2026-09-21 13:13:20Z"


def test_a_secret_that_is_not_the_kept_one_is_told(tmp_path: Path) -> None:
    def said(configured: str) -> tuple[str, str]:
        settings = Settings.model_validate({"state_dir": tmp_path, "cache_dir": tmp_path, "secret": configured})
        [found] = list(secret(settings, 0))
        return found.verdict, found.detail

    assert said("a" * 64) == ("good", "configured")
    (tmp_path / "secret").write_text("a" * 64 + "\n")
    assert said("a" * 64) == ("good", "configured")
    verdict, what = said("b" * 64)
    assert verdict == "warning" and "another one is kept in" in what and "aaa" not in what and "bbb" not in what


def test_a_secret_that_can_be_guessed_is_told(tmp_path: Path) -> None:
    [found] = secret(Settings.model_validate({"state_dir": tmp_path, "secret": "short"}), 0)
    assert found.verdict == "warning" and "has 5 characters" in found.detail and "openssl rand" in found.what_to_do
    [found] = secret(Settings.model_validate({"state_dir": tmp_path, "secret": "x" * 16}), 0)
    assert found.verdict == "good"


@pytest.mark.parametrize("slow", [0, 1])
def test_how_soon_kafka_answers_is_without_connecting(monkeypatch: pytest.MonkeyPatch, slow: int) -> None:
    clock, asked = [0.0], [0]

    def list_topics(timeout: float) -> SimpleNamespace:
        clock[0] += 0.6 if asked[0] == slow else 0.001
        asked[0] += 1
        return SimpleNamespace(brokers={1: None}, topics={})

    monkeypatch.setattr(facts, "admin_client", lambda _: SimpleNamespace(list_topics=list_topics))
    monkeypatch.setattr(facts.time, "monotonic", lambda: clock[0])
    cluster = facts.KafkaFacts(Settings(bootstrap_servers="k:9092")).cluster()
    assert (round(cluster.first_ms), round(cluster.again_ms)) == (600, 1)
