"""The deliver role to a real PostgreSQL and a real Redis (or Valkey) that take nothing for a while."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pipeline.admin import create_topics
from pipeline.definitions.loader import Written
from pipeline.definitions.log import apply
from pipeline.records import Delivery, IdentifierPair, encode
from pipeline.runtime.kafka.doors import produce_all
from pipeline.settings import Settings
from tests.contracts.servers import NotHereError, postgres, redis_server
from tests.kafka.test_deliver import dead_letters, delivering, said_of, wait_for

psycopg = pytest.importorskip("psycopg")
redis = pytest.importorskip("redis")

NAMES = ("warehouse", "cache")
PROFILES = 20


class Servers:
    """Both of them, and what they hold."""

    def __init__(self, database: str, port: int) -> None:
        self.database = database
        self.cache = redis.Redis(port=port, decode_responses=True)
        self.url = f"redis://127.0.0.1:{port}/0"

    def _ask(self, *statements: str) -> list[Any]:
        address = psycopg.conninfo.make_conninfo(self.database, options="-c default_transaction_read_only=off")
        with psycopg.connect(address, autocommit=True) as connection:
            for statement in statements:
                found = connection.execute(statement)
            return found.fetchall()  # type: ignore[no-any-return]

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Connections stay."""
        change = "ALTER SYSTEM SET default_transaction_read_only = '{}'"
        try:
            self._ask(change.format("on"), "SELECT pg_reload_conf()")
            self.cache.replicaof("127.0.0.1", 1)
            yield
        finally:
            self._ask(change.format("off"), "SELECT pg_reload_conf()")
            self.cache.replicaof("NO", "ONE")

    def events(self) -> tuple[int, int]:
        """How many each has."""
        return self._ask("SELECT count(*) FROM headwater_events")[0][0], self.cache.xlen("headwater:events")

    def plans(self) -> list[dict[str, str]]:
        """The plan of each profile, in each of them."""
        rows = self._ask("SELECT profile_id, traits->>'plan' FROM headwater_profiles")
        keys = self.cache.keys("headwater:profile:*")
        return [
            dict(rows),
            {key.rpartition(":")[2]: self.cache.hget(key, "traits.plan").strip('"') for key in keys},
        ]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    with ExitStack() as stack:
        try:
            made = Servers(stack.enter_context(postgres()), stack.enter_context(redis_server()))
        except NotHereError as missing:
            pytest.skip(str(missing))
        monkeypatch.setenv("TESTED_DATABASE", made.database)
        monkeypatch.setenv("TESTED_CACHE", made.url)
        yield made


def decide(settings: Settings, numbers: range) -> None:
    """An event and a change of the profile for each number, for both."""
    now_ms = time.time_ns() // 1_000_000
    for name in NAMES:
        records = []
        for number in numbers:
            profile = f"p{number % PROFILES}"
            body = {"change": "updated", "set": {"traits": {"plan": f"plan {number}"}}, "entity": "person"}
            for action, said in (("event", {"event": "Order"}), ("profile_changed", body)):
                delivery = Delivery(
                    delivery_id=f"dlv_{action}_{number}",
                    destination=name,
                    profile_id=profile,
                    action=action,  # type: ignore[arg-type]
                    at=now_ms,
                    decided_at=now_ms,
                    identifiers=[IdentifierPair("user_id", profile)],
                    body=said,
                )
                records.append((profile.encode(), encode(delivery)))
        produce_all(settings, f"deliveries.{name}", records)


def test_databases_that_take_nothing_for_a_while_end_with_everything_once_and_the_newest(
    workspace: Settings, servers: Servers
) -> None:
    create_topics(workspace)
    options = {
        "warehouse": {"kind": "postgres", "connection": {"env": "TESTED_DATABASE"}},
        "cache": {"kind": "redis", "url": {"env": "TESTED_CACHE"}},
    }
    often = {"delivery": {"first_retry": "50ms"}}
    apply(workspace, [Written("destination", name, {"destination": name, **options[name], **often}) for name in NAMES])
    with delivering(workspace):
        decide(workspace, range(200))
        wait_for(lambda: servers.cache.xlen("headwater:events") == 200)
        with servers.read_only():
            decide(workspace, range(200, 600))
            wait_for(lambda: said_of(workspace, "cache") == "Redis ReadOnlyError")
            wait_for(lambda: said_of(workspace, "warehouse") == "PostgreSQL ReadOnlySqlTransaction")
        wait_for(lambda: servers.events() == (600, 600))
        newest = {f"p{number % PROFILES}": f"plan {number}" for number in range(600)}
        wait_for(lambda: servers.plans() == [newest, newest])
        wait_for(lambda: [said_of(workspace, name) for name in NAMES] == [None, None])
    assert dead_letters(workspace) == []
