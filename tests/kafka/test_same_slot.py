"""Two workers of one destination in the same slot: the first is told who took its place."""

import time

import pytest

from pipeline.errors import BrokerError
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.delivery_log import KafkaDeliveryLog
from pipeline.settings import Settings
from tests.kafka.test_idle_clients import make_topic


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
