"""The day: people with browsers, addresses and wills of their own, while roles are killed and destinations fail."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import yaml

from tests.kafka.deployment import Deployment, Role
from tests.oracle import destinations as held
from tests.oracle.leaving import Policy

ROLES = ("ingest", "identity", "unify", "deliver")
NAMES = ("twin", "mails", "pages", "list")
DAY_S = 86_400
_DEFINITIONS = """
consent: default
purposes: {marketing: consent, service: contract}
---
contract: shop
events:
  Identify:
    traits:
      type: object
      properties:
        email: {type: string, labels: [pii]}
        plan: {type: string}
        income: {type: number, labels: [sensitive]}
        address: {type: object, properties: {city: {type: string}, street: {type: string, labels: [pii]}}}
  Warranty Registered:
    purposes: [service]
    traits: {type: object, properties: {serial: {type: string}}}
  Order Completed:
    properties: {total: {type: number}}
  Page Viewed:
---
computed: orders
compute: {function: count, event: Order Completed}
---
computed: last_total
compute: {function: last, event: Order Completed, of: properties.total}
---
segment: buyers
when: {performed: {event: Order Completed, count: {at_least: 2}}}
---
segment: owners
when: {performed: {event: Warranty Registered}}
---
segment: reachable
when: {all: [{trait: {email: {exists: true}}}, {not: {trait: {plan: {equals: free}}}}]}
---
destination: twin
kind: file
mode: audience
segments: "*"
profiles: true
labels: [pii, sensitive]
purposes: [service]
path: %(twin)s
---
destination: mails
kind: postgres
segments: "*"
profiles: true
labels: [pii]
purposes: [marketing]
channel: email
fields: {traits.email: sha256, identifiers.email: sha256}
connection: {env: DAY_DATABASE}
timeout_seconds: 1
delivery: {first_retry: 200ms, attempts: 100}
---
destination: pages
kind: redis
segments: [buyers]
profiles: [traits, segments, computed]
traits: [plan, address, orders]
url: {env: DAY_CACHE}
timeout_seconds: 1
delivery: {first_retry: 200ms, attempts: 100}
---
destination: list
kind: file
mode: audience
segments: [buyers, reachable]
profiles: [traits, identifiers]
labels: [pii]
purposes: [marketing]
path: %(list)s
"""


class Places(NamedTuple):
    """Where destinations keep what they hold; a server that this machine has not is None."""

    database: str | None
    cache: str | None


class Day:
    """Runs on a deployment whose topics exist, for the destinations `NAMES`. `faults`: what was done, how often."""

    def __init__(
        self, running: Deployment, places: Places, people: int, seed: int, say: Callable[[str], None] = print
    ) -> None:
        self.running = running
        self.places = places
        self.people = people
        self.say = say
        self.faults: dict[str, int] = {}
        self.rng = random.Random(seed)
        self._number = 0
        self._roles: dict[str, Role] = {}
        files = {name: running.folder / f"{name}.jsonl" for name in ("twin", "list")}
        documents = list(yaml.safe_load_all(_DEFINITIONS % files))
        missing = {name for name, place in (("mails", places.database), ("pages", places.cache)) if not place}
        self.documents = [one for one in documents if one.get("destination") not in missing]
        self.policy = Policy(self.documents)
        self._files = files
        self._environment = {"DAY_DATABASE": places.database or "", "DAY_CACHE": places.cache or ""}

    def run(self, rounds: int, events: int) -> None:
        """So many rounds of so many events, a fault in each. AssertionError with where a destination is wrong."""
        for name in ROLES:
            self._start(name)
        self.running.apply(yaml.safe_dump_all(self.documents, sort_keys=False))
        for _ in range(rounds):
            self.running.produce(self._events(events))
            self._fault()
        self._unlink()
        self.running.produce(self._events(events))
        self.running.wait_until_idle(180)
        for name in self.policy.destinations:
            self._end(name)
        merged = [one for one in self.running.values("profile-changes") if one["change"] in ("merged", "split")]
        assert merged, "nobody merged: the day was too quiet"
        self.say(f"{len(merged)} profiles merged or parted; faults: {self.faults}")

    # --------------------------------------------------------------------------------------------------- the faults

    def _start(self, name: str) -> None:
        more = self._environment if name == "deliver" else {}
        self._roles[name] = self.running.start(name, **more)

    def _fault(self) -> None:
        faults = [*ROLES, "deliver", "deliver"]
        of_servers: dict[str, Callable[[], None]] = {}
        if self.places.database:
            of_servers |= {"locked tables": self._lock_tables, "read-only database": self._make_database_read_only}
        if self.places.cache:
            of_servers |= {"paused cache": self._pause_cache, "read-only cache": self._make_cache_read_only}
        fault = self.rng.choice([*faults, *of_servers])
        self.faults[fault] = self.faults.get(fault, 0) + 1
        time.sleep(self.rng.uniform(0.0, 1.5))
        if fault in of_servers:
            of_servers[fault]()
        else:
            self._roles[fault].kill()
            self._start(fault)

    def _lock_tables(self) -> None:
        """Nobody can write for two seconds: statements end by their time-out."""
        import psycopg

        assert self.places.database
        with suppress(psycopg.errors.UndefinedTable), psycopg.connect(self.places.database) as connection:
            connection.execute("LOCK TABLE headwater_profiles, headwater_members IN ACCESS EXCLUSIVE MODE")
            time.sleep(2)

    def _make_database_read_only(self) -> None:
        """As one that has become a standby, for two seconds; all connections end."""
        import psycopg

        assert self.places.database
        address = psycopg.conninfo.make_conninfo(self.places.database, options="-c default_transaction_read_only=off")
        with psycopg.connect(address, autocommit=True) as connection:
            for value in ("on", "off"):
                connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
                connection.execute("SELECT pg_reload_conf()")
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                )
                time.sleep(2 if value == "on" else 0)

    def _make_cache_read_only(self) -> None:
        """A replica of nobody for two seconds, as an old master after a failover; connections stay."""
        import redis

        assert self.places.cache
        client = redis.Redis.from_url(self.places.cache)
        client.replicaof("127.0.0.1", 1)
        time.sleep(2)
        client.replicaof("NO", "ONE")
        client.close()

    def _pause_cache(self) -> None:
        """Requests are not answered for two seconds, and carried out then: whoever asked has given up meanwhile."""
        import redis

        assert self.places.cache
        client = redis.Redis.from_url(self.places.cache)
        client.execute_command("CLIENT", "PAUSE", "2000", "ALL")
        client.close()

    def _unlink(self) -> None:
        """What was linked by mistake is taken back, for a few who are linked now."""
        two = [
            one
            for one in self.running.table("profiles").values()
            if {"user_id", "anonymous_id"} <= {pair["namespace"] for pair in one["identifiers"]}
        ]
        for document in self.rng.sample(sorted(two, key=lambda one: str(one["profile_id"])), min(3, len(two))):
            first = {pair["namespace"]: pair["value"] for pair in document["identifiers"]}
            names = (f"user_id:{first['user_id']}", f"anonymous_id:{first['anonymous_id']}")
            self.running.command("identity", "unlink", *names)

    # --------------------------------------------------------------------------------------------------- the people

    def _events(self, count: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            yield self._event()

    def _event(self) -> dict[str, Any]:
        rng = self.rng
        self._number += 1
        person = rng.randrange(self.people)
        user, browser = f"u-{person}", f"a-{person}-{rng.randrange(2)}"
        if rng.random() < 0.03:
            browser = f"a-{rng.randrange(self.people)}-0"  # somebody else's
        event: dict[str, Any] = {
            "messageId": f"m-{self._number}",
            "timestamp": _iso(time.time() - rng.uniform(0, DAY_S)),
        }
        if rng.random() < 0.25:
            event["context"] = {"consent": self._will()}
        known = rng.random() < 0.5
        event |= {"userId": user} if known else {"anonymousId": browser}
        match rng.choice(("page", "page", "login", "traits", "traits", "order", "order", "warranty")):
            case "page":
                return {**event, "type": "page", "properties": {"path": "/"}}
            case "login":
                return {**event, "type": "identify", "userId": user, "anonymousId": browser}
            case "traits":
                return {**event, "type": "identify", "traits": self._traits(person)}
            case "order":
                total = rng.randrange(1, 500)
                return {**event, "type": "track", "event": "Order Completed", "properties": {"total": total}}
        serial = {"traits": {"serial": f"s-{rng.randrange(100)}"}}
        return {**event, "type": "track", "event": "Warranty Registered", "properties": {}, **serial}

    def _traits(self, person: int) -> dict[str, Any]:
        rng = self.rng
        traits: dict[str, Any] = {}
        if rng.random() < 0.3:
            traits["email"] = f"Person{person}@example.org"
        if rng.random() < 0.5:
            traits["plan"] = rng.choice(("free", "pro", "team"))
        if rng.random() < 0.3:
            traits["income"] = rng.randrange(10_000, 90_000)
        if rng.random() < 0.4:
            traits["address"] = {"city": rng.choice(("Lima", "Oslo")), "street": f"Street {rng.randrange(99)}"}
        if rng.random() < 0.2:
            traits["note"] = f"n {rng.randrange(99)}"  # nobody said anything about it
        return traits

    def _will(self) -> dict[str, Any]:
        rng = self.rng
        said: dict[str, Any] = {"marketing": rng.random() < 0.7}
        if rng.random() < 0.1:
            said["*"] = rng.random() < 0.5
        if rng.random() < 0.3:
            said["channels"] = {"email": rng.random() < 0.6}
        return said

    # ------------------------------------------------------------------------------------------------ the judgement

    def _end(self, name: str) -> None:
        wrong: list[str] = []
        documents = [one for one in self.running.table("profiles").values() if one["entity"] == "person"]
        right = held.right_profiles(self.policy, name, documents)
        members = held.right_members(self.policy, name, documents)
        destination = self.policy.destinations[name]
        sections = held.SECTIONS if destination["profiles"] is True else destination["profiles"]

        def is_right() -> bool:
            there, here = self._held(name)
            wrong[:] = held.differences(right, there, sections)
            wrong.extend(f"member missing: {one}" for one in sorted(members - here)[:3])
            wrong.extend(f"no member: {one}" for one in sorted(here - members)[:3])
            return not wrong

        with suppress(AssertionError):
            self.running.wait_until(is_right, name)
        assert not wrong, f"{name}: {wrong}"
        assert right and members, (
            f"{name}: {len(documents)} profiles, {len(right)} of them and {len(members)} memberships"
        )
        self.say(f"{name}: {len(right)} of {len(documents)} profiles, {len(members)} memberships, as they should be")

    def _held(self, name: str) -> tuple[held.Profiles, held.Members]:
        if name == "mails":
            assert self.places.database
            return held.in_postgres(self.places.database)
        if name == "pages":
            assert self.places.cache
            return held.in_redis(self.places.cache)
        return held.in_file(self._files[name])


def _iso(at_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at_s)) + f".{int(at_s * 1000) % 1000:03}Z"


__all__ = ["NAMES", "Day", "Places"]
