"""A small workspace whose state can be kept: the shipped stages and worker, RocksDB, and a broker that is a list.

What happens in it is fixed, in two parts: `before` is what a golden folder holds, `after` is what a later release does
with it.
"""

import base64
import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.activation import ActivationPlan
from pipeline.definitions.loader import load_text
from pipeline.definitions.segments import compile_definitions
from pipeline.identifiers import Keys
from pipeline.identity import IdentityStage, builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import CaughtUp, Event, encode
from pipeline.runtime.adapters import Committed
from pipeline.runtime.memory import MemoryBroker, memory_adapters
from pipeline.runtime.memory.log import Entry
from pipeline.runtime.ports import Stage
from pipeline.runtime.rocksdb import RocksStores
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.worker import Worker
from pipeline.topology import IDENTITY, TOPICS, UNIFY, Role
from pipeline.unify import UnifyStage

PARTITIONS = 2
PEOPLE = 30
START_MS = 1_790_000_000_000
MINUTE_MS, DAY_MS = 60_000, 86_400_000
KEYS = Keys(b"the secret of the golden folders")
TABLES = ("profiles", "segment-members", "identities")
RULES = """
segment: readers
when: {performed: {event: Page Viewed, count: {at_least: 5}}}
---
segment: lately
when: {performed: {event: Page Viewed, within: 7d}}
---
segment: lapsed
when: {all: [{performed: {event: Order Completed}}, {not: {performed: {event: Order Completed, within: 14d}}}]}
---
segment: big
when: {performed: {event: Order Completed, sum: {of: properties.total, at_least: 200}, within: 30d}}
---
segment: abandoned
when: {sequence: {steps: [{event: Cart Viewed}, {not: {event: Order Completed}, within: 2h}]}}
---
segment: pros
when: {trait: {plan: {equals: pro}}}
---
computed: spent
compute: {function: sum, event: Order Completed, of: properties.total}
---
computed: favourite
compute: {function: most_frequent, event: Page Viewed, of: properties.path}
"""


def events(seed: int, count: int, begin_ms: int, every_ms: int) -> Iterator[Event]:
    """What people do: on a cookie, known, or logging in; some of it late, some of it twice."""
    draw = random.Random(seed)
    for number in range(count):
        person = number % PEOPLE
        user, cookies = f"user_id:u{person}", [f"anonymous_id:c{person}-{n}" for n in range(person % 3)]
        choices = [[user], *([cookie] for cookie in cookies), *([user, cookie] for cookie in cookies)]
        received = begin_ms + number * every_ms
        event = Event(
            f"m{seed}-{number - (number % 17 == 16)}",
            "track",
            draw.choice(["Page Viewed", "Page Viewed", "Cart Viewed", "Order Completed"]),
            draw.choice(choices),
            received - draw.choice([0, 0, 0, DAY_MS]),
            received,
            f"raw/0/{number}",
            {"total": draw.randrange(100), "path": draw.choice(["/", "/pricing", "/docs"])},
            {"plan": draw.choice(["free", "pro"])} if draw.random() < 0.2 else {},
        )
        yield event


