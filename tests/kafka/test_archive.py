"""The archive on a real broker: its writer is killed, and each record is in it once; where the topic has forgotten, a
new rule has the members of all history still."""

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry

from pipeline.admin import create_topics
from pipeline.archive.files import TOPICS, Archive
from pipeline.archive.role import ArchiveRole
from pipeline.errors import BrokerError
from pipeline.identifiers import Keys
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.runtime.ports import Record
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment
from tests.kafka.test_backfill import BEFORE, NEW, Shop


def in_topic(settings: Settings, topic: str) -> list[Record]:
    with TopicReader(settings, [topic], as_they_stand=True) as reader:
        return sorted(reader.read_to_end(), key=lambda one: (one.partition, one.offset))


def in_archive(archive: Archive, topic: str) -> list[Record]:
    return [one for partition in archive.partitions(topic) for one in archive.records(topic, partition)]


def archived_events(archive: Archive) -> Iterator[Any]:
    return (part for partition in archive.partitions("events") for part in archive.parts("events", partition))


def test_a_killed_archive_has_each_record_once_and_is_history_where_the_topic_ends(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=2)
    create_topics(settings)
    shop, rng = Shop(5), random.Random(5)
    archive = Archive(str(tmp_path / "archive"))
    here = {
        "HEADWATER_ARCHIVE": str(tmp_path / "archive"),
        "HEADWATER_ARCHIVE_EVERY_S": "0.4",
        "HEADWATER_ARCHIVE_ROWS": "300",
    }
    with Deployment(settings, tmp_path) as running:
        for role in ("ingest", "identity", "unify"):
            running.start(role, **here)
        running.apply(BEFORE)
        for kills in range(2):
            role = running.start("archive", **here)
            files = len(list(archived_events(archive)))
            running.produce(shop.visits(900))
            running.wait_until(lambda files=files: len(list(archived_events(archive))) > files, "it works")  # type: ignore[misc]
            time.sleep(rng.uniform(0, 0.6))
            running.produce(shop.logins() if kills == 1 else shop.visits(100))
            role.kill()
        running.start("archive", **here)
        running.wait_until_idle()

        def all_of(topic: str) -> bool:
            return in_archive(archive, topic) == in_topic(settings, topic)

        for topic in TOPICS:
            running.wait_until(lambda topic=topic: all_of(topic), f"{topic} is archived, each record once", 30)  # type: ignore[misc]
        # The topic forgets nearly all of it.
        admin = AdminClient(settings.client_properties())
        events = settings.topic("events")
        ends = {
            number: max(one.offset for one in in_topic(settings, "events") if one.partition == number)
            for number in (0, 1)
        }
        cut = [TopicPartition(events, number, end - 20) for number, end in ends.items()]
        for future in admin.delete_records(cut).values():
            future.result(120)
        running.produce(shop.visits(100))
        running.apply(BEFORE + "---" + NEW)
        right = shop.members(Keys(settings.secret_bytes()))
        assert right, "the rule would be nobody's"
        running.wait_until(lambda: running.members("five_pricing_pages") == right, "the members of all history")
        shown = running.command("archive", "status", **here).stdout
        assert "profile-changes" in shown
        opened = running.command("archive", "cat", "events", **here).stdout
        assert opened.count('"Page Viewed"') >= 1_700


def test_what_a_topic_forgets_before_it_is_archived_is_a_gap_and_not_passed_over(
    new_workspace: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = new_workspace(partitions=1)
    create_topics(settings)
    archive, at = Archive(str(tmp_path)), ("events", 0)
    produce_all(settings, "events", [(b"k", b"%d" % number) for number in range(10)])
    archive.write(*at, in_topic(settings, "events")[:2], 0, 2)
    admin = AdminClient(settings.client_properties())
    for future in admin.delete_records([TopicPartition(settings.topic("events"), 0, 6)]).values():
        future.result(120)

    def archived() -> None:
        role = ArchiveRole(settings, archive, CollectorRegistry())
        try:
            for now_s in range(10):
                role.turn(now_s)
            role.finish()
        finally:
            role.close()

    with monkeypatch.context() as patch:
        # It stood still while the topic forgot.
        patch.setattr("pipeline.archive.role._starts", lambda *_: {at: 2})
        with pytest.raises(BrokerError, match="not in the topic any more"):
            archived()
    archived()
    assert [(one.first, one.next) for one in archive.parts(*at)] == [(0, 2), (6, 10)]
