"""One world to hold the memory clients and the real ones to: the same requests, on either broker."""

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.runtime import adapters
from pipeline.runtime.adapters import Partition
from pipeline.runtime.errors import Retriable
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.consumer import KafkaConsumer, KafkaLogReader
from pipeline.runtime.kafka.producer import KafkaAdmin, KafkaProducer
from pipeline.runtime.memory import MemoryAdmin, MemoryBroker, MemoryConsumer, MemoryLogReader, MemoryProducer
from pipeline.runtime.ports import Record

ROLE = "contract"
PARTITIONS = 2
TOPICS = ("left", "right", "out", "changelog")
PATIENCE_S = 120.0


class Side(Protocol):
    """A broker with the topics of the contract, and clients for it."""

    def consumer(self, slot: str = "0") -> adapters.Consumer: ...
    def producer(self, slot: str = "0") -> adapters.Producer: ...
    def reader(self) -> adapters.LogReader: ...
    def admin(self) -> adapters.Admin: ...
    def say(self, topic: str, key: bytes, value: bytes, partition: int) -> None: ...
    def recreate(self, topic: str) -> None: ...
    def close(self) -> None: ...


class MemorySide:
    """In memory."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self._broker.now_ms = 77
        for topic in TOPICS:
            self._broker.create_topic(topic, PARTITIONS)

    def consumer(self, slot: str = "0") -> adapters.Consumer:
        return MemoryConsumer(self._broker, ROLE, f"{ROLE}-{slot}")

    def producer(self, slot: str = "0") -> adapters.Producer:
        return MemoryProducer(self._broker, f"{ROLE}-{slot}", ROLE)

    def reader(self) -> adapters.LogReader:
        return MemoryLogReader(self._broker)

    def admin(self) -> adapters.Admin:
        return MemoryAdmin(self._broker)

    def say(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self._broker.produce(topic, key, value, partition)

    def recreate(self, topic: str) -> None:
        self._broker.recreate_topic(topic)

    def close(self) -> None:
        return


class KafkaSide:
    """On a real broker, under a prefix of its own."""

    def __init__(self, bootstrap: str) -> None:
        self._prefix = f"c{secrets.token_hex(4)}."
        self._bootstrap = bootstrap
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        for future in self._admin.create_topics([NewTopic(self._prefix + t, PARTITIONS) for t in TOPICS]).values():
            future.result(120)
        self._producer = Producer({"bootstrap.servers": bootstrap})
        self._open: list[adapters.Consumer | adapters.LogReader] = []

    def _config(self, slot: str) -> KafkaConfig:
        # Two ids: what holds of transactions that take turns holds of those that do not.
        return KafkaConfig({"bootstrap.servers": self._bootstrap}, self._prefix, slot, 6_000, turns=2)

    def consumer(self, slot: str = "0") -> adapters.Consumer:
        consumer = KafkaConsumer(self._config(slot), ROLE)
        self._open.append(consumer)
        return consumer

    def producer(self, slot: str = "0") -> adapters.Producer:
        return KafkaProducer(self._config(slot), ROLE)

    def reader(self) -> adapters.LogReader:
        reader = KafkaLogReader(self._config("0"), ROLE)
        self._open.append(reader)
        return reader

    def admin(self) -> adapters.Admin:
        return KafkaAdmin(self._config("0"))

    def say(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self._producer.produce(self._prefix + topic, value, key, partition)
        assert self._producer.flush(120) == 0

    def recreate(self, topic: str) -> None:
        recreate_topic(self._admin, self._prefix + topic, PARTITIONS)

    def close(self) -> None:
        for client in self._open:
            client.close()


def recreate_topic(admin: AdminClient, name: str, partitions: int) -> None:
    """Delete a topic of a real broker and make it again, empty."""
    admin.delete_topics([name])[name].result(120)
    give_up = time.monotonic() + 120
    while True:
        try:
            admin.create_topics([NewTopic(name, partitions)])[name].result(120)
            return
        except KafkaException:
            # It is deleted in the background.
            assert time.monotonic() < give_up, f"{name} could not be made again"
            time.sleep(0.1)


class Assignments:
    """A listener that only remembers."""

    def __init__(self) -> None:
        self.now: list[Partition] | None = None
        self.told: list[str] = []

    def assigned(self, partitions: Sequence[Partition]) -> None:
        self.now = list(partitions)
        self.told.append("assigned")

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.now = None
        self.told.append("revoked")

    def lost(self, partitions: Sequence[Partition]) -> None:
        self.now = None
        self.told.append("lost")


def joined(side: Side, topics: Sequence[str], slot: str = "0") -> tuple[adapters.Consumer, Assignments]:
    """A consumer that has its assignment; everything of it is held."""
    consumer, listener = side.consumer(slot), Assignments()
    consumer.subscribe(topics, listener)
    until(lambda: (consumer.consume(10, 0.1), listener.now is not None)[1])
    return consumer, listener


def bring_in(side: Side, consumer: adapters.Consumer) -> None:
    """A second member of `left` joins, while the first one serves the rebalance."""
    other, listener = side.consumer("1"), Assignments()
    other.subscribe(["left"], listener)
    before = consumer.membership().generation

    def both() -> bool:
        consumer.consume(10, 0.05)
        other.consume(10, 0.05)
        return bool(listener.now) and consumer.membership().generation > before

    until(both)


def until(condition: Callable[[], bool]) -> None:
    """Repeat until it holds; Retriable answers count as not yet."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        try:
            if condition():
                return
        except Retriable:
            pass
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def take(consumer: adapters.Consumer, count: int) -> list[Record]:
    """Consume until `count` records have come, and one more time to see that there are no more."""
    found: list[Record] = []
    until(lambda: len(found.__iadd__(consumer.consume(100, 0.1))) >= count)
    found += consumer.consume(100, 0.2)
    return found


def replay(reader: adapters.LogReader, partition: Partition, position: int, target: int) -> list[Record]:
    """Read a partition back from a position until the reader has reached the target."""
    found: list[Record] = []
    reader.open(partition, position)

    def at_target() -> bool:
        found.extend(reader.read(100, 0.1))
        return reader.position(partition) >= target

    until(at_target)
    reader.close_partition(partition)
    return found