class Workspace:
    """One deployment. `folder` holds the stores; several workers in turn may use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now_ms = START_MS
        self.broker = MemoryBroker()
        for topic in TOPICS:
            self.broker.create_topic(topic.name, topic.partitions or PARTITIONS)
        bodies = [written.body for written in load_text(RULES)]
        segments, computed = ([(body, 1) for body in bodies if kind in body] for kind in ("segment", "computed"))
        plan = GenerationPlan(0, builtin_rules(), compile_definitions(segments, computed), ActivationPlan())
        self._make: dict[str, Callable[[int], Stage]] = {
            IDENTITY.name: lambda _: IdentityStage(KEYS, lambda _: plan, PARTITIONS),
            UNIFY.name: lambda n: UnifyStage(n, KEYS, lambda _: plan, partitions=PARTITIONS),
        }

    # --------------------------------------------------------------------------------------------- what happens

    def before(self) -> None:
        """Ten days."""
        self.happen(events(1, 420, START_MS, 30 * MINUTE_MS))

    def after(self) -> None:
        """Ten more, and then a month in which nobody does anything."""
        begin = START_MS + 12 * DAY_MS
        self.happen(events(2, 420, begin, 30 * MINUTE_MS))
        self.happen([], begin + 45 * DAY_MS)

    def happen(self, what: Iterable[Event], until_ms: int = 0) -> None:
        """Write events, say that the sources are at their end, and work until everything has come out."""
        for event in what:
            self.broker.now_ms = event.received
            self.broker.produce("events", KEYS.actor(event.identifiers[0]), encode(event))
            until_ms = max(until_ms, event.received)
        self.now_ms = self.broker.now_ms = until_ms
        for partition in range(PARTITIONS):
            self.broker.produce("events", None, encode(CaughtUp(until_ms)), partition)
        self.work()

    def work(self) -> None:
        """Start a worker of each role, and let them go on until nothing more comes of it; then stop them."""
        workers = [self._worker(IDENTITY), self._worker(UNIFY)]
        size, quiet = -1, 0
        while quiet < 5:
            busy = sum(worker.run_once() for worker in workers) or any(worker.restoring() for worker in workers)
            now = sum(log.end for logs in self.broker.topics.values() for log in logs)
            quiet = quiet + 1 if now == size and not busy else 0
            size = now
        for worker in workers:
            worker.close()
            self.broker.expire_member(worker.role.name, f"{worker.role.name}-0")

    def _worker(self, role: Role) -> Worker:
        adapters = memory_adapters(
            self.broker, role.name, "0", lambda: self.now_ms, RocksStores(self.folder / role.name)
        )
        # Weeks pass between one worker and the next; no tombstone is ever compacted away here.
        worker = Worker(role, self._make[role.name], adapters, WorkerSettings(tombstone_retention_ms=1_000 * DAY_MS))
        worker.start()
        return worker

    # ------------------------------------------------------------------------------------------------ what came of it

    def table(self, topic: str) -> dict[str, Any]:
        """The present content of a compacted topic, decoded."""
        found: dict[str, Any] = {}
        for record in self.broker.read(topic):
            assert record.key is not None
            found.pop(record.key.decode(), None)
            if record.value is not None:
                found[record.key.decode()] = msgspec.json.decode(record.value)
        return found

    def said(self, topic: str, since: dict[int, int] | None = None) -> list[Any]:
        """What a log topic holds, from these offsets on."""
        start = since or {}
        return [
            msgspec.json.decode(record.value)
            for record in self.broker.read(topic)
            if record.value is not None and record.offset >= start.get(record.partition, 0)
        ]

    def ends(self, topic: str) -> dict[int, int]:
        return {number: log.end for number, log in enumerate(self.broker.topics[topic])}

    # -------------------------------------------------------------------------------------------------- kept as a file

    def dump(self, file: Path) -> None:
        """Write every topic and the groups' positions."""
        topics = {
            name: {
                "id": self.broker.topic_ids[name],
                "partitions": [
                    {"start": log.start, "end": log.end, "records": [_kept(e) for e in log.read(log.start, log.end)[0]]}
                    for log in logs
                ],
            }
            for name, logs in self.broker.topics.items()
        }
        groups = {
            name: [[*partition, *told] for partition, told in sorted(group.offsets.items())]
            for name, group in self.broker.groups.items()
        }
        data = json.dumps({"now_ms": self.now_ms, "topics": topics, "groups": groups}, separators=(",", ":"))
        with gzip.GzipFile(file, "wb", mtime=0) as packed:
            packed.write(data.encode())

    def load(self, file: Path) -> None:
        """Be as the workspace was that wrote this file."""
        kept = json.loads(gzip.decompress(file.read_bytes()))
        self.now_ms = self.broker.now_ms = kept["now_ms"]
        for name, topic in kept["topics"].items():
            self.broker.topic_ids[name] = topic["id"]
            for log, partition in zip(self.broker.topics[name], topic["partitions"], strict=True):
                log.entries = [Entry(offset, _bytes(k), _bytes(v), at) for offset, k, v, at in partition["records"]]
                log.start, log.end = partition["start"], partition["end"]
        for name, offsets in kept["groups"].items():
            told = {(topic, number): Committed(position, id) for topic, number, position, id in offsets}
            self.broker.groups[name].offsets.update(told)


def _kept(entry: Entry) -> list[Any]:
    return [entry.offset, _text(entry.key), _text(entry.value), entry.timestamp_ms]


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
