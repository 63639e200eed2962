"""A shorter session and transaction timeout for the roles of a campaign, whose waits are most of its time."""

from collections.abc import Mapping
from typing import Any

from pipeline.runtime.kafka.config import KafkaConfig

SESSION_MS = "ATTACK_SESSION_MS"
TRANSACTION_MS = "ATTACK_TRANSACTION_MS"


def apply(environment: Mapping[str, str]) -> None:
    """Set both for every client of this process, where the environment says so."""
    session_ms, transaction_ms = environment.get(SESSION_MS), environment.get(TRANSACTION_MS)
    consumer, producer = KafkaConfig.consumer, KafkaConfig.producer

    def shorter_consumer(self: KafkaConfig, role: str) -> dict[str, Any]:
        changed = {} if session_ms is None else {"session.timeout.ms": int(session_ms)}
        return {**consumer(self, role), **changed}

    def shorter_producer(self: KafkaConfig, role: str) -> dict[str, Any]:
        changed = {} if transaction_ms is None else {"transaction.timeout.ms": int(transaction_ms)}
        return {**producer(self, role), **changed}

    KafkaConfig.consumer = shorter_consumer  # type: ignore[method-assign]
    KafkaConfig.producer = shorter_producer  # type: ignore[method-assign]
