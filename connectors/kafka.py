"""Another Kafka topic, of this cluster or another.

    destination: data_platform
    kind: kafka
    segments: "*"
    profiles: true
    bootstrap_servers: kafka-1.example.com:9093
    topic: crm.customers
    properties: {security.protocol: SASL_SSL, sasl.mechanism: SCRAM-SHA-512, sasl.username: headwater}
    secrets: {sasl.password: {env: DATA_PLATFORM_PASSWORD}}

A record's key is the profile_id, its value the delivery as JSON, in the partition where the Java client would put it;
`delivery_id` and `action` stand in its headers. The producer is idempotent: a repetition is only what a crash of the
deliver role brings, and has the same delivery_id.
"""

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer
from pydantic import Field, field_validator

from connectors.base import Connector, Options, Outcome, SecretReference, delivered, rejected, retry
from pipeline.records import Delivery

_encode = msgspec.json.Encoder().encode
_OURS = frozenset({"bootstrap.servers", "acks", "enable.idempotence", "partitioner", "transactional.id"})
# Libraries that would be loaded, and a command that would be run.
_CODE = frozenset({"plugin.library.paths", "ssl.engine.location", "sasl.kerberos.kinit.cmd"})
_SECRET = re.compile(r"password|secret|\.key\.pem$|oauthbearer\.config$|oauthbearer\.assertion\.private\.key|jaas")
# Where a call also has reports of delivery to hand over, Python only notices that an exception is pending.
_CLIENT_ERRORS = (KafkaException, SystemError)
_AT_FAULT = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})


class KafkaOptions(Options):
    """`properties` are those of librdkafka, `secrets` the same for values that must not stand in a definition."""

    bootstrap_servers: str = Field(min_length=1, max_length=1_000)
    topic: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    properties: dict[str, str | int | float | bool] = {}
    secrets: dict[str, SecretReference] = {}
    timeout_seconds: float = Field(default=30.0, ge=1, le=300)

    @field_validator("properties", "secrets")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, given in value.items():
            if name in _OURS:
                raise ValueError(f"{name} is set by the connector; leave it out")
            if name in _CODE:
                raise ValueError(f"{name} would run code of the definition's choice; leave it out")
            if _SECRET.search(name) and not isinstance(given, SecretReference):
                raise ValueError(f"{name} belongs into `secrets`, as {{env: NAME}}")
        return value


class KafkaConnector(Connector):
    """An idempotent producer."""

    kind = "kafka"
    mode = "audience"
    max_batch = 1_000
    concurrency = 1
    keeps_order = True
    options_model = KafkaOptions

    def __init__(self, destination: str, options: KafkaOptions) -> None:
        super().__init__(destination, options)
        self._topic = options.topic
        self._timeout_s = options.timeout_seconds
        secrets = {name: reference.read() for name, reference in options.secrets.items()}
        self._settings: dict[str, Any] = {
            "client.id": f"headwater-{destination}",
            "log_level": 3,
            "linger.ms": 5,
            "compression.type": "lz4",
            "message.timeout.ms": int(options.timeout_seconds * 1000),
            **options.properties,
            **secrets,
            "bootstrap.servers": options.bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
        }
        self._lock = threading.Lock()
        try:
            self._producer: Producer | None = Producer(self._settings)
        except (KafkaException, ValueError) as error:
            raise ValueError(f"the properties of destination {destination} cannot be used: {error}") from None

    def deliver(self, deliveries: Sequence[Delivery]) -> list[Outcome]:
        """Produce all, and wait for the acknowledgement of each."""
        with self._lock:
            told: dict[int, KafkaError | None] = {}
            producer = self._producer or Producer(self._settings)
            self._producer = producer
            is_broken = False
            try:
                for place, delivery in enumerate(deliveries):
                    self._produce(producer, place, delivery, told)
                producer.flush(self._timeout_s + 5)
            except _CLIENT_ERRORS:
                # What is fatal is raised by whichever call serves the client's events; what is produced after it only
                # says that something was.
                is_broken = True
            outcomes = [self._outcome(place, told) for place in range(len(deliveries))]
            if is_broken or len(told) < len(deliveries) or any(map(_is_fatal, told.values())):
                # What hangs may still arrive: a producer of its own for the repetition, and none of the old one's.
                producer.purge()
                self._producer = None
            return _in_order(deliveries, outcomes)

    def _produce(self, producer: Producer, place: int, delivery: Delivery, told: dict[int, KafkaError | None]) -> None:
        headers: list[tuple[str, str | bytes | None]]
        headers = [("delivery_id", delivery.delivery_id.encode()), ("action", delivery.action.encode())]
        try:
            producer.produce(
                self._topic,
                _encode(delivery),
                delivery.profile_id.encode(),
                headers=headers,
                on_delivery=lambda error, _: told.__setitem__(place, error),
            )
        except KafkaException as error:
            told[place] = error.args[0]
        except BufferError:
            return  # not told: to be repeated
        producer.poll(0)

    def _outcome(self, place: int, told: dict[int, KafkaError | None]) -> Outcome:
        if place not in told:
            return retry("Kafka: not acknowledged in time")
        error = told[place]
        if error is None:
            return delivered()
        return rejected(f"Kafka: {error.str()}") if error.code() in _AT_FAULT else retry(f"Kafka: {error.str()}")

    def close(self) -> None:
        """Let go of the connection; everything was acknowledged, or told to be repeated."""
        if self._producer is not None:
            with suppress(*_CLIENT_ERRORS):
                self._producer.flush(1)


def _is_fatal(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError._FATAL


def _in_order(deliveries: Sequence[Delivery], outcomes: list[Outcome]) -> list[Outcome]:
    """After a failure the later ones of the same profile come again too, behind it."""
    waiting: dict[str, Outcome] = {}
    found = []
    for delivery, outcome in zip(deliveries, outcomes, strict=True):
        if delivery.profile_id in waiting:
            found.append(waiting[delivery.profile_id])
            continue
        if outcome.status == "retry":
            waiting[delivery.profile_id] = outcome
        found.append(outcome)
    return found
