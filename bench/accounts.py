"""What accounts cost, and how soon an alert is there.

    python -m bench.accounts cost [--events 20000]            one account of 20,000 people beside 1,000 of 20 each
    python -m bench.accounts latency [--rate 500] [--seconds 20]     from the third person's page view to a webhook

`cost` is the unify stage alone, with the encoding of what it keeps: the same people do the same things in both, and
then some of them leave.
`latency` is a real broker and all roles: of ten events one is the third different person of an account who looks at
prices, and the alert about it arrives at a webhook.
"""

import argparse
import base64
import json
import multiprocessing
import random
import tempfile
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench import machine
from bench.workspace import Broker, Headwater, broker
from pipeline.accounts import AccountRules
from pipeline.activation import ActivationPlan
from pipeline.definitions.segments import compile_definitions
from pipeline.identifiers import Keys
from pipeline.identity import builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import CaughtUp, Event, encode
from pipeline.runtime.ports import Record
from pipeline.unify import UnifyStage

KEYS = Keys(b"bench")
NOON = 1_700_000_000_000
PRICING = {"properties.path": {"starts_with": "/pricing"}}
SEEN = {"performed": {"event": "Page Viewed", "where": PRICING, "within": "7d"}}
SEGMENTS: list[dict[str, Any]] = [
    {"segment": "warm", "entity": "account", "when": {"members": {"match": SEEN, "at_least": 3}}},
    {"segment": "trial", "entity": "account", "when": {"performed": {"event": "Trial Requested", "within": "30d"}}},
    {"segment": "quiet", "entity": "account", "when": {"not": {"performed": {"event": "*", "within": "30d"}}}},
    {
        "segment": "busy",
        "entity": "account",
        "when": {"performed": {"event": "Page Viewed", "within": "1d", "count": {"at_least": 10_000}}},
    },
]
BATCH = 200
LEAVING = 2_000
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"the secret of a benchmark is known").decode()


# --------------------------------------------------------------------------------------------------------------- cost


class _Store:
    """State as objects; what a batch has changed is encoded when it ends, as a commit would."""

    def __init__(self) -> None:
        self.values: dict[bytes, Any] = {}
        self.keys: dict[bytes, list[bytes]] = {}
        self.dirty: set[bytes] = set()

    def get(self, key: bytes) -> Any | None:
        return self.values.get(key)

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        if key not in self.values:
            insort(self.keys.setdefault(key[:33], []), key)
        self.values[key] = value
        self.dirty.add(key)

    def delete(self, key: bytes) -> None:
        if self.values.pop(key, None) is not None:
            among = self.keys[key[:33]]
            del among[bisect_left(among, key)]

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        among = self.keys.get(prefix[:33], []) if len(prefix) >= 33 else sorted(self.values)
        place = bisect_left(among, prefix)
        while place < len(among) and among[place].startswith(prefix):
            yield among[place], self.values[among[place]]
            place += 1

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        return iter(keys)

    def rest(self, prefix: bytes) -> None:
        """Everything stays awake."""

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        return []

    def first_wake(self) -> int | None:
        return None

    def scrub(self, prefix: bytes) -> None:
        """There is no disk."""


class _Out:
    def __init__(self) -> None:
        self.links: deque[bytes] = deque()

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        if topic == "links":
            self.links.append(value)

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        """Nobody reads it here."""


class _Deployment:
    def __init__(self) -> None:
        segments = compile_definitions([(one, 1) for one in SEGMENTS])
        rules = AccountRules()
        plan = GenerationPlan(0, builtin_rules(), segments, ActivationPlan(), accounts=rules)
        self.stage = UnifyStage(0, KEYS, lambda generation: plan)
        self.store, self.out, self.offset = _Store(), _Out(), 0

    def feed(self, values: list[tuple[bytes | None, bytes]]) -> None:
        for key, value in values:
            self.stage.step(Record("events", 0, self.offset, key, value), self.store, self.out)
            self.offset += 1
        while self.out.links:
            self.stage.step(Record("links", 0, 0, None, self.out.links.popleft()), self.store, self.out)
        self.stage.finish(self.store, self.out)
        for key in self.store.dirty:
            kept = self.store.values.get(key)
            if kept is not None:
                self.stage.encode(key, kept)
        self.store.dirty.clear()


