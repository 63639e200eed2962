"""What makes the topics let go of somebody does not hold up the requests of others."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from pipeline.privacy import role
from pipeline.privacy.stores import COMPACTED, TRIMMED
from pipeline.runtime.kafka import doors
from pipeline.settings import Settings


class Client:
    """A producer whose records have arrived when it is asked next."""

    made: list["Client"]

    def __init__(self, properties: dict[str, Any]) -> None:
        self.sent: list[tuple[str, int]] = []
        self._waiting: list[Callable[[KafkaError | None, Any], None]] = []
        Client.made.append(self)

    def produce(
        self,
        topic: str,
        value: bytes | None,
        key: bytes | None,
        partition: int,
        timestamp: int,
        on_delivery: Callable[[KafkaError | None, Any], None],
    ) -> None:
        self.sent.append((topic, partition))
        self._waiting.append(on_delivery)

    def poll(self, timeout_s: float) -> None:
        waiting, self._waiting = self._waiting, []
        for delivered in waiting:
            delivered(None, Message(offset=1))

    def __len__(self) -> int:
        return len(self._waiting)


def test_every_partition_is_nudged_by_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each took 25 s with 16 partitions, every half minute, and nobody else was erased meanwhile."""
    settings = Settings(prefix="a.", secret="of a test", bootstrap_servers="127.0.0.1:1")
    counts = {settings.topic(name): 16 for name in (*COMPACTED, *TRIMMED)}
    Client.made = []
    monkeypatch.setattr(doors, "Producer", Client)
    monkeypatch.setattr(role, "topic_partitions", lambda settings: counts)
    nudging = object.__new__(role.PrivacyRole)
    nudging._settings = settings
    nudging._nudge()
    [client] = Client.made
    assert sorted(client.sent) == sorted((name, number) for name in counts for number in range(16))
