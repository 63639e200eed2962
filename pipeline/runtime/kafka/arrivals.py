"""Taking from a consumer what has come, without waiting for more."""

from confluent_kafka import Consumer, Message


def take(consumer: Consumer, limit: int, timeout_s: float) -> list[Message]:
    """Up to `limit` messages that have come, as soon as one has; none if none came within `timeout_s`.

    Asked for many at once, the client waits the whole time for the last of them. Raises KafkaException.
    """
    messages = consumer.consume(limit, 0)
    if not messages and timeout_s > 0:
        messages = consumer.consume(1, timeout_s)
        if messages and limit > 1:
            messages += consumer.consume(limit - 1, 0)
    return messages