def _event(number: int, person: int, at: int, **fields: Any) -> tuple[bytes | None, bytes]:
    identifier = f"user_id:{person}"
    event = Event(
        message_id=f"m{number}", identifiers=[identifier], time=at, received=at, source=f"raw/0/{number}", **fields
    )
    return KEYS.actor(identifier), encode(event)


def _run(people: int, size: int, events: int) -> tuple[float, float]:
    """µs of CPU an event of people in accounts of `size`, and a leaving."""
    deployment = _Deployment()
    joined = [_event(n, n, NOON, type="group", event="Group", group_id=f"account-{n // size}") for n in range(people)]
    for start in range(0, people, BATCH):
        deployment.feed(joined[start : start + BATCH])
    deployment.feed([(None, encode(CaughtUp(NOON + 1)))])
    chance = random.Random(1)
    done = [
        _event(
            people + n,
            chance.randrange(people),
            NOON + 1_000 + n * 20,
            type="page",
            event="Page Viewed",
            properties={"path": chance.choice(("/pricing", "/home", "/docs"))},
        )
        for n in range(events)
    ]
    cost_us = _cpu_us(deployment, done)
    left = [
        _event(
            people + events + n,
            person,
            NOON + 1_000_000 + n,
            type="track",
            event="Account Removed User",
            group_id=f"account-{person // size}",
        )
        for n, person in enumerate(chance.sample(range(people), LEAVING))
    ]
    return cost_us, _cpu_us(deployment, left)


def _cpu_us(deployment: _Deployment, values: list[tuple[bytes | None, bytes]]) -> float:
    """µs of CPU a record."""
    started = time.process_time()
    for start in range(0, len(values), BATCH):
        deployment.feed(values[start : start + BATCH])
    return (time.process_time() - started) / len(values) * 1e6


def cost(events: int) -> None:
    """One account of 20,000 people beside 1,000 of 20, in turn."""
    print(f"load {machine.load_average():.1f}")
    found: dict[int, list[tuple[float, float]]] = {20: [], 20_000: []}
    for _ in range(3):
        for size, told in found.items():
            told.append(_run(20_000, size, events))
            event_us, leaving_us = told[-1]
            print(f"accounts of {size:>6}: {event_us:7.1f} µs of CPU an event, {leaving_us:7.1f} a leaving", flush=True)
    print()
    for number, what in enumerate(("an event", "a leaving")):
        small, large = (min(one[number] for one in found[size]) for size in (20, 20_000))
        print(f"{what}: the least of three {small:.1f} and {large:.1f} µs: {large / small:.2f} times")


# ------------------------------------------------------------------------------------------------------------- latency


