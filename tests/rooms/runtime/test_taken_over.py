"""Whoever writes in transactions under a name of its own says so in its own words when another took that over."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline.errors import BrokerError
from pipeline.runtime.kafka import apply_log
from pipeline.settings import Settings


@pytest.mark.parametrize("writer", ["apply", "privacy"])
def test_only_an_apply_is_told_to_apply_again(monkeypatch: pytest.MonkeyPatch, writer: str) -> None:
    class Client:
        def __init__(self, properties: dict[str, Any]) -> None:
            """A client whose transactional id is another's by now."""

        def init_transactions(self, timeout_s: float) -> None:
            raise KafkaException(KafkaError(KafkaError._FENCED, "taken over"))

    monkeypatch.setattr(apply_log, "Producer", Client)
    monkeypatch.setattr(apply_log, "Consumer", Client)
    settings = Settings(prefix="shop.", secret="of a test", bootstrap_servers="127.0.0.1:1")
    with pytest.raises(BrokerError) as stopped:
        apply_log.ApplyTransaction(settings, writer)
    text = f"{stopped.value.what} {stopped.value.what_to_do}"
    assert ("apply" in text) is (writer == "apply")
    assert ("shop.privacy" in text) is (writer == "privacy") and "took over" in text
