"""The main job on a real broker, each role a process: events in, profiles and segment changes out."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from pipeline import avro
from pipeline.admin import create_topics
from pipeline.identifiers import Keys
from pipeline.settings import Settings
from tests.kafka.deployment import Deployment

SEGMENTS = """
segment: active_now
when:
  performed: {event: Page Viewed, within: 5s}
---
segment: three_visits
when:
  performed: {event: Page Viewed, count: {at_least: 3}, within: 30d}
"""


@pytest.fixture
def deployment(
    new_workspace: Callable[..., Settings], tmp_path: Path, formatted: dict[str, object]
) -> Iterator[Deployment]:
    settings = new_workspace(partitions=2, **formatted)
    create_topics(settings)
    with Deployment(settings, tmp_path) as running:
        yield running
        stand_in_their_format(settings)


def stand_in_their_format(settings: Settings) -> None:
    """Look at the bytes: every record of ours stands in the workspace's format, as anybody who reads them sees it."""
    own = Consumer({"bootstrap.servers": settings.bootstrap_servers, "group.id": "looks", "enable.partition.eof": True})
    names = {settings.topic(topic): topic for topic in avro.RECORDS}
    known = own.list_topics(timeout=120).topics
    own.assign(
        [
            TopicPartition(name, number, OFFSET_BEGINNING)
            for name in names
            if name in known
            for number in known[name].partitions
        ]
    )
    left, seen = len(own.assignment()), set()
    while left:
        message = own.poll(10)
        assert message is not None
        value = message.value()
        if message.error() is not None:
            left -= 1
        elif value is not None:
            seen.add(names[message.topic()])
            first = value[0]
            assert first == 0 if settings.format == "avro" else first in b"{\x01", (message.topic(), value[:60])
    own.close()
    assert {"events", "links", "definitions"} <= seen, "something was looked at"


@pytest.fixture
def running(deployment: Deployment) -> Deployment:
    """All stages, and the segments above in force."""
    for role in ("ingest", "identity", "unify"):
        deployment.start(role)
    deployment.apply(SEGMENTS)
    return deployment


def page(message: str, **fields: Any) -> dict[str, Any]:
    return {"type": "page", "messageId": message, "properties": {"path": "/"}, **fields}


def profile_id(deployment: Deployment, identifier: str) -> str:
    return Keys(deployment.settings.secret_bytes()).profile_id(identifier)


def test_a_member_leaves_by_time_alone_at_the_exact_millisecond(running: Deployment) -> None:
    running.produce([page("m-1", userId="ada")])
    running.wait_until(lambda: len(running.values("segment-changes")) >= 2, "entered and exited")
    entered, exited = (c for c in running.values("segment-changes") if c["segment"] == "active_now")
    event_time = running.table("profiles")[entered["profile_id"]]["last_seen"]
    assert (entered["change"], entered["cause"], entered["at"]) == ("entered", "event", event_time)
    assert (exited["change"], exited["cause"], exited["at"]) == ("exited", "timer", event_time + 5_000)
    assert exited["sequence"] == entered["sequence"] + 1
    assert running.members("active_now") == set()


def test_a_login_makes_one_profile_of_two(running: Deployment) -> None:
    running.produce([page("m-1", anonymousId="a-1"), page("m-2", anonymousId="a-1"), page("m-3", userId="ada")])
    anonymous, ada = profile_id(running, "anonymous_id:a-1"), profile_id(running, "user_id:ada")
    running.wait_until(lambda: {anonymous, ada} <= set(running.table("profiles")), "two profiles")
    assert running.members("three_visits") == set()

    running.produce([{"type": "identify", "messageId": "m-4", "userId": "ada", "anonymousId": "a-1"}])
    running.wait_until(lambda: anonymous not in running.table("profiles"), "the anonymous profile's tombstone")
    running.wait_until(lambda: running.members("three_visits") == {ada}, "the segment that needed both halves")

    profile = running.table("profiles")[ada]
    assert profile["totals"]["Page Viewed"]["count"] == 3
    identifiers = {(pair["namespace"], pair["value"]) for pair in profile["identifiers"]}
    assert identifiers == {("user_id", "ada"), ("anonymous_id", "a-1")}
    merged = [change for change in running.values("profile-changes") if change["change"] == "merged"]
    assert [(change["profile_id"], change["into"]) for change in merged] == [(anonymous, ada)]
    pointers = running.table("identities")
    assert pointers["anonymous_id:a-1"]["profile_id"] == ada
    assert pointers[anonymous]["profile_id"] == ada


