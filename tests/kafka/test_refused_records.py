"""A record that the broker refuses in the midst of a transaction."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
# Less than a transaction may take: an abort that waits for what the broker does of itself is not over by then.
ABORT_WITHIN_S = 5.0
ROUNDS = 25

Made = Callable[[str], KafkaProducer]


@pytest.fixture
def made(kafka: Kafka, workspace: Settings) -> Made:
    """The producer of a slot, whose topic takes small records only."""
    bootstrap = {"bootstrap.servers": kafka.bootstrap_servers}
    topic = NewTopic(f"{workspace.prefix}outputs", 1, config={"max.message.bytes": "2000"})
    admin = AdminClient(bootstrap)
    for future in admin.create_topics([topic]).values():
        future.result(WAIT_S)
    return lambda slot: KafkaProducer(KafkaConfig(bootstrap, workspace.prefix, slot), "counting")


@contextmanager
def refused(producer: KafkaProducer) -> Iterator[None]:
    """Within a transaction in which a record is refused, with others on their way behind it."""
    try:
        producer.init(WAIT_S)
        producer.begin()
        producer.send([("outputs", TOO_LARGE, b"k", 0)])
        until = time.monotonic() + WAIT_S
        with pytest.raises(Abortable, match=r"producing to outputs: .*MSG_SIZE_TOO_LARGE"):
            while time.monotonic() < until:
                producer.send([("outputs", SMALL, b"k", 0)])
                time.sleep(0.002)
        yield
    finally:
        producer.close()


def committed(producer: KafkaProducer) -> bool:
    """Whether a transaction of a record that is taken was; else it is undone."""
    producer.begin()
    try:
        producer.send([("outputs", SMALL, b"k", 0)])
        producer.flush(WAIT_S)
        producer.commit(WAIT_S)
    except Abortable:
        producer.abort(ABORT_WITHIN_S)
        return False
    return True


def test_what_is_said_after_it_tells_why_nothing_is_taken(made: Made) -> None:
    with refused(producer := made("0")):
        producer.abort(ABORT_WITHIN_S)


def test_it_is_undone_and_the_next_one_goes_whatever_was_on_its_way_behind_it(made: Made) -> None:
    """One time in seven what is behind it is refused only once the abort has begun. Else the client may hear of that in
    the next transaction, and undoes it too, once."""
    for slot in range(ROUNDS):
        with refused(producer := made(str(slot))):
            producer.abort(ABORT_WITHIN_S)
            assert committed(producer) or committed(producer)
