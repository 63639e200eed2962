"""Groups from outside: who is in one, where it stands for good, and where one that nobody is in shall begin."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipeline.errors import BrokerError
from pipeline.runtime.kafka.doors import list_offsets
from pipeline.runtime.kafka.errors import PASSING
from pipeline.runtime.kafka.positions import CommittedPositions
from pipeline.runtime.kafka.quiet import quiet_properties
from pipeline.settings import Settings

Positions = dict[tuple[str, int], int]
_TIMEOUT_S = 30.0
_ANSWER_S = 5.0


def members(settings: Settings, group: str) -> int | None:
    """How many members a group of the workspace has; None while the broker does not say. A member that ended counts
    until its session has expired."""
    name = settings.prefix + group
    client = AdminClient(quiet_properties(settings))
    try:
        return len(client.describe_consumer_groups([name], request_timeout=_ANSWER_S)[name].result().members)
    except KafkaException as error:
        return 0 if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND else None


def final_positions(settings: Settings, group: str, topics: Sequence[str]) -> Positions:
    """The positions of a group that nobody is in: (logical topic, partition) → position, the beginning where it has
    none. Waits for transactions that may still move them.

    Raises:
        BrokerError: the broker does not say, or such a transaction does not end.
    """
    consumer = _consumer(settings, group)
    names = {settings.topic(topic): topic for topic in topics}
    try:
        until_s = time.monotonic() + _TIMEOUT_S
        while True:
            try:
                known = consumer.list_topics(timeout=_ANSWER_S).topics
                # Of one that is not there nothing was read.
                partitions = [
                    TopicPartition(one, number) for one in names if one in known for number in known[one].partitions
                ]
                told = consumer.committed(partitions, _ANSWER_S) if partitions else []
                starts = list_offsets(AdminClient(quiet_properties(settings)), partitions, latest=False)
                break
            except KafkaException as error:
                if error.args[0].code() not in PASSING or time.monotonic() > until_s:
                    raise BrokerError(f"Kafka does not say how far {group} is: {error.args[0].str()}.") from None
                time.sleep(0.2)
    finally:
        consumer.close()
    return {
        (names[at.topic], at.partition): at.offset if at.offset >= 0 else starts[at.topic, at.partition] for at in told
    }


def reached(settings: Settings, group: str, topic: str, partition: int) -> tuple[int, str]:
    """How far a group has come with a partition, and what it keeps beside that: (position, note). Nobody is waited for.

    Raises BrokerError: the broker does not say.
    """
    committed = CommittedPositions({**quiet_properties(settings), "client.id": "headwater-positions"})
    name, real = settings.prefix + group, settings.topic(topic)
    try:
        found = committed(name, [TopicPartition(real, partition)], _ANSWER_S)
    except KafkaException as error:
        raise BrokerError(f"Kafka does not say how far {group} is: {error.args[0].str()}.") from None
    return found[real, partition], next(iter(committed.notes[name]), "")


def set_positions(settings: Settings, group: str, positions: Mapping[tuple[str, int], int]) -> None:
    """Let a group that nobody is in begin at these positions. BrokerError if somebody is, or Kafka refuses."""
    consumer = _consumer(settings, group)
    wanted = [TopicPartition(settings.topic(topic), number, at) for (topic, number), at in positions.items()]
    until_s = time.monotonic() + _TIMEOUT_S
    try:
        while True:
            try:
                for told in consumer.commit(offsets=wanted, asynchronous=False) or []:
                    if told.error is not None:
                        raise KafkaException(told.error)
                return
            except KafkaException as error:
                if error.args[0].code() not in PASSING or time.monotonic() > until_s:
                    raise BrokerError(
                        f"The group {settings.prefix}{group} cannot be told where to begin: {error.args[0].str()}.",
                        settings.prefix + group,
                        "stop whoever works in it, and try again",
                    ) from None
                time.sleep(0.2)
    finally:
        consumer.close()


def _consumer(settings: Settings, group: str) -> Any:
    return Consumer(
        {
            **quiet_properties(settings),
            "group.id": settings.prefix + group,
            "enable.auto.commit": False,
            # With it the broker answers only once no open transaction can move the positions any more.
            "isolation.level": "read_committed",
        }
    )
