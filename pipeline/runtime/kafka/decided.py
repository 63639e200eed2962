"""Waiting for transactions: a reader of committed records sees nothing of one that is open, and yet what it wrote may
stand before what is written now."""

import time
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as UntypedOffsetSpec

from pipeline.errors import BrokerError
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings

OffsetSpec: Any = UntypedOffsetSpec  # the package ships no types for it
_REQUEST_TIMEOUT_S = 15.0
_LOOK_EVERY_S = 0.02
_PATIENCE_S = 120.0  # a transaction that nobody ends is ended by the broker long before


def wait_until_decided(settings: Settings, topic: str) -> None:
    """Return when whatever stands in a topic now is committed or was aborted.

    Raises:
        BrokerError: a transaction does not end, or the broker does not answer.
    """
    physical = settings.topic(topic)
    admin = AdminClient(quiet_properties(settings))
    give_up = time.monotonic() + _PATIENCE_S
    try:
        partitions = admin.list_topics(physical, timeout=_REQUEST_TIMEOUT_S).topics[physical].partitions
        written = _ends(admin, physical, partitions, IsolationLevel.READ_UNCOMMITTED)
        while any(
            end < written[number]
            for number, end in _ends(admin, physical, written, IsolationLevel.READ_COMMITTED).items()
        ):
            if time.monotonic() > give_up:
                raise BrokerError(f"A transaction in {physical} does not end.", physical, "ask `headwater doctor`")
            time.sleep(_LOOK_EVERY_S)
    except (KafkaException, TimeoutError) as error:
        raise BrokerError(f"The Kafka does not answer: {error}.", physical) from None


def _ends(admin: AdminClient, topic: str, partitions: Any, level: IsolationLevel) -> dict[int, int]:
    wanted = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions}
    futures = admin.list_offsets(wanted, isolation_level=level, request_timeout=_REQUEST_TIMEOUT_S)
    return {at.partition: future.result(_REQUEST_TIMEOUT_S).offset for at, future in futures.items()}
