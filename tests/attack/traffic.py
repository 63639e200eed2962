"""Seeded traffic: people with one identifier, cookies that log in later, duplicates, and what nobody can decode."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
from confluent_kafka import KafkaException, Producer

from pipeline.settings import Settings
from tests.attack.expected import WEIGHED

DEFINITIONS = """
computed: weight_seen
compute: {function: sum, event: Seen, of: properties.weight}
---
computed: weight_bought
compute: {function: sum, event: Bought, of: properties.weight}
---
computed: weight_left
compute: {function: sum, event: Left, of: properties.weight}
---
segment: regulars
when: {performed: {event: Bought, count: {at_least: 3}}}
---
segment: browsers
when: {all: [{performed: {event: Seen, count: {at_least: 2}}}, {not: {performed: {event: Bought}}}]}
---
segment: fresh
when: {performed: {event: Seen, within: 4s}}
"""
FRESH_MS = 4_000


def later_segments(count: int) -> str:
    """What is added to the definitions while the traffic runs, and has a past to be read: people who were seen with a
    weight above the n-th threshold. No two thresholds share what is kept of a person."""
    return "".join(
        f"---\nsegment: {LATER}{n}\nwhen: {{performed: {{event: Seen, "
        f"where: {{properties.weight: {{greater_than: {later_threshold(n)}}}}}}}}}\n"
        for n in range(1, count + 1)
    )


def later_threshold(number: int) -> int:
    """The weight above which one is a member of the n-th segment that came later."""
    return number * 2**26


LATER = "heavy_"


class Person:
    """A user with cookies, or a cookie that never logs in."""

    def __init__(self, number: str, cookies: int, logs_in: bool) -> None:
        self.user = f"u{number}"
        self.cookies = [f"c{number}-{n}" for n in range(cookies)]
        self.linked: set[str] = set()
        self.logs_in = logs_in

    def identifiers(self, random_: random.Random) -> dict[str, str]:
        """Those of one event."""
        if not self.cookies:
            return {"userId": self.user}
        cookie = random_.choice(self.cookies)
        if self.logs_in and random_.random() < 0.25:
            return {"userId": self.user, "anonymousId": cookie}
        if self.logs_in and random_.random() < 0.3:
            return {"userId": self.user}
        return {"anonymousId": cookie}


def messages(seed: int, name: str = "") -> Iterator[dict[str, Any] | bytes]:
    """An endless stream; the same seed and name, the same stream."""
    random_ = random.Random(f"{seed}/{name}")
    people: list[Person] = []
    sent: list[dict[str, Any]] = []
    number = 0
    while True:
        number += 1
        draw = random_.random()
        if draw < 0.02:
            yield f"{{not json {name}{number}".encode()
            continue
        if draw < 0.08 and sent:
            yield random_.choice(sent[-300:])
            continue
        if len(people) < 12 or random_.random() < 0.08:
            cookies = random_.choice([0, 0, 1, 1, 2, 3])
            people.append(Person(f"{name}{len(people)}", cookies, random_.random() < 0.8))
        person = random_.choice(people[-40:])
        message = {
            "type": "track",
            "messageId": f"m{name}{number}",
            "event": random_.choice(WEIGHED),
            "properties": {"weight": random_.getrandbits(32)},
            **person.identifiers(random_),
        }
        sent.append(message)
        yield message


class Traffic:
    """Produces a stream into `raw` from a thread, so many a second, until it is stopped."""

    def __init__(self, settings: Settings, seed: int, per_second: int = 60) -> None:
        self.produced = 0
        self._crowds = 0
        self._topic = settings.topic("raw")
        self._stream = messages(seed)
        self._per_second = per_second
        # The broker will be away for a while: nothing is given up.
        self._producer = Producer(
            {
                **settings.client_properties(),
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
                "partitioner": "murmur2_random",
                "log_level": 2,
            }
        )
        self._over = threading.Event()
        self._paused = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.1):
            if not self._paused.is_set():
                self.send(max(1, self._per_second // 10))

    def send(self, count: int) -> None:
        """Produce so many now."""
        for _ in range(count):
            message = next(self._stream)
            key: bytes | None = None
            if isinstance(message, bytes):
                value = message
            else:
                key = str(message.get("userId") or message["anonymousId"]).encode()
                value = msgspec.json.encode(message)
            try:
                self._producer.produce(self._topic, value, key)
            except (BufferError, KafkaException) as error:
                raise AssertionError(f"the traffic could not be produced: {error}") from error
            self.produced += 1
        self._producer.poll(0)

    def crowd(self, people: int) -> None:
        """Produce one event each of so many who have not been here, all at once, beside the stream."""
        self._crowds += 1
        weights = random.Random(f"{self._topic} {self._crowds}")
        for n in range(people):
            user = f"crowd{self._crowds}-{n}"
            message = {
                "type": "track",
                "messageId": f"m{user}",
                "event": "Seen",
                "properties": {"weight": weights.getrandbits(32)},
                "userId": user,
            }
            self._producer.produce(self._topic, msgspec.json.encode(message), user.encode())
        self._producer.poll(0)

    def stop(self) -> None:
        """Produce nothing more."""
        self._over.set()
        self._thread.join()

    def finish(self) -> None:
        """Stop, and wait until everything is in the log."""
        self.stop()
        assert self._producer.flush(120) == 0, "the traffic is not in the log"