def _listen(pipe: Any) -> None:
    """A webhook: it keeps when the alert about each account came."""
    came: dict[str, float] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            now = time.time()
            self.send_response(204)
            self.send_header("content-length", "0")
            self.end_headers()
            if body["type"] == "alert":
                came.setdefault(body["data"]["account"], now)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", 0), Handler)
    pipe.send(server.server_port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while (asked := pipe.recv()) != "end":
        pipe.send(len(came) if asked == "count" else None)
    pipe.send(came)


def _raw(kind: str, message: str, user: str, **fields: Any) -> tuple[bytes, bytes]:
    return user.encode(), json.dumps({"type": kind, "messageId": message, "userId": user, **fields}).encode()


def _definitions(port: int) -> str:
    destination = (
        f"destination: sales\nkind: webhook\nalerts: '*'\nurl: http://127.0.0.1:{port}/alerts\nallow_private: true\n"
        "secret: {env: BENCH_SECRET}\n"
    )
    alert = "alert: warm_account\nenters: warm\n"
    return "---\n".join([*(json.dumps(one) + "\n" for one in SEGMENTS), alert, destination])


def _beforehand(accounts: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(accounts):
        for nth in range(3):
            user = f"p-{number}-{nth}"
            traits = {"owner": "rep-1"} if nth == 0 else {}
            yield _raw("group", f"g-{user}", user, groupId=f"a-{number}", traits=traits)
            if nth < 2:
                yield _raw("page", f"v-{user}", user, properties={"path": "/pricing"})


def latency(rate: float, seconds: float, warm_up_s: float) -> None:
    """Produce at a rate, and compare with when the webhook was called."""
    accounts = int(rate * (seconds + warm_up_s) / 10) + 1
    ours, theirs = multiprocessing.Pipe()
    listener = multiprocessing.get_context("spawn").Process(target=_listen, args=(theirs,), daemon=True)
    listener.start()
    port = ours.recv()
    with broker() as kafka, tempfile.TemporaryDirectory() as folder:
        workspace = Headwater.begin(kafka, "accounts.", 4, Path(folder), _definitions(port))
        try:
            workspace.become_ready()
            for role in ("unify", "ingest", "deliver"):
                workspace.start(role, environment={"BENCH_SECRET": WEBHOOK_SECRET})
            kafka.fill(workspace.settings.topic("raw"), _beforehand(accounts))
            _until_quiet(workspace, kafka)
            sent = _produce(kafka, workspace.settings.topic("raw"), rate, seconds, warm_up_s, accounts)
            give_up = time.monotonic() + 30
            while time.monotonic() < give_up:
                ours.send("count")
                if ours.recv() >= len(sent):
                    break
                time.sleep(0.5)
        finally:
            workspace.stop()
    ours.send("end")
    came = ours.recv()
    delays = sorted((came[name] - at) * 1000 for name, at in sent.items() if name in came)
    print(f"{len(sent)} alerts at {rate:.0f} events/s, {len(sent) - len(delays)} never came; ", end="")
    print(f"load {machine.load_average():.1f}; ms from before produce to the webhook:")
    for share in (0.5, 0.95, 0.99):
        print(f"  p{share * 100:.0f} {delays[min(len(delays) - 1, int(len(delays) * share))]:.0f}")


def _produce(
    kafka: Broker, topic: str, rate: float, seconds: float, warm_up_s: float, accounts: int
) -> dict[str, float]:
    """Pace events for `seconds` after `warm_up_s` of warming up. Gives when the third person of each account looked."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": kafka.address, "linger.ms": 0, "partitioner": "murmur2_random"})
    chance, sent = random.Random(3), {}
    started, next_account = time.time(), 0
    for number in range(int(rate * (seconds + warm_up_s))):
        due = started + number / rate
        while (left := due - time.time()) > 0:
            producer.poll(min(left, 0.001))
        if number % 10 == 0 and next_account < accounts:
            name, user = f"a-{next_account}", f"p-{next_account}-2"
            next_account += 1
            value = _raw("page", f"t-{number}", user, properties={"path": "/pricing/teams"})
            if time.time() - started > warm_up_s:
                sent[name] = time.time()
        else:
            user = f"p-{chance.randrange(accounts)}-{chance.randrange(2)}"
            value = _raw("page", f"t-{number}", user, properties={"path": chance.choice(("/docs", "/home"))})
        producer.produce(topic, value[1], value[0])
        producer.poll(0)
    producer.flush(30)
    return sent


def _until_quiet(workspace: Headwater, kafka: Broker) -> None:
    topic, last, still = workspace.settings.topic("profile-changes"), -1, 0
    give_up = time.monotonic() + 90
    while time.monotonic() < give_up and still < 3:
        ends = sum(kafka.ends(topic))
        still = still + 1 if ends == last and ends > 0 else 0
        last = ends
        time.sleep(1)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("cost", "latency"))
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--warm-up", type=float, default=60, metavar="SECONDS", help="of a new broker's compiler")
    given = parser.parse_args()
    if given.what == "cost":
        cost(given.events)
    else:
        latency(given.rate, given.seconds, given.warm_up)


if __name__ == "__main__":
    main()
