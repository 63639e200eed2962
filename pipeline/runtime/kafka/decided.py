"""Waiting for transactions: a reader of committed records sees nothing of one that is open, and yet what it wrote may
stand before what is written now."""

import time

from pipeline.errors import BrokerError
from pipeline.runtime.errors import Retriable
from pipeline.runtime.kafka.config import KafkaConfig
from pipeline.runtime.kafka.producer import KafkaAdmin
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings

_REQUEST_TIMEOUT_S = 15.0
_LOOK_EVERY_S = 0.02
_PATIENCE_S = 120.0  # a transaction that nobody ends is ended by the broker long before


def wait_until_decided(settings: Settings, topic: str) -> None:
    """Return when whatever stands in a topic now is committed or was aborted.

    Raises:
        BrokerError: a transaction does not end, or the broker does not answer.
    """
    physical = settings.topic(topic)
    admin = KafkaAdmin(KafkaConfig(quiet_properties(settings), settings.prefix))
    give_up = time.monotonic() + _PATIENCE_S
    try:
        ends = admin.ends([topic], _REQUEST_TIMEOUT_S)
        written = {at: high for at, (_, high) in ends.items()}
        while any(ends[at][0] < high for at, high in written.items()):
            if time.monotonic() > give_up:
                raise BrokerError(f"A transaction in {physical} does not end.", physical, "ask `headwater doctor`")
            time.sleep(_LOOK_EVERY_S)
            ends = admin.ends([topic], _REQUEST_TIMEOUT_S)
    except Retriable as error:
        raise BrokerError(f"The Kafka does not answer: {error}.", physical) from None
