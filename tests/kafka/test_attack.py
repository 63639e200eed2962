"""A short campaign of `make attack`, and the cases of the engine that only a real broker can show."""

import os
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer

from pipeline.admin import create_topics
from pipeline.broker import Kafka, LocalKafka, free_port
from pipeline.runtime.adapters import Partition
from pipeline.runtime.errors import Fatal
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaConsumer
from pipeline.runtime.kafka.doors import TopicReader
from pipeline.settings import Settings, load
from tests.attack import faults
from tests.attack.faults import Place
from tests.attack.launcher import Launcher
from tests.attack.proxy import Proxy
from tests.attack.storm import plan, storm
from tests.attack.truncation import VARIANTS, be_loud
from tests.attack.world import HUNG, World

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    running = Launcher()
    yield running
    running.close()


@pytest.fixture
def world(kafka: Kafka, launcher: Launcher, tmp_path: Path) -> Iterator[World]:
    with World(kafka.bootstrap_servers, tmp_path / "world", launcher, seed=1, wait_s=300) as made:
        yield made


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    running = Proxy(free_port())
    yield running
    running.close()


@pytest.fixture(scope="module")
def own_kafka(proxy: Proxy) -> Iterator[LocalKafka]:
    """A broker that may be hurt; the proxy stands before a second address of it."""
    running = LocalKafka(load().cache_dir, proxied_ports=(proxy.port,))
    proxy.target = running.behind[proxy.port]
    yield running
    running.stop()


def may_mount(folder: Path) -> bool:
    """Whether this machine lets us have a small file system."""
    if os.getuid() != 0:
        return False
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False)
    return made.returncode == 0 and subprocess.run(["umount", str(folder)], check=False).returncode == 0


def test_killed_at_many_points_of_every_role(world: World) -> None:
    done = storm(world, plan(seed=3, kills=12), seed=3)
    assert sum(done.values()) >= 12
    verdict = world.finish()
    assert verdict.merged > 0 and verdict.duplicates > 0 and verdict.dead_letters > 0


def test_case_49_a_paused_worker_wakes_after_its_partitions_went_elsewhere(world: World) -> None:
    faults.zombie(Place(world, random.Random(5)), "after_offsets")
    world.finish()


def test_case_53_a_write_of_the_store_fails(world: World) -> None:
    faults.failing_write(Place(world, random.Random(1)))
    assert any("No space left" in end.words for end in world.ended)
    world.finish()


def test_case_53_disk_full_under_the_store(world: World, tmp_path: Path) -> None:
    if not may_mount(tmp_path / "probe"):
        pytest.skip("a small file system takes the right to mount one")
    faults.full_disk(Place(world, random.Random(1)))
    world.finish()


def test_case_53_disk_full_under_the_broker(launcher: Launcher, tmp_path: Path) -> None:
    if not may_mount(tmp_path / "probe"):
        pytest.skip("a small file system takes the right to mount one")
    with faults.small_file_system(tmp_path / "small", 300):
        small = LocalKafka(load().cache_dir, tmp_path / "small")
        try:
            with World(small.bootstrap_servers, tmp_path / "world", launcher, seed=53, wait_s=300) as hurt:
                faults.full_broker_disk(Place(hurt, random.Random(1), small))
                hurt.finish()
        finally:
            small.kill()
            small.stop()


def test_case_54_the_broker_is_killed_and_comes_back(own_kafka: LocalKafka, launcher: Launcher, tmp_path: Path) -> None:
    # Who is sending offsets when the broker goes is ended if it has not come back for 7 s, which its start may take.
    with World(
        own_kafka.bootstrap_servers, tmp_path / "world", launcher, seed=54, wait_s=300, offsets_stuck_s=60
    ) as hurt:
        faults.broker_kill(Place(hurt, random.Random(1), own_kafka))
        hurt.finish()
        # After an outage librdkafka looks for lost coordinators only if it is told to keep looking.
        assert not [end for end in hurt.ended if HUNG in end.words]


def test_clients_that_were_told_of_no_brokers_find_them_again(own_kafka: LocalKafka, proxy: Proxy) -> None:
    """Left alone they never would (librdkafka issue 5301): a reader takes a new client, a worker's consumer says so."""
    asks_often = {"topic.metadata.refresh.interval.ms": 300}
    settings = Settings.model_validate(
        {
            "bootstrap_servers": f"127.0.0.1:{proxy.port}",
            "prefix": "told-of-none.",
            "partitions": 2,
            "kafka": asks_often,
        }
    )
    create_topics(settings)
    config = KafkaConfig(settings.client_properties(), settings.prefix)
    consumer = KafkaConsumer(config, "ingest")
    producer = Producer({"bootstrap.servers": own_kafka.bootstrap_servers})
    with TopicReader(settings, ["raw"]) as reader:
        consumer.subscribe(["raw"], _Nobody())
        while consumer.membership().generation < 0:
            consumer.consume(1, 0.2)
        proxy.hide_brokers(True)
        until = time.monotonic() + 180
        lost = ""
        while not lost:
            assert time.monotonic() < until, "the consumer waits for ever"
            reader.read(1, 0.1)
            try:
                consumer.consume(1, 0.1)
            except Fatal as fatal:
                lost = str(fatal)
        assert "lost every broker" in lost
        proxy.hide_brokers(False)
        producer.produce(settings.topic("raw"), b"{}")
        producer.flush(120)
        while not reader.read(1, 0.5):
            assert time.monotonic() < until, "the reader waits for ever"
    consumer.close()


class _Nobody:
    """Listens to what a consumer is assigned."""

    def assigned(self, partitions: Sequence[Partition]) -> None: ...

    revoked = lost = assigned


def test_case_60_more_workers_than_partitions(world: World) -> None:
    assert world.settings.partitions == 2
    faults.one_three_one(Place(world, random.Random(1)))
    world.finish()


@pytest.mark.parametrize("variant", ["truncated changelog, store lost", "recreated changelog"])
def test_a_changelog_that_was_truncated_or_recreated_is_loud(world: World, variant: str) -> None:
    assert variant in VARIANTS
    be_loud(world, variant, random.Random(1))
