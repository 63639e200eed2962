"""A client that is not read from for days takes no more memory than on the first of them.

librdkafka keeps statistics until somebody polls: with each of them some ten kilobytes more. Here one comes every ten
milliseconds, and what was kept is seen when the client is read from again.
"""

import json
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.admin import create_topics
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import KafkaPlans, apply
from pipeline.runtime.kafka import lifeline
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaLogReader
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings

_AT_REST_S = 1.0


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statistics that clients were told."""
    found: list[str] = []
    monkeypatch.setattr(lifeline, "_EVERY_MS", 10)
    monkeypatch.setattr(lifeline.Lifeline, "heard", lambda _, text: found.append(text))
    return found


def test_a_restore_that_is_over_leaves_nobody_who_keeps_statistics(workspace: Settings, heard: list[str]) -> None:
    make_topic(workspace, "changelog")
    produce_all(workspace, "changelog", [(b"a", b"1")], partition=0)
    reader = KafkaLogReader(KafkaConfig(workspace.client_properties(), workspace.prefix), "unify")
    read(reader)
    time.sleep(_AT_REST_S)
    heard.clear()
    began = time.monotonic()
    read(reader)
    assert are_new(heard, began)
    reader.close()


def are_new(heard: list[str], began_s: float) -> bool:
    """Whether all statistics were made since then. They tell when: in microseconds of the same clock."""
    return all(json.loads(each)["ts"] > began_s * 1_000_000 for each in heard)


def make_topic(settings: Settings, name: str) -> None:
    """One partition."""
    name, admin = settings.topic(name), AdminClient(settings.client_properties())
    admin.create_topics([NewTopic(name, 1)])[name].result(30)


def read(reader: KafkaLogReader) -> None:
    """Read the one record there is, as a restore does."""
    reader.open(("changelog", 0), 0)
    until = time.monotonic() + 30
    while reader.position(("changelog", 0)) == 0:
        assert time.monotonic() < until
        reader.read_changes(10, 0.01)
    reader.close_partition(("changelog", 0))


def test_a_worker_that_asks_for_plans_now_and_then_keeps_no_statistics_in_between(
    workspace: Settings, heard: list[str]
) -> None:
    create_topics(workspace)
    apply(workspace, load_text("segment: one\nwhen: {performed: {event: A}}\n"))
    plans = KafkaPlans(workspace)
    plans(1)
    apply(workspace, load_text("segment: two\nwhen: {performed: {event: B}}\n"))
    time.sleep(_AT_REST_S)
    heard.clear()
    began = time.monotonic()
    plans(2)
    assert are_new(heard, began)
    plans.close()
