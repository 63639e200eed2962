"""A shorter session and transaction timeout for the roles of a campaign, whose waits are most of its time; and how long
offsets may be on their way, where a fault is longer than a worker's patience with them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline import roles
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.settings import WorkerSettings

SESSION_MS = "ATTACK_SESSION_MS"
TRANSACTION_MS = "ATTACK_TRANSACTION_MS"
OFFSETS_STUCK_S = "ATTACK_OFFSETS_STUCK_S"


def apply(environment: Mapping[str, str]) -> None:
    """Set them for every client and worker of this process, where the environment says so."""
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

    if OFFSETS_STUCK_S in environment:
        patience_s = float(environment[OFFSETS_STUCK_S])
        roles.WorkerSettings = partial(WorkerSettings, offsets_stuck_s=patience_s)  # type: ignore[misc, assignment]
