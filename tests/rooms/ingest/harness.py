"""What the tests of ingest share: a raw record, its outcome, and outputs that keep what was sent."""

import json
from typing import Any

from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules, builtin_rules
from pipeline.ingest import REASONS, Emit, IngestStage, Refusal, ingest
from pipeline.records import Event, decode_events_record
from pipeline.runtime.ports import Record

RULES = builtin_rules(default_region="DE")
KEYS = Keys(b"secret")
HOUR_MS = 3_600_000
NOW_MS = 1_740_830_400_000  # 2025-03-01T12:00:00Z
DROP = object()


def raw_record(value: Any, record_ms: int = 0, partition: int = 3) -> Record:
    data = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record("raw", partition, 42, b"key", data, record_ms)


def track(**changes: Any) -> dict[str, Any]:
    event = {"type": "track", "event": "Order Completed", "userId": "ann", "messageId": "m1", **changes}
    return {name: value for name, value in event.items() if value is not DROP}


def emitted(value: Any, record_ms: int = 0, rules: IdentityRules = RULES) -> Event:
    outcome = ingest(raw_record(value, record_ms), NOW_MS, rules)
    assert isinstance(outcome, Emit), outcome
    decoded = decode_events_record(outcome.value)
    assert decoded == outcome.event
    return outcome.event


def refused(value: Any) -> Refusal:
    outcome = ingest(raw_record(value), NOW_MS, RULES)
    assert isinstance(outcome, Refusal), outcome
    assert outcome.reason in REASONS
    assert outcome.detail.endswith(".")
    return outcome


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


class Sent:
    """Outputs that keep what was sent."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes | None, bytes, int | None]] = []

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        self.records.append((topic, key, value, partition))

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        raise AssertionError("ingest writes no compacted topic")


class NoState:
    """Ingest keeps none: touching it is an AttributeError."""


def stage(**changes: Any) -> IngestStage:
    settings: dict[str, Any] = {"keys": KEYS, "rules": lambda: RULES, "now_ms": lambda: NOW_MS, "partitions": 4}
    return IngestStage(**(settings | changes))
