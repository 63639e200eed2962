"""Reading at the doors: who has to go on while a broker is away goes on, others are told."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pipeline.errors import BrokerError
from pipeline.runtime.kafka.doors import TopicReader


def reader(patient: bool) -> Any:
    """A reader without its client."""
    found: Any = object.__new__(TopicReader)
    found._patient, found._reached, found._at_end = patient, {}, set()
    return found


def told(code: int) -> Any:
    return SimpleNamespace(error=lambda: KafkaError(code), topic=lambda: "t", partition=lambda: 0)


@pytest.mark.parametrize("code", [KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT])
def test_a_broker_that_is_away_is_waited_for_by_who_is_patient(code: int) -> None:
    reader(patient=True)._keep([told(code)], [])
    with pytest.raises(BrokerError):
        reader(patient=False)._keep([told(code)], [])


def test_what_does_not_pass_is_told_to_everybody() -> None:
    for patient in (True, False):
        with pytest.raises(BrokerError):
            reader(patient)._keep([told(KafkaError.TOPIC_AUTHORIZATION_FAILED)], [])
