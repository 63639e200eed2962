"""A producer that reports each record at once, as acknowledged at an offset, or as written for all that is known."""

from collections.abc import Callable
from typing import Any

from confluent_kafka import Message


class Reports:
    """`offset` None: what librdkafka reports of a request that failed, where the one behind it was acknowledged."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def produce(
        self, topic: str, value: Any = None, key: Any = None, partition: int = -1,
        *, on_delivery: Callable[[None, Message], None], **_: Any,
    ) -> None:  # fmt: skip
        on_delivery(None, Message(topic=topic, offset=-1001 if self._offset is None else self._offset))

    def poll(self, timeout: float = 0) -> int:
        return 0

    def flush(self, timeout: float = 0) -> int:
        return 0

    def __len__(self) -> int:
        return 0
