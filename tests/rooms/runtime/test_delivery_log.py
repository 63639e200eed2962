"""What a destination's log says when its clients cannot go on. The clients are the real ones; there is no broker."""

from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import BrokerError
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.delivery_log import KafkaDeliveryLog
from tests.rooms.runtime.fatal import break_for_good
from tests.rooms.runtime.reports import Reports


@pytest.fixture
def log() -> Iterator[KafkaDeliveryLog]:
    made = KafkaDeliveryLog(KafkaConfig({"bootstrap.servers": "127.0.0.1:1"}, "w."), "crm")
    yield made
    made.close()


def test_a_producer_that_is_broken_for_good_is_told_in_words(log: KafkaDeliveryLog) -> None:
    break_for_good(log._producer)
    for _ in range(2):
        with pytest.raises(BrokerError, match=r"Dead letters could not be written: .*(broken by a test|Fatal error)"):
            log.put_aside([(0, b"k", b"v")])


def test_what_a_record_is_refused_for_at_once_is_told_in_words(log: KafkaDeliveryLog) -> None:
    with pytest.raises(BrokerError, match=r"Dead letters could not be written: .*too large"):
        log.put_aside([(0, b"k", b"v" * 11_000_000)])


def test_a_log_closes_whatever_its_producer_has_to_say(log: KafkaDeliveryLog) -> None:
    break_for_good(log._producer)


def test_what_is_only_taken_for_written_is_told(log: KafkaDeliveryLog) -> None:
    parts: Any = log
    parts._producer = Reports(offset=7)
    log.put_aside([(0, b"k", b"v")])
    parts._producer = Reports(offset=None)
    with pytest.raises(BrokerError, match="not known whether"):
        log.put_aside([(0, b"k", b"v")])
