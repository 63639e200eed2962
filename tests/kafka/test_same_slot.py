"""Two workers in the same slot: the first is told that it was fenced, in words, and can be closed."""

import time

import pytest

from pipeline.errors import BrokerError
from pipeline.runtime.errors import Fatal
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.delivery_log import KafkaDeliveryLog
from pipeline.runtime.kafka.producer import KafkaProducer
from pipeline.settings import Settings
from tests.kafka.test_idle_clients import make_topic
from tests.rooms.runtime.fatal import break_for_good


class Nobody:
    """A listener that is told nothing it needs."""

    def assigned(self, positions: object) -> None:
        self.has_begun = True

    def revoked(self, partitions: object) -> None: ...

    def lost(self, partitions: object) -> None: ...

    has_begun = False


def begun(settings: Settings) -> KafkaDeliveryLog:
    log, listener = KafkaDeliveryLog(KafkaConfig(settings.client_properties(), settings.prefix), "crm"), Nobody()
    log.subscribe(listener)
    until = time.monotonic() + 60
    while not listener.has_begun:
        assert time.monotonic() < until
        log.read(1, 0.05)
    return log


def test_the_first_of_two_in_a_slot_is_told_who_took_its_place(workspace: Settings) -> None:
    make_topic(workspace, "deliveries.crm")
    first = begun(workspace)
    second = begun(workspace)
    until = time.monotonic() + 60
    with pytest.raises(BrokerError) as told:
        while time.monotonic() < until:
            first.read(1, 0.05)
    assert "slot" in told.value.what_to_do
    first.close()
    second.close()


def writing(settings: Settings) -> KafkaProducer:
    """A producer whose transaction has a record on its way that is reported."""
    producer = KafkaProducer(KafkaConfig(settings.client_properties(), settings.prefix), "unify")
    producer.init(30)
    producer.begin()
    producer.send_changelog("changelog", 0, [(b"k", b"v"), (b"k", b"w")])
    return producer


def test_a_producer_that_was_fenced_closes_after_it_has_said_so(workspace: Settings) -> None:
    make_topic(workspace, "changelog")
    first = writing(workspace)
    first.flush(30)
    second = writing(workspace)
    with pytest.raises(Fatal, match="fenced"):
        first.commit(30)
    first.close()
    second.close()


def test_a_flush_that_has_reports_to_hand_over_says_what_is_fatal_too(workspace: Settings) -> None:
    """The exception is pending when the report is taken: Python calls that a SystemError."""
    make_topic(workspace, "changelog")
    producer = writing(workspace)
    break_for_good(producer._producer)
    with pytest.raises(Fatal, match="broken by a test"):
        producer.flush(30)
    producer.close()
