"""Who sends events at a pace, and who watches them come by: each a process of its own, beside the roles.

Nothing in the roles is changed to be measured. A record carries the time at which its stage handed it to the producer,
and the watcher sees when it can be read; so the way of an event falls into four hops:

    ingest        from produce to ingest handing over the clean event: fetched, waited for the turn before, decoded
    its commit    until a read_committed consumer has it
    unify         from there to unify handing over the segment change
    its commit    until a read_committed consumer has it
"""

import json
import multiprocessing
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.core.job import RULES, SPAN_MS, events, rules_as_yaml

GOLD = "segment: gold\nwhen: {trait: {tier: {equals: gold}}}"
NEW_PEOPLE_SHARE = 0.02
CHANGING_SHARE = 0.25
_KNOWN_EVENTS = 12


class Hops(NamedTuple):
    """The way of one event, ms. The first and the third end at a time that Kafka keeps in whole milliseconds."""

    ingest: float
    ingest_commit: float
    unify: float
    unify_commit: float
    whole: float


_Times = Mapping[str, tuple[float, float]]


def ways(
    sent: Sequence["Sent"], times: Sequence[float], made: _Times, changed: _Times
) -> tuple[list["Hops"], list["Sent"]]:
    """The ways of those of `sent` that changed a segment; and those that did not. `times`: when each was handed to the
    producer; `made` and `changed`: what the watcher saw of them."""
    found, without = [], []
    for event, at in zip(sent, times, strict=True):
        clean, change = made.get(event.message_id), changed.get(event.message_id)
        if change is None or clean is None:
            without.append(event)
            continue
        steps = [(after - before) * 1_000 for before, after in pairwise((at, *clean, *change))]
        found.append(Hops(*steps, sum(steps)))
    return found, without


class Sent(NamedTuple):
    """An event to be sent: its message id, key, value, and whether it must change a segment."""

    message_id: str
    key: bytes
    value: bytes
    changes: bool


class _Evidence(msgspec.Struct):
    message_id: str = ""
    partition: int = -1
    offset: int = -1


class _ChangeSeen(msgspec.Struct):
    evidence: _Evidence


def rules() -> str:
    """The twenty rules of the core job, and one that follows a trait."""
    return rules_as_yaml(RULES) + "---\n" + GOLD


def acquaintance(people: int) -> Iterator[tuple[bytes | None, bytes]]:
    """Raw records (key, value) by which the pipeline comes to know these people: a dozen events each."""
    base = events(people * _KNOWN_EVENTS, people, time.time_ns() // 1_000_000 - SPAN_MS, seed=7)
    for number, event in enumerate(base):
        user = event.identifiers[0].partition(":")[2]
        yield user.encode(), _raw(f"known-{number}", user, event.event, event.properties, {**event.traits, "tier": "x"})


def steady(count: int, people: int, label: str) -> Iterator[Sent]:
    """What a site sees: known people, most of whose events change no segment, and a few who come for the first time."""
    chance = random.Random(label)
    base = events(count, people, 0, seed=chance.randrange(10**9))
    for number, event in enumerate(base):
        message_id, drawn = f"{label}-{number}", chance.random()
        if drawn < NEW_PEOPLE_SHARE:
            user = f"new-{message_id}"
            yield Sent(message_id, user.encode(), _raw(message_id, user, "Order Completed", event.properties, {}), True)
        elif drawn < NEW_PEOPLE_SHARE + CHANGING_SHARE:
            # One person after the other, so that nobody changes twice in a millisecond.
            turn, person = divmod(number, people)
            user = f"u-{person}"
            tier = "silver" if turn % 2 else "gold"
            value = _raw(message_id, user, "Identify", {}, {"tier": tier})
            yield Sent(message_id, user.encode(), value, False)
        else:
            user = event.identifiers[0].partition(":")[2]
            value = _raw(message_id, user, event.event, event.properties, event.traits)
            yield Sent(message_id, user.encode(), value, False)


def all_new(count: int, people: int, label: str) -> Iterator[Sent]:
    """Nobody comes twice: each event makes a person and a member."""
    for number in range(count):
        user = f"{label}-{number}"
        value = {"type": "track", "event": "Order Completed", "messageId": user, "userId": user}
        yield Sent(user, user.encode(), json.dumps(value).encode(), True)


TRAFFIC = {"steady": steady, "new": all_new}


def _raw(message_id: str, user: str, name: str, properties: dict[str, Any], traits: dict[str, Any]) -> bytes:
    kind = {"type": "identify"} if name == "Identify" else {"type": "track", "event": name}
    sent = {
        **kind,
        "messageId": message_id,
        "userId": user,
        "anonymousId": f"b-{user}",
        "properties": properties,
        "traits": traits,
        "context": {"page": {"referrer": "https://search.example/?q=gifts"}},
    }
    return json.dumps(sent, separators=(",", ":")).encode()


class Aside(Protocol):
    """What else the watcher is to look at. It is copied into the watcher's process."""

    def begin(self) -> None:
        """Called there, before anything is watched."""
        ...

    def takes(self, change: bytes, made: float) -> bool:
        """Whether a segment change is nothing to the ways of events; `made`: the time the record carries, s."""
        ...


class Watcher:
    """The process that reads `events` and `segment-changes` as any subscriber would."""

    def __init__(self, address: str, prefix: str, aside: Aside | None = None) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_watch, args=(address, prefix, theirs, aside), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid or 0

    def seen(self) -> int:
        """How many changes it has seen so far."""
        self._pipe.send("count")
        return int(self._pipe.recv())

    def aside(self) -> Any:
        """What was set aside, as it is by now."""
        self._pipe.send("aside")
        return self._pipe.recv()

    def end(self) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]]:
        """Message id → (when the record was made, when it was seen), s, of events and of their first changes."""
        self._pipe.send("end")
        found: tuple[dict[str, tuple[float, float]], dict[str, tuple[float, float]]] = self._pipe.recv()
        self._process.join()
        return found


