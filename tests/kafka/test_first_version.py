"""What the main job's first landed version wrote, on a real broker: its topics, offset by offset, as it left them.
Today's workers refuse its state with a word; the way that the docs tell for upgrades brings its history over, and its
people with it."""

import gzip
import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from pipeline.admin import alter_topics, create_topics, wanted_topics
from pipeline.runtime.kafka.groups import set_positions
from pipeline.settings import Settings
from tests.golden.make import FOLDER, LOGS
from tests.golden.test_golden import FIRST
from tests.golden.world import PARTITIONS, RULES, Workspace
from tests.kafka.deployment import Deployment
from tests.kafka.test_replay import copier, replayed

SECRET = "the secret of the golden folders"


def put_back(settings: Settings) -> None:
    """Write the topics and the positions of the groups as they were. Where its transactions ended, ours do: so every
    record stands at its offset."""
    kept = json.loads(gzip.decompress((FOLDER / FIRST / LOGS).read_bytes()))
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "transactional.id": f"{settings.prefix}put-back",
            "linger.ms": 5,
        }
    )
    producer.init_transactions(120)
    for topic, told in kept["topics"].items():
        for number, partition in enumerate(told["partitions"]):
            _put_back(producer, settings.topic(topic), number, partition)
    for group, offsets in kept["groups"].items():
        set_positions(settings, group, {(topic, number): at for topic, number, at, _ in offsets})


def _put_back(producer: Producer, topic: str, number: int, partition: dict[str, Any]) -> None:
    at = partition["start"]
    assert at == 0
    begun = False
    for offset, key, value, timestamp_ms in partition["records"]:
        if offset > at:  # a transaction ended here
            assert offset == at + 1
            producer.commit_transaction(120)
            begun, at = False, offset
        if not begun:
            producer.begin_transaction()
            begun = True
        producer.produce(topic, _bytes(value), _bytes(key), number, timestamp=timestamp_ms)
        at += 1
    if begun:
        producer.commit_transaction(120)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)


@pytest.mark.slow
def test_its_state_is_refused_and_its_history_becomes_the_same_people(
    new_workspace: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = new_workspace(partitions=PARTITIONS, output_partitions=PARTITIONS, secret=SECRET)
    create_topics(settings)
    # Its records are as old as they are; whenever the broker looks, it would delete them.
    alter_topics(settings, {topic.name: {"retention.ms": "-1"} for topic in wanted_topics(settings)})
    put_back(settings)
    golden = Workspace(tmp_path / "unused")
    golden.load(FOLDER / FIRST / LOGS)
    with Deployment(settings, tmp_path) as old:
        assert old.table("profiles") == golden.table("profiles")
        before = {topic: old.read(topic) for topic in ("profiles", "segment-changes", "unify-changelog")}
        # Its definitions were in its program; here they stand in the topic, as in every workspace since.
        old.apply(RULES)
        unify = old.start("unify")
        unify.process.wait(180)
        said = unify.log.read_text()
        assert unify.process.returncode != 0 and "written by another release" in said, said[-2_000:]
        assert "headwater replay" in said and "deploying.md" in said
        assert {topic: old.read(topic) for topic in before} == before and old.read("dead-letters") == []

        # docs/operations/deploying.md, Upgrading
        old.command("topics", "--create")
        with replayed(old, "now", PARTITIONS) as new:
            new.start("identity")
            new.start("unify")
            running = copier(new)
            new.wait_until(lambda: not different(golden, new), "the same people")
            new.wait_until_idle()
            assert different(golden, new) == []
            new.command("replay", "compare", settings.prefix, new.settings.prefix)
            running.terminate()
            running.wait(120)


def different(golden: Workspace, new: Deployment) -> list[str]:
    """What is otherwise than in the first version's own topics."""
    were, are = golden.table("profiles"), new.table("profiles")
    assert len(were) >= 30
    found = sorted(were.keys() ^ are.keys())
    for key in were.keys() & are.keys():
        for part in ("identifiers", "traits", "totals", "computed"):
            if were[key].get(part) != are[key].get(part):
                found.append(f"{key}: {part}: {were[key].get(part)} and {are[key].get(part)}")
    # How far apart in time a replay lets the partitions be decides who is a profile of their own for a moment, and so
    # leaves an id that leads on, and since when exactly people are members.
    there, here = (
        {key: row["profile_id"] for key, row in one.table("identities").items() if ":" in key} for one in (golden, new)
    )
    assert len(there) >= 30
    found += [f"identities {key}" for key in there.keys() | here.keys() if there.get(key) != here.get(key)]
    members, still = golden.table("segment-members"), new.table("segment-members")
    found += [f"segment-members {key}" for key in members.keys() ^ still.keys()]
    return found
