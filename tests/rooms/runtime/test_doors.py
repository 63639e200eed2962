"""Reading at the doors: who has to go on while a broker is away goes on, others are told. And writing."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, Producer

from pipeline.errors import BrokerError
from pipeline.runtime.kafka import doors
from pipeline.runtime.kafka.doors import TopicReader, produce_all
from pipeline.settings import Settings
from tests.rooms.runtime.fatal import break_for_good
from tests.rooms.runtime.reports import Reports

NOBODY = {"secret": "s", "bootstrap_servers": "127.0.0.1:1"}


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


def test_records_that_fill_the_queue_wait_until_there_is_room() -> None:
    """Here there is room again once what was sent first is given up, and that is what is told."""
    limits = {"queue.buffering.max.kbytes": 1, "message.timeout.ms": 1_000}
    records = [(b"k", b"x" * 400) for _ in range(5)]
    with pytest.raises(BrokerError, match="timed out"):
        produce_all(Settings.model_validate({**NOBODY, "kafka": limits}), "raw", records)


def test_a_producer_that_is_broken_for_good_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(properties: Any) -> Producer:
        producer = Producer(properties)
        break_for_good(producer)
        return producer

    monkeypatch.setattr(doors, "Producer", broken)
    with pytest.raises(BrokerError, match=r"Fatal error|broken by a test"):
        produce_all(Settings.model_validate(NOBODY), "raw", [(b"k", b"v")] * 5)


def test_what_is_only_taken_for_written_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate(NOBODY)
    monkeypatch.setattr(doors, "Producer", lambda properties: Reports(offset=7))
    assert produce_all(settings, "raw", [(b"k", b"v")] * 3) == 3
    monkeypatch.setattr(doors, "Producer", lambda properties: Reports(offset=None))
    with pytest.raises(BrokerError, match="not known whether"):
        produce_all(settings, "raw", [(b"k", b"v")] * 3)
