"""The counting role on a real broker: its topics, its worker processes, what a reader sees."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.runtime.adapters import Partition
from pipeline.runtime.rocksdb import RocksStores
from tests.rooms.runtime.counting import TOPICS

WAIT_S = 180.0
ROOT = Path(__file__).parents[2]


class RealWorld:
    """One workspace of the counting role. Leaving the context ends every process that was started."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, partitions: int = 2) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.folder = folder
        self.partitions = partitions
        self.said = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self._producer = Producer({"bootstrap.servers": bootstrap, "partitioner": "murmur2_random", "linger.ms": 1})
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        compacted = {"counting-changelog", "latest"}
        topics = [
            NewTopic(prefix + name, partitions, config={"cleanup.policy": "compact" if name in compacted else "delete"})
            for name in TOPICS
        ]
        for future in self._admin.create_topics(topics).values():
            future.result(120)

    def __enter__(self) -> "RealWorld":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()

    def worker(self, slot: str = "0", **environment: str) -> "subprocess.Popen[bytes]":
        """Start a worker process; its state is in a folder of its slot."""
        state = self.folder / f"state-{slot}"
        log = (self.folder / f"worker-{slot}.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.kafka.engine_worker", self.bootstrap, self.prefix, slot, str(state)],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        log.close()
        self._processes.append(process)
        return process

    def logs(self) -> str:
        """What the workers have written."""
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))

    def situation(self) -> str:
        """Where the running workers say they stand, after what they have written."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        return self.logs()

    def say(self, words: Iterable[tuple[str, str]], topic: str = "words") -> None:
        """Produce (key, value) records and wait until they are in the log."""
        for key, value in words:
            while True:
                try:
                    self._producer.produce(self.prefix + topic, value.encode(), key.encode())
                    break
                except BufferError:
                    self._producer.poll(0.1)
            self.said += 1
        assert self._producer.flush(120) == 0

    def read(self, topic: str, committed: bool = True) -> list[tuple[int, bytes, bytes | None]]:
        """All (partition, key, value) of a topic up to its present end."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": f"{self.prefix}test",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
            }
        )
        waiting = set(range(self.partitions))
        consumer.assign([TopicPartition(self.prefix + topic, number, 0) for number in waiting])
        found: list[tuple[int, bytes, bytes | None]] = []
        until = time.monotonic() + WAIT_S
        while waiting:
            assert time.monotonic() < until, f"{topic} could not be read to its end"
            for message in consumer.consume(1_000, 0.2):
                error = message.error()
                if error is None:
                    found.append((message.partition() or 0, message.key() or b"", message.value()))
                elif error.code() == KafkaError._PARTITION_EOF:
                    waiting.discard(message.partition() or 0)
        consumer.close()
        return found

    def counts(self) -> list[str]:
        """What a read_committed consumer sees in `counts`, in order within a partition."""
        return [(value or b"").decode() for _, _, value in self.read("counts")]

    def changelog(self, number: int) -> dict[bytes, bytes]:
        """The fold of a changelog partition."""
        found: dict[bytes, bytes] = {}
        for partition, key, value in self.read("counting-changelog"):
            if partition == number and not key.startswith(b"\x00"):
                if value is None:
                    found.pop(key, None)
                else:
                    found[key] = value
        return found

    def stored(self, number: int, slot: str = "0") -> dict[bytes, bytes]:
        """The values of a store that no process has open."""
        store = RocksStores(self.folder / f"state-{slot}" / "counting").open(number)
        try:
            return dict(store.scan(b""))
        finally:
            store.close()

    def committed(self) -> dict[Partition, int]:
        """The group's positions in `words`."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"{self.prefix}counting"})
        wanted = [TopicPartition(f"{self.prefix}words", number) for number in range(self.partitions)]
        try:
            return {("words", p.partition): max(0, p.offset) for p in consumer.committed(wanted, 10)}
        finally:
            consumer.close()

    def ends(self) -> dict[Partition, int]:
        """The ends of `words`."""
        return {("words", number): high for number, (_, high) in self.bounds("words").items()}

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """Partition to (beginning, end) of a topic."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": f"{self.prefix}test"})
        found: dict[int, tuple[int, int]] = {}
        try:
            for number in range(self.partitions):
                told = consumer.get_watermark_offsets(TopicPartition(self.prefix + topic, number), 10, cached=False)
                assert told is not None
                found[number] = told
        finally:
            consumer.close()
        return found

    def wait(self, what: str, condition: Callable[[], Any], timeout_s: float = WAIT_S) -> None:
        """Wait until a condition holds."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except Exception:
                if time.monotonic() > until:
                    raise
            if time.monotonic() > until:
                raise AssertionError(f"{what} did not happen\n{self.situation()}")
            time.sleep(0.1)

    def wait_consumed(self, timeout_s: float = WAIT_S) -> None:
        """Wait until everything said is committed."""
        self.wait("consuming everything", lambda: self.committed() == self.ends(), timeout_s)
