"""Each connector beside the bare client that does the same writes, by turns in one run.

    python -m bench.connectors [--deliveries 10000] [--turns 3] [--only postgres]

A connector gets batches of its own size from as many threads as the deliver role gives it; so does the bare client,
which writes the same with the library the connector uses, and nothing else: no signature, no check of addresses, no
guard against repetitions but what the statement itself has. Servers are those of this machine, with what they need to
keep what was acknowledged (PostgreSQL with fsync). The HTTP receiver is a process of its own.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpcore
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from bench import machine
from connectors import Connector, connector_kind
from connectors.tracking import message
from connectors.webhook import payload
from pipeline.broker import running_kafka
from pipeline.records import Delivery, IdentifierPair
from pipeline.settings import load
from tests.contracts.servers import postgres, redis_server
from tests.destinations.world import Receivers

Write = Callable[[Sequence[Delivery]], None]
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
_encode = msgspec.json.encode


class Case(NamedTuple):
    """A kind: the options of its connector, and what makes the bare client (once for each turn)."""

    kind: str
    options: dict[str, Any]
    bare: Callable[[], Write]


def deliveries(count: int, turn: int) -> list[Delivery]:
    """Entries of so many different people, as unify decides them."""
    return [
        Delivery(
            delivery_id=f"dlv_{turn:08x}{number:024x}",
            destination="measured",
            profile_id=f"{turn:08x}-0000-5000-8000-{number:012x}",
            action="segment_entered",
            at=1_800_000_000_000 + number,
            decided_at=1_800_000_000_000 + number,
            identifiers=[IdentifierPair("user_id", f"u{number}"), IdentifierPair("email", f"u{number}@example.org")],
            segment="trial",
            body={"entity": "person", "version": 1, "sequence": 1, "late": False, "traits": {"plan": "pro"}},
        )
        for number in range(count)
    ]


def rate(write: Write, batch: int, threads: int, given: list[Delivery]) -> float:
    """Deliveries/s."""
    batches = [given[start : start + batch] for start in range(0, len(given), batch)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(write, batches[:threads]))  # connections are there, tables too
        rest = batches[threads:]
        began = time.perf_counter()
        list(pool.map(write, rest))
        return sum(map(len, rest)) / (time.perf_counter() - began)


def ours(connector: Connector) -> Write:
    """The connector, which must take everything."""

    def write(batch: Sequence[Delivery]) -> None:
        outcomes = connector.deliver(batch)
        failed = next((one for one in outcomes if one.status != "delivered"), None)
        if failed is not None:
            raise RuntimeError(f"{connector.kind}: {failed}")

    return write


# -------------------------------------------------------------------------------------------------- the bare clients


def bare_file(path: Path) -> Callable[[], Write]:
    def make() -> Write:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def write(batch: Sequence[Delivery]) -> None:
            os.write(file, b"".join(_encode(one) + b"\n" for one in batch))
            os.fsync(file)

        return write

    return make


def bare_http(body: Callable[[Sequence[Delivery]], bytes], url: str) -> Callable[[], Write]:
    def make() -> Write:
        pool = httpcore.ConnectionPool(max_connections=64)
        headers = [(b"content-type", b"application/json")]

        def write(batch: Sequence[Delivery]) -> None:
            answer = pool.request("POST", url, headers=headers, content=body(batch))
            if answer.status != 200:
                raise RuntimeError(str(answer.status))

        return write

    return make


def bare_postgres(address: str) -> Callable[[], Write]:
    import psycopg

    statement = (
        "INSERT INTO bare_members VALUES (%s, %s, %s, %s, %s) ON CONFLICT (segment, profile_id) "
        "DO UPDATE SET sequence = EXCLUDED.sequence, identifiers = EXCLUDED.identifiers, traits = EXCLUDED.traits "
        "WHERE bare_members.sequence < EXCLUDED.sequence"
    )

    def make() -> Write:
        local = threading.local()
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS bare_members (segment text, profile_id text, sequence bigint, "
                "identifiers jsonb, traits jsonb, PRIMARY KEY (segment, profile_id))"
            )

        def write(batch: Sequence[Delivery]) -> None:
            if not hasattr(local, "connection"):
                local.connection = psycopg.connect(address, autocommit=True)
            with local.connection.transaction(), local.connection.pipeline():
                for one in batch:
                    texts = (_encode(one.identifiers).decode(), _encode(one.body["traits"]).decode())
                    local.connection.execute(statement, (one.segment, one.profile_id, one.body["sequence"], *texts))

        return write

    return make


def bare_redis(url: str) -> Callable[[], Write]:
    import redis

    def make() -> Write:
        client = redis.Redis.from_url(url)

        def write(batch: Sequence[Delivery]) -> None:
            pipeline = client.pipeline(transaction=False)
            for one in batch:
                pipeline.hset(f"bare:sequences:{one.profile_id}", one.segment, one.body["sequence"])
                pipeline.sadd(f"bare:members:{one.segment}", one.profile_id)
                pipeline.hset(f"bare:segments:{one.profile_id}", one.segment, _encode(one.body))
                for pair in one.identifiers:
                    pipeline.set(f"bare:identifier:{pair.namespace}:{pair.value}", one.profile_id)
                    pipeline.sadd(f"bare:known:{one.profile_id}", f"{pair.namespace}:{pair.value}")
            pipeline.execute()

        return write

    return make


def bare_kafka(servers: str) -> Callable[[], Write]:
    from confluent_kafka import Producer

    def make() -> Write:
        properties = {"linger.ms": 5, "compression.type": "lz4", "acks": "all", "enable.idempotence": True}
        producer = Producer({"bootstrap.servers": servers, **properties})

        def write(batch: Sequence[Delivery]) -> None:
            for one in batch:
                producer.produce("bare", _encode(one), one.profile_id.encode())
            producer.flush()

        return write

    return make


# -------------------------------------------------------------------------------------------------------- the run


def cases(stack: ExitStack, folder: Path) -> Iterator[Case]:
    """Each kind with a destination on this machine."""
    yield Case("file", {"path": str(folder / "ours.jsonl")}, bare_file(folder / "bare.jsonl"))
    receivers = Receivers(folder, {"http": "blind"})
    stack.callback(receivers.close)
    url = receivers.urls["http"]
    os.environ["MEASURED_SECRET"] = SECRET
    signed = {"url": url, "secret": {"env": "MEASURED_SECRET"}, "allow_private": True}
    yield Case("webhook", signed, bare_http(lambda batch: payload(batch[0]), url))
    body = {"who": "{identifiers.email}", "what": "{change} {segment}"}
    said = bare_http(lambda b: _encode({"who": b[0].identifiers[1].value, "what": f"entered {b[0].segment}"}), url)
    yield Case("http", {"url": url, "body": body, "allow_private": True}, said)
    tracked = {"url": url, "write_key": {"env": "MEASURED_SECRET"}, "allow_private": True}
    yield Case("tracking", tracked, bare_http(lambda batch: _encode({"batch": [message(one) for one in batch]}), url))
    os.environ["MEASURED_DATABASE"] = address = stack.enter_context(postgres(fsync=True))
    yield Case("postgres", {"connection": {"env": "MEASURED_DATABASE"}}, bare_postgres(address))
    port = stack.enter_context(redis_server("a word"))
    os.environ["MEASURED_CACHE"] = cache = f"redis://:a%20word@127.0.0.1:{port}/0"
    yield Case("redis", {"url": {"env": "MEASURED_CACHE"}}, bare_redis(cache))
    servers = stack.enter_context(running_kafka(load(), temporary=True)).bootstrap_servers
    topics = [NewTopic(name, 4, 1) for name in ("ours", "bare")]
    admin = AdminClient({"bootstrap.servers": servers})
    for made in admin.create_topics(topics).values():
        made.result(30)
    yield Case("kafka", {"bootstrap_servers": servers, "topic": "ours"}, bare_kafka(servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    print("| kind | batch | threads | deliveries/s | bare client | ratio | load |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for case in cases(stack, folder):
            if given.only and given.only != case.kind:
                continue
            kind = connector_kind(case.kind)
            rates: dict[str, list[float]] = {"ours": [], "bare": []}
            for turn in range(given.turns):
                connector = kind("measured", kind.options_model.model_validate(case.options))
                writers = {"ours": ours(connector), "bare": case.bare()}
                for name in ("ours", "bare") if turn % 2 == 0 else ("bare", "ours"):
                    made = deliveries(given.deliveries, turn)
                    rates[name].append(rate(writers[name], kind.max_batch, kind.concurrency, made))
                connector.close()
            own, bare = (statistics.median(rates[name]) for name in ("ours", "bare"))
            print(
                f"| {case.kind} | {kind.max_batch} | {kind.concurrency} | {own:,.0f} | {bare:,.0f} | "
                f"{own / bare:.2f} | {machine.load_average():.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
