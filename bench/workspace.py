"""A workspace to measure in: a Kafka of its own, topics filled beforehand, roles as they are shipped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench import machine
from pipeline.admin import create_topics
from pipeline.broker.local import LocalKafka
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import apply
from pipeline.settings import Settings, load

SECRET = "bench"


@contextmanager
def broker(
    cores: set[int] | None = None, folder: Path | None = None, properties: Mapping[str, str] | None = None
) -> Iterator["Broker"]:
    """A Kafka on this machine while the block runs: on these cores only; with its data in `folder`, to stay there; with
    `properties` above its own."""
    before = set(machine.descendants(os.getpid()))
    kafka = LocalKafka(load().cache_dir, folder, properties=properties)
    try:
        started = [pid for pid in machine.descendants(os.getpid()) if pid not in before]
        servers = [pid for pid in started if "kafka.Kafka" in machine.command_of(pid) and _is_java(pid)]
        if cores:
            for pid in servers:
                machine.pin(pid, cores)
        yield Broker(kafka.bootstrap_servers, servers[0])
    finally:
        kafka.stop()


def _is_java(pid: int) -> bool:
    return Path(machine.command_of(pid).split(" ")[0]).name == "java"


@dataclass(frozen=True, slots=True)
class Broker:
    """A Kafka that runs: its address, and its process."""

    address: str
    pid: int

    def admin(self) -> AdminClient:
        """A client for requests beside the load."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 3})

    def create(self, topic: str, partitions: int) -> None:
        """Make a topic."""
        client = self.admin()
        for future in client.create_topics([NewTopic(topic, partitions, 1)]).values():
            future.result(30)

    def delete(self, topics: Iterable[str]) -> None:
        """Remove topics, so that the disk of a long run does not fill."""
        client = self.admin()
        for future in client.delete_topics(list(topics)).values():
            try:
                future.result(30)
            except KafkaException:
                continue  # a run may not have made all of its topics

    def topics(self, prefix: str) -> list[str]:
        """The topics whose names begin so."""
        return [name for name in self.admin().list_topics(timeout=30).topics if name.startswith(prefix)]

    def fill(self, topic: str, records: Iterable[tuple[bytes | None, bytes]]) -> None:
        """Write records (key, value) to a topic."""
        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "linger.ms": 20,
                "compression.type": "lz4",
                "queue.buffering.max.messages": 1_000_000,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
            }
        )
        for key, value in records:
            while True:
                try:
                    producer.produce(topic, value, key)
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.flush()

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return len(self.admin().list_topics(topic, timeout=30).topics[topic].partitions)

    def ends(self, topic: str) -> list[int]:
        """The position after the last record of each partition."""
        numbers = range(self.partitions(topic))
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "bench-ends", "log_level": 3})
        # A client that is new may know the topic before it knows who leads its partitions.
        consumer.list_topics(topic, timeout=30)
        found = [consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=30) for n in numbers]
        consumer.close()
        return [bounds[1] for bounds in found if bounds is not None]

    def read(self, topic: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Everything committed in a topic: (key, value), each partition in its order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": "bench-read",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "log_level": 3,
            }
        )
        open_partitions = self.partitions(topic)
        consumer.assign([TopicPartition(topic, n, 0) for n in range(open_partitions)])
        while open_partitions:
            for message in consumer.consume(10_000, 5):
                if message.error() is None:
                    yield message.key(), message.value()  # type: ignore[misc]
                else:
                    open_partitions -= 1
        consumer.close()


class Committed:
    """How far a consumer group has committed in a topic, beyond where it stood at the start.

    It asks as a consumer that never joins: the admin client's own request, repeated often, ends in a segmentation
    fault (librdkafka 2.16.0).
    """

    def __init__(self, broker: Broker, group: str, topic: str, partitions: int, start: list[int]) -> None:
        self._consumer = Consumer({"bootstrap.servers": broker.address, "group.id": group, "log_level": 3})
        self._asked = [TopicPartition(topic, number) for number in range(partitions)]
        self._start = start

    def records(self) -> int:
        """Records committed beyond the start; 0 if the broker does not tell."""
        try:
            answer = self._consumer.committed(self._asked, timeout=10)
        except KafkaException:
            return 0
        return sum(
            max(0, told.offset - start) for told, start in zip(answer, self._start, strict=True) if told.offset >= 0
        )