def _watch(address: str, prefix: str, pipe: Connection, aside: Aside | None) -> None:
    if aside is not None:
        aside.begin()
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"{prefix}watcher",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "log_level": 3,
        }
    )
    known = consumer.list_topics(timeout=30).topics
    topics = [f"{prefix}{topic}" for topic in ("events", "segment-changes")]
    places = [TopicPartition(topic, number) for topic in topics for number in known[topic].partitions]
    for place in places:
        bounds = consumer.get_watermark_offsets(place, timeout=30)
        assert bounds is not None
        place.offset = bounds[1]
    consumer.assign(places)
    of_changes = msgspec.json.Decoder(_ChangeSeen).decode
    events_topic = f"{prefix}events"
    # Events may be sealed: which one a change comes from is known by its place.
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    changed: dict[str, tuple[float, float]] = {}
    came_from: dict[str, tuple[int, int]] = {}
    consumer.poll(1)
    pipe.send("ready")
    while True:
        # Never `consume(many, timeout)`: it waits for as many, or for the timeout.
        messages = consumer.consume(1, 0.05)
        messages += consumer.consume(2_000, 0)
        now = time.time()
        for message in messages:
            value = message.value()
            if message.error() is not None or value is None:
                continue
            at = message.timestamp()[1] / 1_000
            if message.topic() == events_topic:
                seen[message.partition(), message.offset()] = (at, now)
            elif aside is None or not aside.takes(value, at):
                evidence = of_changes(value).evidence
                if evidence.message_id not in changed:
                    changed[evidence.message_id] = (at, now)
                    came_from[evidence.message_id] = (evidence.partition, evidence.offset)
        if pipe.poll():
            asked = pipe.recv()
            if asked == "end":
                break
            pipe.send(aside if asked == "aside" else len(changed))
    consumer.close()
    # Only now: of two topics, the later record may be handed over first.
    made = {message_id: seen[place] for message_id, place in came_from.items() if place in seen}
    pipe.send((made, changed))


class Sender:
    """The process that sends events at a pace, as an application does that waits for nothing."""

    def __init__(self, address: str, topic: str, sent: Sequence[Sent], rate: float) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_send, args=(address, topic, list(sent), rate, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._pipe.recv() == "ready"
        self._pipe.send("go")

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid or 0

    def end(self) -> tuple[list[float], float]:
        """When each event was handed to the producer, s; and how late the pace was at its 99th percentile, ms."""
        found: tuple[list[float], float] = self._pipe.recv()
        self._process.join()
        return found


def _send(address: str, topic: str, sent: list[Sent], rate: float, pipe: Connection) -> None:
    # Nothing else: `linger.ms` of an application is its own choice, and would be added to every figure.
    properties = {"linger.ms": 0, "acks": "all", "partitioner": "murmur2_random", "log_level": 3}
    producer = Producer({"bootstrap.servers": address, **properties})
    producer.list_topics(topic, timeout=30)
    chance = random.Random(1)
    times: list[float] = []
    late: list[float] = []
    pipe.send("ready")
    pipe.recv()
    due = time.time()
    for event in sent:
        # People do not come at equal intervals.
        due += chance.expovariate(rate)
        while (wait := due - time.time()) > 0:
            producer.poll(0)
            time.sleep(min(wait, 0.005))
        now = time.time()
        producer.produce(topic, event.value, event.key)
        times.append(now)
        late.append(now - due)
    producer.flush(30)
    late.sort()
    pipe.send((times, late[int(len(late) * 0.99)] * 1_000))
