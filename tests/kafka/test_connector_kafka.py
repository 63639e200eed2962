"""The Kafka connector passes the suite of connectors on a real broker of its own, which is paused now and then."""

import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from connectors.kafka import KafkaConnector, KafkaOptions
from connectors.testing import ConnectorContract, sample_delivery
from pipeline.broker import Kafka
from pipeline.broker.local import LocalKafka
from pipeline.identifiers import partition_of
from pipeline.settings import load
from tests.rooms.runtime.fatal import break_for_good

PARTITIONS = 3


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalKafka]:
    kafka = LocalKafka(load().cache_dir)
    try:
        yield kafka
    finally:
        kafka.stop()


class TestKafka(ConnectorContract):
    connector = KafkaConnector
    made = 0

    @pytest.fixture(autouse=True)
    def _topic(self, broker: LocalKafka) -> None:
        type(self).made += 1
        self.broker = broker
        self.topic = f"out-{self.made}"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        admin.create_topics([NewTopic(self.topic, PARTITIONS, 1)])[self.topic].result(120)

    def options(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.broker.bootstrap_servers, "topic": self.topic, "timeout_seconds": 3}

    def messages(self) -> list[Any]:
        consumer = Consumer(
            {"bootstrap.servers": self.broker.bootstrap_servers, "group.id": "x", "enable.partition.eof": True}
        )
        consumer.assign([TopicPartition(self.topic, number, 0) for number in range(PARTITIONS)])
        found, ends = [], 0
        while ends < PARTITIONS:
            message = consumer.poll(5)
            assert message is not None
            if message.error() is None:
                found.append(message)
            else:
                ends += 1
        consumer.close()
        return found

    def received(self) -> list[str]:
        return [dict(message.headers())["delivery_id"].decode() for message in self.messages()]

    def break_destination(self) -> None:
        self.broker.pause()

    def mend_destination(self) -> None:
        self.broker.resume()

    def test_a_key_is_where_other_clients_look_for_it(self) -> None:
        self._deliver([sample_delivery(number, f"p{number}") for number in range(9)])
        for message in self.messages():
            assert message.partition() == partition_of(message.key(), PARTITIONS)

    def test_a_topic_that_is_not_there_means_retry(self) -> None:
        options = KafkaOptions.model_validate({**self.options(), "topic": "nowhere"})
        connector = KafkaConnector("tested", options)
        assert [one.status for one in connector.deliver([sample_delivery(1)])] == ["retry"]
        connector.close()


def test_a_producer_that_is_broken_for_good_has_a_successor(kafka: Kafka) -> None:
    topic = f"out-{secrets.token_hex(4)}"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    options = KafkaOptions(bootstrap_servers=kafka.bootstrap_servers, topic=topic)
    connector = KafkaConnector("tested", options)
    batch = [sample_delivery(number, f"p{number}") for number in range(3)]
    break_for_good(connector._producer)
    assert {one.status for one in connector.deliver(batch)} == {"retry"}
    assert {one.status for one in connector.deliver(batch)} == {"delivered"}
    break_for_good(connector._producer)
    connector.close()


@pytest.mark.parametrize("name", ["plugin.library.paths", "ssl.engine.location", "sasl.kerberos.kinit.cmd"])
@pytest.mark.parametrize("section", ["properties", "secrets"])
def test_a_definition_names_no_code_to_be_run(name: str, section: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} would run code"):
        KafkaOptions.model_validate(
            {"bootstrap_servers": "k:1", "topic": "t", section: {name: {"env": "X"} if section == "secrets" else "x"}}
        )


def test_passwords_are_refused_where_they_would_be_read() -> None:
    options = {"bootstrap_servers": "k:1", "topic": "t"}
    secrets = (
        *("sasl.password", "ssl.key.pem", "sasl.jaas.config", "sasl.oauthbearer.client.secret"),
        *("sasl.oauthbearer.config", "sasl.oauthbearer.assertion.private.key.passphrase"),
    )
    named = [{"properties": {name: "x"}} for name in secrets]
    for wrong in (*named, {"properties": {"acks": "0"}}, {"secrets": {"a": "literal"}}):
        with pytest.raises(ValueError, match=r"secrets|set by the connector|secret never"):
            KafkaOptions.model_validate({**options, **wrong})
