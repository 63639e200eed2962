"""What groups have committed, asked from outside of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition


class CommittedPositions:
    """Asks for the committed positions of groups without joining them. Keeps one connection per group.

    The admin client has a request for the same, and librdkafka 2.16 dies of it (signal 11) whenever a broker answers
    that it does not coordinate the group just now: at every start and every change of coordinators.
    """

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._properties = properties
        self._consumers: dict[str, Consumer] = {}
        self.notes: dict[str, list[str]] = {}
        """What each group kept beside its positions, as of when it was last asked."""

    def __call__(
        self, group: str, partitions: Sequence[TopicPartition], timeout_s: float
    ) -> dict[tuple[str, int], int]:
        """Position by (real topic name, partition), -1 for none yet. KafkaException if the broker does not say in time.

        Positions of transactions that are still open do not count, and are not waited for.
        """
        consumer = self._consumers.get(group)
        if consumer is None:
            consumer = self._consumers[group] = Consumer(
                {
                    **self._properties,
                    "group.id": group,
                    "enable.auto.commit": False,
                    "isolation.level": "read_uncommitted",
                }
            )
        try:
            answer = consumer.committed([TopicPartition(p.topic, p.partition) for p in partitions], timeout_s)
        except KafkaException:
            # It may have lost its brokers for good (lifeline.py): the next question begins with a new one.
            self._consumers.pop(group).close()
            raise
        for at in answer:
            if at.error is not None:
                raise KafkaException(at.error)
        self.notes[group] = [at.metadata for at in answer if at.metadata]
        return {(at.topic, at.partition): max(-1, at.offset) for at in answer}