def test_an_unlink_gives_both_people_back_what_was_theirs(running: Deployment) -> None:
    login = {"type": "identify", "messageId": "m-9", "userId": "ada", "anonymousId": "a-1"}
    running.produce([page("m-1", anonymousId="a-1"), page("m-2", anonymousId="a-1"), login, page("m-3", userId="ada")])
    anonymous, ada = profile_id(running, "anonymous_id:a-1"), profile_id(running, "user_id:ada")
    running.wait_until(lambda: running.members("three_visits") == {ada}, "one person of three visits")

    running.command("identity", "unlink", "user_id:ada", "anonymous_id:a-1")
    running.wait_until(lambda: anonymous in running.table("profiles"), "the anonymous visitor again")
    running.wait_until(lambda: running.members("three_visits") == set(), "nobody has three visits")
    profiles = running.table("profiles")
    assert profiles[anonymous]["totals"]["Page Viewed"]["count"] == 2
    assert set(profiles[ada]["totals"]) == {"Page Viewed", "Identify"}
    assert profiles[ada]["totals"]["Page Viewed"]["count"] == 1

    running.command("identity", "relink", "anonymous_id:a-1", "user_id:ada")
    running.wait_until(lambda: running.members("three_visits") == {ada}, "one person again")


BAD = {
    "not JSON": b"{not json",
    "empty": b"",
    "wrong types": b'{"type":"track","event":7,"userId":"u"}',
    "no identifier": b'{"type":"track","event":"E","messageId":"x1"}',
    "junk identifiers": b'{"type":"track","event":"E","userId":"null","anonymousId":"[object Object]"}',
    "unknown type": b'{"type":"dance","userId":"u"}',
    "too large": b'{"type":"track","event":"E","userId":"u","properties":{"x":"' + b"y" * 990_000 + b'"}}',
    "not UTF-8": b'{"type":"track","event":"\xff\xfe","userId":"u"}',
    "a thousand deep": b'{"type":"track","event":"E","userId":"u","properties":' + b'{"x":' * 1000 + b"1" + b"}" * 1001,
}


def test_bad_input_becomes_dead_letters_that_a_person_understands_and_nothing_stops(running: Deployment) -> None:
    running.produce(BAD.values())
    future = {**page("m-future", userId="eve"), "timestamp": "2999-01-01T00:00:00Z"}
    running.produce([future, page("m-good", userId="ada")])
    running.wait_until(lambda: len(running.table("profiles")) == 2, "the good events' profiles")
    running.wait_until(lambda: len(running.values("dead-letters")) >= len(BAD), "the dead letters")
    letters = running.values("dead-letters")
    assert len(letters) == len(BAD)
    for letter in letters:
        assert letter["reason"] and len(letter["detail"].split()) >= 3
        assert letter["topic"] == "raw"
    reasons = [letter["reason"] for letter in letters]
    assert {"not_json", "empty"} <= set(reasons)
    eve = running.table("profiles")[profile_id(running, "user_id:eve")]
    assert eve["last_seen"] <= int(time.time() * 1000), "a future time counts as the time of its arrival"


@pytest.mark.parametrize("formatted", ["json"], indirect=True)
def test_two_workers_share_the_partitions_and_one_takes_over(deployment: Deployment) -> None:
    deployment.start("ingest")
    deployment.start("identity")
    first = deployment.start("unify", slot="a")
    second = deployment.start("unify", slot="b")
    deployment.apply(SEGMENTS)
    people = [f"p-{number}" for number in range(40)]
    deployment.produce(page(f"1-{person}", userId=person) for person in people)
    deployment.wait_until(lambda: len(deployment.table("profiles")) == len(people), "a profile for each")
    shares = [sorted(folder.name for folder in deployment.settings.state_dir.glob("unify/*"))]
    assert shares, "each partition has a store"

    assert first.stop() == 0
    deployment.produce(page(f"{round}-{person}", userId=person) for round in (2, 3) for person in people)
    deployment.wait_until(lambda: len(deployment.members("three_visits")) == len(people), "the state was taken over")
    profiles = deployment.table("profiles").values()
    assert [profile["totals"]["Page Viewed"]["count"] for profile in profiles] == [3] * len(people)
    assert second.process.poll() is None
