"""Where topics have forgotten, history begins in the archive: of a person's export, and of a replay."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.admin import create_topics
from pipeline.archive.files import TOPICS, Archive
from pipeline.settings import Settings
from pipeline.workspace_view import view_of
from tests.kafka.deployment import Deployment
from tests.kafka.test_archive import in_archive, in_topic
from tests.kafka.test_replay import RULES, Visits, replayed, same


def forget(settings: Settings, topic: str, left: int) -> int:
    """Delete a topic's records but for the last few of each partition; how many are gone."""
    ends: dict[int, int] = {}
    for one in in_topic(settings, topic):
        ends[one.partition] = one.offset
    cut = [TopicPartition(settings.topic(topic), number, max(0, end - left)) for number, end in ends.items()]
    before = len(in_topic(settings, topic))
    admin = AdminClient(settings.client_properties())  # kept: with it its requests would go
    for future in admin.delete_records(cut).values():
        future.result(120)
    return before - len(in_topic(settings, topic))


def exported(running: Deployment, folder: str, **more: str) -> dict[str, Any]:
    running.command("privacy", "export", "user_id:u7", "--to", str(running.folder / folder), **more)
    found: dict[str, Any] = json.loads((running.folder / folder / "export.json").read_text())
    return {name: found[name] for name in ("profile", "identifiers", "events", "profile_changes", "segment_changes")}


def features(running: Deployment, as_of: str = "", **more: str) -> list[dict[str, Any]]:
    """Those of everybody, but for when they were asked for."""
    out, at = running.folder / "features.parquet", as_of or str(time.time_ns() // 1_000_000)
    running.command("features", "export", "--as-of", at, "--out", str(out), **more)
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(out).drop_columns(["as_of"]).to_pylist()
    return rows


def test_an_export_and_a_replay_begin_in_the_archive(new_workspace: Callable[..., Settings], tmp_path: Path) -> None:
    settings = new_workspace(partitions=3)
    create_topics(settings)
    here = {"HEADWATER_ARCHIVE": str(tmp_path / "archive"), "HEADWATER_ARCHIVE_EVERY_S": "0.5"}
    archive, visits = Archive(here["HEADWATER_ARCHIVE"]), Visits(3)
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify", "archive"):
            running.start(role, **here)
        running.apply(RULES)
        running.produce(visits.some(500))
        running.wait_until_idle()
        for topic in TOPICS:
            running.wait_until(
                lambda topic=topic: in_archive(archive, topic) == in_topic(settings, topic),  # type: ignore[misc]
                f"{topic} is archived",
                30,
            )
        before = exported(running, "before")
        assert len(before["events"]) > 3 and before["segment_changes"] and len(before["profile_changes"]) > 3
        assert {"user_id:u7", "anonymous_id:a7"} == set(before["identifiers"])
        as_of, features_before = str(time.time_ns() // 1_000_000), features(running)
        assert all(forget(settings, topic, left=2) > 20 for topic in TOPICS)
        poorer = exported(running, "poorer")
        assert len(poorer["events"]) < len(before["events"]), "the topics alone have forgotten"
        assert exported(running, "after", **here) == before, "nothing is missing, and nothing comes twice"
        assert features(running, as_of) != features_before, "the topic alone has forgotten"
        assert features(running, as_of, **here) == features_before
        running.produce(visits.some(60))
        running.wait_until_idle()
        later = exported(running, "later", **here)
        assert all(one in later["events"] for one in before["events"])
        ids = [one["message_id"] for one in later["events"]]
        assert len({one["source"] for one in later["events"]}) == len(ids), "each raw record once"

        old = Deployment(settings.model_copy(update={"archive": here["HEADWATER_ARCHIVE"]}), tmp_path)
        with _replayed(old, here) as new:
            words = ("replay", "run", "--with-roles", "--until-caught-up")
            new.command(*words, HEADWATER_SOURCES=",".join(new.settings.sources))
            new.start("identity")
            new.start("unify")
            running.wait_until(lambda: not same(new, running), f"the same people: {same(new, running)}")
            position = view_of(new.settings).position
            assert position is not None and position.copied >= 560

        # A hole between the two is no history to begin with.
        Path(archive.parts("events", 0)[1].path).unlink()
        forget(settings, "events", left=0)
        with pytest.raises(AssertionError, match="neither in the archive nor in the topic"):
            running.command("replay", "begin", f"hole{settings.prefix}", **here)


def _replayed(old: Deployment, here: dict[str, str]) -> Deployment:
    """As `replayed` makes it, by a command that knows the archive."""
    environment = old.environment
    old.environment = lambda slot="0", **more: environment(slot, **{**here, **more})  # type: ignore[method-assign]
    return replayed(old, "again", 2)
