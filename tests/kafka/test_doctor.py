"""Faults that a real Kafka must tell of itself, planted on one: doctor names each. The others are in tests/doors."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.admin import alter_topics, create_topics, delete_topics, wanted_topics
from pipeline.doctor import Finding, examine
from pipeline.settings import Settings


@pytest.fixture
def made(workspace: Settings) -> Iterator[Settings]:
    create_topics(workspace)
    yield workspace
    delete_topics(workspace, [topic.name for topic in wanted_topics(workspace)])


def joined(settings: Settings, group: str, topic: str, **more: object) -> Consumer:
    """Somebody in a group, who has read what there is to read and commits nothing."""
    properties = {"group.id": f"{settings.prefix}{group}", "auto.offset.reset": "earliest", **more}
    consumer = Consumer({**settings.client_properties(), **properties, "enable.auto.commit": False})
    consumer.subscribe([settings.topic(topic)])
    deadline = time.monotonic() + 120
    while not consumer.assignment() and time.monotonic() < deadline:
        consumer.poll(0.1)
    return consumer


def spoken(settings: Settings, until: str = "") -> dict[str, Finding]:
    """What is not good, by subject; asked again until the broker has heard of what was planted."""
    deadline = time.monotonic() + 60
    while True:
        found = [each for each in examine(settings) if each.verdict != "good"]
        if not until or any(until in each.detail for each in found) or time.monotonic() > deadline:
            return {f"{each.subject}: {each.detail}": each for each in found}
        time.sleep(0.1)


def test_a_transaction_that_does_not_end(made: Settings) -> None:
    assert spoken(made) == {}
    stranger = Producer(
        {**made.client_properties(), "transactional.id": "a stranger", "transaction.timeout.ms": 60_000}
    )
    stranger.init_transactions(120)
    stranger.begin_transaction()
    stranger.produce(made.topic("profiles"), b"{}", b"key", 0)
    stranger.flush(120)
    try:
        (found,) = spoken(made)
    finally:
        stranger.abort_transaction(120)
    assert f"readers see nothing behind it: {made.topic('profiles')}/0 from 0 on" in found
    assert spoken(made) == {}


def test_settings_members_and_a_stuck_role(made: Settings) -> None:
    assert spoken(made) == {}
    changed = {
        "unify-changelog": {"cleanup.policy": "delete"},
        "links": {"retention.ms": "3600000"},
        "events": {"retention.ms": "604800000"},
    }
    alter_topics(made, {made.topic(name): config for name, config in changed.items()})
    producer = Producer(made.client_properties())
    for number in range(300):
        producer.produce(made.topic("raw"), b"{}", partition=number % 2)
    producer.flush(120)
    stuck = joined(made, "ingest", "raw", **{"group.instance.id": "w"})
    stranger = joined(made, "identity", "identity-edges")
    try:
        found = spoken(made, "604800000")
    finally:
        stuck.close()
        stranger.close()
    said = "\n".join(found)
    assert "cleanup.policy=delete: people's state would be deleted with age" in said
    assert "retention.ms=3600000" in said and "what a role has not read by then is lost" in said
    assert "retention.ms=604800000" in said and "missing to new rules and to replays" in said
    assert f"group {made.prefix}ingest: 1 working, 300 records behind, and stuck: nothing was done in 3 s" in said
    assert f"members of {made.prefix}identity: 1 of 1 in the group have no member id: headwater at 127.0.0.1" in said
    assert len(found) == 5 and all(each.what_to_do for each in found.values())


def test_one_record_that_stays_and_ends_of_transactions_that_are_none(made: Settings) -> None:
    edges = TopicPartition(made.topic("identity-edges"), 0)
    writer = Producer({**made.client_properties(), "transactional.id": "somebody"})
    writer.init_transactions(120)
    for is_kept in (True, False):  # a record that was read, its end, one that was taken back, and the end of that
        writer.begin_transaction()
        writer.produce(edges.topic, b"{}", b"key", edges.partition)
        writer.flush(120)
        writer.commit_transaction(120) if is_kept else writer.abort_transaction(120)
    identity = joined(made, "identity", "identity-edges", **{"group.instance.id": "i"})
    ingest = joined(made, "ingest", "raw", **{"group.instance.id": "w"})
    try:
        identity.commit(offsets=[TopicPartition(edges.topic, edges.partition, 1)], asynchronous=False)
        assert spoken(made) == {}
        (told,) = [each for each in examine(made) if each.subject == f"group {made.prefix}identity"]
        assert told.detail == "1 working, nothing waits"
        producer = Producer(made.client_properties())
        producer.produce(made.topic("raw"), b"{}", partition=1)
        producer.flush(120)
        (found,) = spoken(made)
        assert found.startswith(f"group {made.prefix}ingest: 1 working, 1 record behind, and stuck: nothing was done")
    finally:
        identity.close()
        ingest.close()
