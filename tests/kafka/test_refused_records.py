"""A record that the broker refuses in the midst of a transaction."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.broker import Kafka
from pipeline.runtime.errors import Abortable
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.producer import KafkaProducer
from pipeline.settings import Settings

TOO_LARGE = b"".join(b"%d" % number**7 for number in range(500))
SMALL = b"small"
WAIT_S = 60.0


@pytest.fixture
def producer(kafka: Kafka, workspace: Settings) -> Iterator[KafkaProducer]:
    """In a transaction, in which a record has been refused."""
    bootstrap = {"bootstrap.servers": kafka.bootstrap_servers}
    topic = NewTopic(f"{workspace.prefix}outputs", 1, config={"max.message.bytes": "2000"})
    admin = AdminClient(bootstrap)
    for future in admin.create_topics([topic]).values():
        future.result(WAIT_S)
    made = KafkaProducer(KafkaConfig(bootstrap, workspace.prefix), "counting")
    made.init(WAIT_S)
    made.begin()
    made.send([("outputs", TOO_LARGE, b"k", 0)])
    yield made
    made.close()


def test_what_is_said_after_it_tells_why_nothing_is_taken(producer: KafkaProducer) -> None:
    until = time.monotonic() + WAIT_S
    with pytest.raises(Abortable, match=r"producing to outputs: .*MSG_SIZE_TOO_LARGE"):
        while time.monotonic() < until:
            producer.send([("outputs", SMALL, b"k", 0)])
            time.sleep(0.002)
    producer.abort(WAIT_S)
