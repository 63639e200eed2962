"""How the engine's Kafka clients are set up: the settings the measurements of the engine were made with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.wire import JSON, Values

# By default librdkafka forgets every broker, the coordinators among them, when all connections are lost, and begins
# again at the bootstrap addresses; sending offsets then hangs for many seconds (docs/decisions/brokers-are-kept.md).
_KEEP_BROKERS = {"metadata.recovery.strategy": "none"}


@dataclass(frozen=True, slots=True)
class KafkaConfig:
    """Where a worker's clients connect, and as whom.

    `properties` are librdkafka's, for all clients: addresses, security. `prefix` is the workspace's: it begins the
    group, the instance and the transactional ids. `slot` is stable over restarts: it is what fences a worker's former
    self. `session_timeout_ms` bounds how long another slot waits for the partitions of one that died.
    `turns` is the number of the slot's transactional ids. `values` is the format of the workspace's values.
    `subscription` names what the worker reads, where that is not what the role always reads: a broker gives a static
    member that comes back the partitions it had, whatever it subscribes to now. Under another name it is a new one.
    `elsewhere` has the real names of topics with a logical name that belong to another workspace.
    """

    properties: Mapping[str, Any]
    prefix: str
    slot: str = "0"
    session_timeout_ms: int = 15_000
    transaction_timeout_ms: int = 10_000
    max_message_bytes: int = 10_000_000
    turns: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)
    values: Values = JSON
    subscription: str = ""
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    def topic_name(self, name: str) -> str:
        """The real name of a topic; one that begins with a slash stands outside of the workspace."""
        return name[1:] if name.startswith("/") else self.elsewhere.get(name) or self.prefix + name

    def consumer(self, role: str) -> dict[str, Any]:
        """A static member of the role's group."""
        return {
            **_KEEP_BROKERS,
            **self.properties,
            "fetch.wait.max.ms": 100,
            # Of each partition: a few tenths of a second of a worker that does nothing else.
            "queued.min.messages": 20_000,
            "queued.max.messages.kbytes": 16_384,
            "fetch.message.max.bytes": self.max_message_bytes,
            **self.extra,
            "group.id": f"{self.prefix}{role}",
            "group.instance.id": f"{self.prefix}{role}-{self.slot}{self.subscription and '.'}{self.subscription}",
            "group.protocol": "classic",
            # The only assignor that gives partition p of every input to the same member.
            "partition.assignment.strategy": "range",
            "session.timeout.ms": self.session_timeout_ms,
            "heartbeat.interval.ms": 1_000,
            "max.poll.interval.ms": max(60_000, self.session_timeout_ms),
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Partitions that a source is given: nothing is due by time alone before they are read.
            "topic.metadata.refresh.interval.ms": 10_000,
            "auto.offset.reset": "error",
        }

    def transactional_ids(self, role: str) -> tuple[str, ...]:
        """The ids of the role's slot, among which its transactions take turns. No slot's name has a dot in it."""
        first = f"{self.prefix}{role}-{self.slot}"
        return first, *(f"{first}.{turn}" for turn in range(1, self.turns))

    def producer(self, transactional_id: str) -> dict[str, Any]:
        """One of the transactional producers of the role's slot."""
        return {
            **_KEEP_BROKERS,
            **self.properties,
            # Not waited for: a transaction ends with a flush, which sends what is there. Until then the records of a
            # partition gather into one request, where each would have been sent as soon as the client got to it. In a
            # turn of long work they go on their way while the next task is stepped, which takes about as long.
            "linger.ms": 4,
            "retry.backoff.ms": 5,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 1_000_000,
            "message.max.bytes": self.max_message_bytes,
            **self.extra,
            # librdkafka opens connections only when it needs one, and looking for a lost coordinator is no such need:
            # without this, sending offsets after an outage hangs until the next refresh, five minutes by default.
            "topic.metadata.refresh.interval.ms": 1_000,
            "reconnect.backoff.max.ms": 1_000,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": self.transaction_timeout_ms,
            # The default is not Java's: other clients would find keys in other partitions.
            "partitioner": "murmur2_random",
        }

    def reader(self, role: str, committed: bool) -> dict[str, Any]:
        """A consumer outside of any group, for reading changelogs back."""
        return {
            **_KEEP_BROKERS,
            **self.properties,
            "fetch.wait.max.ms": 50,
            "queued.min.messages": 100_000,
            "fetch.message.max.bytes": self.max_message_bytes,
            **self.extra,
            "group.id": f"{self.prefix}{role}-reader",
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
