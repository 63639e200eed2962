"""Taking from a consumer what has come, without waiting for more, and making records of it."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaException, Message

from pipeline.runtime.ports import Record

# What `Record(...)` comes to, without a call in Python for each of a hundred thousand records.
_new_record: Any = tuple.__new__
# Of a large batch so many messages are taken at once: they are let go of before the processor's cache has.
_AT_ONCE = 500


def take(consumer: Consumer, limit: int, timeout_s: float) -> list[Message]:
    """Up to `limit` messages that have come, as soon as one has; none if none came within `timeout_s`.

    Asked for many at once, the client waits the whole time for the last of them. Raises KafkaException.
    """
    messages = consumer.consume(limit, 0)
    if not messages and timeout_s > 0:
        messages = consumer.consume(1, timeout_s)
        if messages and limit > 1:
            # What was taken is not to be lost: an error that stays is met again.
            with suppress(KafkaException):
                messages += consumer.consume(limit - 1, 0)
    return messages


def records_of(messages: list[Message], names: Mapping[str, str]) -> list[Record]:
    """The records of those messages that are no errors, under their logical names."""
    return [
        _new_record(
            Record,
            (
                names[m.topic()],  # type: ignore[index]
                m.partition(),
                m.offset(),
                m.key(),
                m.value(),
                (stamp := m.timestamp())[1],
                tuple(headers) if (headers := m.headers()) else (),
                stamp[1] if stamp[0] == TIMESTAMP_LOG_APPEND_TIME else 0,
            ),
        )
        for m in messages
        if m.error() is None
    ]


def take_records(
    consumer: Consumer,
    limit: int,
    timeout_s: float,
    names: Mapping[str, str],
    opened: Callable[[list[Record]], list[Record]],
    others: list[Message],
) -> list[Record]:
    """The records of what `take` gives, `opened`; messages that are errors are added to `others`. Raises
    KafkaException."""
    found: list[Record] = []
    while limit > 0:
        count = min(limit, _AT_ONCE)
        try:
            messages = take(consumer, count, 0.0 if found else timeout_s)
        except KafkaException:
            if found:
                return found
            raise
        records = records_of(messages, names)
        if len(records) != len(messages):
            others += [message for message in messages if message.error() is not None]
        found += opened(records)
        if len(messages) < count:
            return found
        limit -= count
    return found