@dataclass(slots=True)
class Headwater:
    """A workspace of our own: its settings, and the processes of its roles."""

    broker: Broker
    settings: Settings
    folder: Path
    processes: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @classmethod
    def begin(
        cls,
        broker: Broker,
        prefix: str,
        partitions: int,
        folder: Path,
        rules: str = "",
        output_partitions: int | None = None,
    ) -> "Headwater":
        """Make the topics and apply the rules."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = Settings.model_validate(
            {
                "bootstrap_servers": broker.address,
                "prefix": prefix,
                "state_dir": folder / "state",
                "secret": SECRET,
                "partitions": partitions,
                "output_partitions": output_partitions,
            }
        )
        create_topics(settings)
        if rules:
            apply(settings, load_text(rules))
        return cls(broker, settings, folder)

    def start(
        self,
        role: str,
        cores: set[int] | None = None,
        slot: str = "0",
        environment: Mapping[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start `headwater run ROLE`; `environment` stands above what the workspace says."""
        environment = {
            "HEADWATER_BOOTSTRAP_SERVERS": self.broker.address,
            "HEADWATER_PREFIX": self.settings.prefix,
            "HEADWATER_STATE_DIR": str(self.settings.state_dir),
            "HEADWATER_SECRET": SECRET,
            "HEADWATER_PARTITIONS": str(self.settings.partitions),
            "HEADWATER_SLOT": slot,
            **(environment or {}),
        }
        command = [sys.executable, "-m", "pipeline.cli", "run", role, "--end-with", str(os.getpid())]
        process = start_pinned(command, environment, self.folder / f"{role}-{slot}.log", cores)
        self.processes[f"{role}-{slot}"] = process
        return process

    def stop(self, *names: str) -> None:
        """Stop these processes (role-slot), or all."""
        for name in names or list(self.processes):
            stop(self.processes.pop(name))

    def refuse_ended(self) -> None:
        """Raise RuntimeError, with what it said last, if a process that was started has ended by itself."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} has ended; it said: {last_words(self.folder / f'{name}.log')}")

    def become_ready(self, cores: set[int] | None = None) -> None:
        """Run identity and unify until the rules are in force in every partition; identity goes on running."""
        self.start("identity", cores)
        self.start("unify", cores)
        partitions = self.settings.partitions
        topic = self.settings.topic("events")
        give_up = time.monotonic() + 300
        committed = Committed(self.broker, f"{self.settings.prefix}unify", topic, partitions, [0] * partitions)
        # A marker and a ready in each partition, each with the record that ends its transaction.
        while committed.records() < 4 * partitions - partitions or not self._all_read(committed, partitions):
            self.refuse_ended()
            if time.monotonic() > give_up:
                raise RuntimeError(f"the rules did not come into force; see {self.folder}")
            time.sleep(0.3)
        time.sleep(1)
        self.stop("unify-0")

    def _all_read(self, committed: Committed, partitions: int) -> bool:
        # The last control record of a partition need not be passed by a commit.
        ends = sum(self.broker.ends(self.settings.topic("events")))
        return committed.records() >= ends - partitions and ends >= 4 * partitions


def last_words(log: Path) -> str:
    """The last lines of a process's output, in one."""
    return " / ".join(log.read_text(errors="replace").strip().splitlines()[-3:])[-400:]


def start_pinned(
    command: list[str], environment: Mapping[str, str], log: Path, cores: set[int] | None
) -> "subprocess.Popen[bytes]":
    """Start a process on these cores only, its output in a file."""
    if cores:
        command = ["taskset", "-c", ",".join(map(str, sorted(cores))), *command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def stop(process: "subprocess.Popen[bytes]") -> None:
    """End a process, in order if it can."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def as_json(**values: object) -> str:
    """Settings for a peer."""
    return json.dumps(values)
