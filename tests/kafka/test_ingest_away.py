"""Ingest was away: what waited for it was received when it came, and comes in that order."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewPartitions

from pipeline.admin import admin_client, create_topics
from pipeline.identifiers import Keys
from pipeline.runtime.kafka.sources import SourcesAtEnd
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

WITHIN_S = 8
LEFT_BEHIND = f"""
segment: left_behind
when:
  sequence:
    steps: [{{event: Cart Viewed}}, {{not: {{event: Order Completed}}, within: {WITHIN_S}s}}]
"""
PEOPLE = [f"person-{number}" for number in range(12)]


@pytest.fixture
def deployment(new_workspace: Callable[..., Settings], tmp_path: Path) -> Iterator[Deployment]:
    settings = new_workspace(partitions=3)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        yield running


def track(name: str, person: str, number: int = 0) -> dict[str, Any]:
    return {"type": "track", "event": name, "userId": person, "messageId": f"{name}-{person}-{number}"}


def events(deployment: Deployment) -> list[dict[str, Any]]:
    """What ingest has written, partition by partition."""
    return [value for value in deployment.values("events") if value["kind"] == "event"]


def test_a_deadline_that_passed_while_ingest_was_away_waits_for_what_came_before_it(deployment: Deployment) -> None:
    ingest, _, _ = (deployment.start(role) for role in ("ingest", "identity", "unify"))
    deployment.apply(LEFT_BEHIND)
    deployment.produce(track("Cart Viewed", person) for person in PEOPLE)
    deployment.wait_until(lambda: len(events(deployment)) == len(PEOPLE), "all carts are seen")
    ingest.kill()
    buyers = PEOPLE[::2]
    deployment.produce(track("Order Completed", person) for person in buyers)
    time.sleep(WITHIN_S + 2)
    assert deployment.values("segment-changes") == [], "nobody knows yet who has not bought"
    deployment.start("ingest")
    deployment.wait_until(lambda: len(deployment.values("segment-changes")) >= len(PEOPLE[1::2]), "the others entered")
    deployment.wait_until_idle()
    changes = deployment.values("segment-changes")
    keys = Keys(deployment.settings.secret_bytes())
    assert {each["profile_id"] for each in changes} == {keys.profile_id(f"user_id:{one}") for one in PEOPLE[1::2]}
    carts = {each["identifiers"][0]: each["time"] for each in events(deployment) if each["event"] == "Cart Viewed"}
    due = {keys.profile_id(one): at + WITHIN_S * 1_000 for one, at in carts.items()}
    assert all((each["change"], each["at"]) == ("entered", due[each["profile_id"]]) for each in changes)


def test_whether_the_sources_are_read_is_about_the_moment_of_the_question(deployment: Deployment) -> None:
    settings = deployment.settings
    deployment.produce(track("Page Viewed", person) for person in PEOPLE)
    group = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": settings.prefix + "ingest"})
    places = [TopicPartition(settings.topic("raw"), number) for number in range(3)]
    ends = {place.partition: group.get_watermark_offsets(place, timeout=30)[1] for place in places}

    def commit(short_by: int) -> None:
        group.commit(offsets=[TopicPartition(p.topic, p.partition, ends[p.partition] - short_by) for p in places])

    sources = SourcesAtEnd(settings, "ingest", ["raw"])
    commit(short_by=1)
    assert not sources.within(0.3), "nothing more is committed in this time"
    later = threading.Timer(0.5, commit, [0])
    later.start()
    began = time.monotonic()
    assert sources.within(60), "what is committed meanwhile counts"
    assert 0.4 < time.monotonic() - began < 30
    assert sources.within(0)
    deployment.produce([track("Page Viewed", PEOPLE[0], 1)])
    assert not sources.within(0), "and what has come since the last question does too"
    later.join()
    group.close()


def test_partitions_that_a_source_is_given_are_waited_for_and_read(deployment: Deployment) -> None:
    settings = deployment.settings
    sources = SourcesAtEnd(settings, "ingest", ["raw"])
    deployment.start("ingest")
    deployment.produce(track("Page Viewed", person) for person in PEOPLE)
    deployment.wait_until(lambda: sources.within(1), "what was there is read")
    raw = settings.topic("raw")
    client = admin_client(settings)
    for future in client.create_partitions([NewPartitions(raw, 4)]).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": settings.bootstrap_servers})
    producer.produce(raw, msgspec.json.encode(track("Page Viewed", PEOPLE[0], 1)), partition=3)
    producer.flush(30)
    assert not sources.within(0), "ingest cannot have heard of it yet"
    deployment.wait_until(lambda: len(events(deployment)) == len(PEOPLE) + 1, "it is read", timeout_s=60)
    deployment.wait_until(lambda: sources.within(1), "all is read")


def test_a_backlog_of_uneven_partitions_comes_in_the_order_in_which_it_was_taken_in(deployment: Deployment) -> None:
    for number in range(8):
        # One partition has nearly everything.
        deployment.produce(track("Page Viewed", PEOPLE[0], 400 * number + each) for each in range(400))
        deployment.produce(track("Page Viewed", person, number) for person in PEOPLE[1:])
        time.sleep(0.3)
    time.sleep(3)
    deployment.start("ingest")
    many = 8 * (400 + len(PEOPLE) - 1)
    deployment.wait_until(lambda: len(events(deployment)) == many, "all of it is written")
    received: dict[int, list[int]] = {}
    for record in deployment.read("events"):
        value = msgspec.json.decode(record.value or b"")
        if value["kind"] == "event":
            received.setdefault(record.partition, []).append(value["received"])
    assert sum(map(len, received.values())) == many and len(received) == 3
    assert all(times == sorted(times) for times in received.values())
