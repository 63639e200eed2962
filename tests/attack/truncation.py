"""A changelog that was truncated or recreated: the worker must say so and touch nothing."""

import random
import shutil
import time
from collections.abc import Callable

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from pipeline.admin import admin_client
from tests.attack.role import STOPPED
from tests.attack.world import World, last_words

OUTPUTS = ("events", "profiles", "profile-changes", "segment-changes", "segment-members", "identities", "links")


def _forget_store(world: World, role: str) -> None:
    shutil.rmtree(world.state_dir("0") / role)


def _delete_records(world: World, name: str, share: float) -> None:
    """Delete a share of every partition of a topic, from its beginning."""
    topic, client = world.settings.topic(name), admin_client(world.settings)
    counts = {record.partition: record.offset + 1 for record in world.deployment.read(name)}
    # Kafka refuses it where records are only compacted, so somebody must have changed that too.
    entry = ConfigEntry("cleanup.policy", "compact,delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client.incremental_alter_configs([resource])[resource].result(30)
    wanted = [TopicPartition(topic, number, max(1, int(end * share))) for number, end in counts.items()]
    for future in client.delete_records(wanted).values():
        future.result(30)


def _recreate(world: World, name: str) -> None:
    """Delete a topic and make it again, empty."""
    client, topic = admin_client(world.settings), world.settings.topic(name)
    partitions = len(client.list_topics(timeout=30).topics[topic].partitions)
    client.delete_topics([topic])[topic].result(30)
    until = time.monotonic() + 30
    while topic in client.list_topics(timeout=30).topics:
        assert time.monotonic() < until
        time.sleep(0.1)
    while True:
        try:
            client.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)
            return
        except KafkaException:
            assert time.monotonic() < until, "the topic could not be made again"
            time.sleep(0.2)


def truncated_store_lost(world: World, role: str, changelog: str) -> None:
    _delete_records(world, changelog, 0.5)
    _forget_store(world, role)


def recreated_changelog(world: World, role: str, changelog: str) -> None:
    _recreate(world, changelog)


def recreated_changelog_store_lost(world: World, role: str, changelog: str) -> None:
    _recreate(world, changelog)
    _forget_store(world, role)


VARIANTS: dict[str, tuple[str, str, Callable[[World, str, str], None]]] = {
    "truncated changelog, store lost": ("unify", "unify-changelog", truncated_store_lost),
    "recreated changelog": ("unify", "unify-changelog", recreated_changelog),
    "recreated changelog, store lost": ("identity", "identity-changelog", recreated_changelog_store_lost),
    "truncated changelog of identity, store lost": ("identity", "identity-changelog", truncated_store_lost),
}


def be_loud(world: World, variant: str, random_: random.Random) -> None:
    """Do it to a stopped role, start it twice: it ends by itself with a word about it, and has written nothing."""
    role, changelog, damage = VARIANTS[variant]
    time.sleep(random_.uniform(3.0, 6.0))
    world.drain()
    for each in ("ingest", "identity", "unify"):
        if random_.random() < 0.5:
            world.stop(each)
        else:
            world.kill(each)
    before = {name: len(world.deployment.read(name)) for name in OUTPUTS}
    damage(world, role, changelog)
    for _ in range(2):
        running = world.start(role)
        until = time.monotonic() + 60
        while world.exit_code(running) is None:
            assert time.monotonic() < until, f"{variant}: {role} runs on, and says nothing\n{world.last_lines()}"
            time.sleep(0.05)
        words = last_words(running.log)
        assert world.exit_code(running) == STOPPED, f"{variant}: {words}"
        assert words.startswith("stopped: ") and len(words) > 60, words
    after = {name: len(world.deployment.read(name)) for name in OUTPUTS}
    assert after == before, f"{variant}: {role} wrote something"
    world.kill(role)
