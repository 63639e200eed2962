"""The Redis connector on a real Redis (or Valkey), started for these tests; skipped where there is none."""

import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

redis = pytest.importorskip("redis")

from connectors.redis import RedisConnector, RedisOptions  # noqa: E402
from connectors.testing import ERASED, ConnectorContract, sample_delivery  # noqa: E402
from pipeline.deliver.health import briefly  # noqa: E402
from pipeline.records import Delivery, IdentifierPair  # noqa: E402
from tests.contracts.relay import Relay  # noqa: E402
from tests.contracts.servers import NotHereError, free_port, redis_server  # noqa: E402

PASSWORD = "a word that must not be told"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    try:
        with redis_server(PASSWORD) as number:
            yield number
    except NotHereError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def client(port: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TESTED_REDIS", f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
    found = redis.Redis(port=port, password=PASSWORD, decode_responses=True)
    found.flushall()
    return found


class TestRedis(ConnectorContract):
    connector = RedisConnector
    mirrors = True

    @pytest.fixture(autouse=True)
    def _client(self, client: Any) -> None:
        self.client = client

    def options(self) -> dict[str, Any]:
        return {"url": {"env": "TESTED_REDIS"}}

    def received(self) -> list[str]:
        held = [json.loads(one) for one in self.client.hvals("headwater:segments:p1")]
        return [one["delivery_id"] for one in sorted(held, key=lambda one: int(one["sequence"]))]

    def members(self) -> set[str]:
        return {one for one in ("p1", "p2", "p3") if self.client.hexists(f"headwater:segments:{one}", "trial")}

    def break_destination(self) -> None:
        self.client.config_set("requirepass", "another")
        self.client.client_kill_filter(_type="normal", skipme=True)

    def mend_destination(self) -> None:
        self.client.config_set("requirepass", PASSWORD)


def opened() -> RedisConnector:
    return RedisConnector("tested", RedisOptions.model_validate({"url": {"env": "TESTED_REDIS"}}))


def test_old_news_changes_nothing_and_who_left_leaves_no_trace(client: Any) -> None:
    connector = opened()
    entered, exited = sample_delivery(1), sample_delivery(2, action="segment_exited")
    connector.deliver([entered])
    assert client.smembers("headwater:members:trial") == {"p1"}
    assert client.get("headwater:identifier:email:ada@example.com") == "p1"
    connector.deliver([exited])
    connector.deliver([entered])
    connector.close()
    assert client.smembers("headwater:members:trial") == set()
    assert client.hgetall("headwater:segments:p1") == {}


def test_the_fold_of_changes_is_the_profile(client: Any) -> None:
    rng = random.Random(7)
    expected: dict[str, dict[str, Any]] = {}
    changes = []
    for number in range(300):
        profile = f"p{rng.randrange(5)}"
        change = "created" if profile not in expected else rng.choice(["updated"] * 6 + ["split", "erased"])
        if change == "erased":
            del expected[profile]
            deleted = {"action": "profile_deleted", "identifiers": [], "segment": None, "body": {"change": change}}
            changes.append(sample_delivery(number, profile, **deleted))
            continue
        given = {rng.choice("abc"): rng.choice([1, 2.5, "x", None, [], {"a": []}]) for _ in range(2)}
        gone = [name for name in "abc" if name not in given and rng.random() < 0.3]
        before = {} if change != "updated" else expected[profile]
        expected[profile] = {name: value for name, value in {**before, **given}.items() if name not in gone}
        body = {"change": change, "set": {"traits": given}, "unset": {"traits": gone}, "entity": "person"}
        changes.append(sample_delivery(number, profile, action="profile_changed", segment=None, body=body))
    connector = opened()
    done = 0
    while done < len(changes):
        size = rng.randrange(1, 60)
        assert {outcome.status for outcome in connector.deliver(changes[done : done + size])} == {"delivered"}
        done = max(0, done + size - rng.choice([0, 0, 30]))
    connector.close()
    found = {
        key.removeprefix("headwater:profile:"): {
            name.removeprefix("traits."): json.loads(value)
            for name, value in client.hgetall(key).items()
            if name.startswith("traits.")
        }
        for key in client.keys("headwater:profile:*")
    }
    assert found == expected


def test_identifiers_lead_to_whom_they_belong_now(client: Any) -> None:
    connector = opened()
    anew = {"change": "created", "set": {"traits": {"a": 1}}, "entity": "person"}
    first = sample_delivery(1, "old", action="profile_changed", segment=None, body=anew)
    merged = sample_delivery(
        3, "old", action="profile_deleted", identifiers=[], segment=None, body={"change": "merged"}
    )
    second = sample_delivery(2, "new", action="profile_changed", segment=None, body=anew)
    connector.deliver([first])
    assert client.get("headwater:identifier:user_id:ada") == "old"
    connector.deliver([second])
    connector.deliver([merged])  # the profiles of a merge may arrive in any order
    assert client.get("headwater:identifier:user_id:ada") == "new"
    connector.deliver([sample_delivery(4, "new", action="profile_deleted", identifiers=[], segment=None, body={})])
    connector.close()
    assert client.keys("headwater:*") == []


def test_an_identifier_leads_to_its_profile_however_the_parts_of_a_merge_are_told(client: Any) -> None:
    """Two profiles have no order among each other: one stands in another partition, whose backlog is longer."""
    changed = {"action": "profile_changed", "segment": None}
    parts = {
        "old": [
            sample_delivery(1, "old", **changed, body={"change": "created", "set": {"traits": {"a": 1}}}),
            sample_delivery(2, "old", **changed, body={"change": "updated", "set": {"traits": {"a": 2}}}),
            sample_delivery(
                3, "old", action="profile_deleted", identifiers=[], segment=None, body={"change": "merged"}
            ),
        ],
        "new": [
            sample_delivery(4, "new", **changed, body={"change": "created", "set": {"traits": {"b": 1}}}),
            sample_delivery(5, "new", action="segment_entered"),
        ],
    }
    for places in itertools.combinations(range(5), 2):
        client.flushall()
        left = {name: iter(several) for name, several in parts.items()}
        connector = opened()
        for place in range(5):
            connector.deliver([next(left["new" if place in places else "old"])])
        connector.close()
        assert client.get("headwater:identifier:user_id:ada") == "new", places
        assert client.keys("headwater:also:*") == [], places


def test_events_stand_once(client: Any) -> None:
    connector = opened()
    event = sample_delivery(1, action="event", segment=None, body={"event": "Order Completed"})
    connector.deliver([event, event])
    connector.deliver([event])
    connector.close()
    [(_, fields)] = client.xrange("headwater:events")
    assert json.loads(fields["event"])["event"] == "Order Completed"


def test_a_wrong_password_stays_out_of_the_outcome(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTED_REDIS", f"redis://:hunter2@127.0.0.1:{port}/0")
    connector = opened()
    [outcome] = connector.deliver([sample_delivery(1)])
    connector.close()
    assert outcome.status == "retry" and "hunter2" not in outcome.detail
    monkeypatch.setenv("TESTED_REDIS", "http://127.0.0.1")
    with pytest.raises(ValueError, match="redis://"):
        opened()
    for address in ("redis://me:hunter2/x@127.0.0.1:1", "redis://me:[hunter2@127.0.0.1:1", "rediss://me:hunter2#@h:1"):
        monkeypatch.setenv("TESTED_REDIS", address)
        with pytest.raises(ValueError, match="escape what is no letter") as caught:
            opened()
        assert "hunter2" not in str(caught.value) and caught.value.__suppress_context__


def test_of_a_person_who_is_erased_no_key_stays_under_any_of_their_names(client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("connectors.redis._PAGE", 2)
    connector = opened()
    anew = {"change": "created", "set": {"traits": {"name": "Ada"}}, "entity": "person"}
    several = []
    for number, who in enumerate(("p1", "p9", "p2", "p9", "p1")):
        whose = [] if who != "p9" else [IdentifierPair("user_id", "bob")]
        more = {"identifiers": whose} if whose else {}
        several += [
            sample_delivery(number, who, **more),
            sample_delivery(10 + number, who, action="profile_changed", segment=None, body=anew, **more),
            sample_delivery(20 + number, who, action="event", segment=None, body={"event": "Order"}, **more),
        ]
    matches = [{"rule": "r", "people": 1, "who": [{"profile_id": "p2", "since": 1, "identifiers": []}]}]
    told = {"alert": "warm", "alert_id": "a1", "context": {"people": 1, "matches": matches}}
    several.append(sample_delivery(29, "account", action="alert", segment="s", body=told, identifiers=[]))
    erased = sample_delivery(30, "p1", action="profile_erased", segment=None, body=ERASED)
    assert {outcome.status for outcome in connector.deliver([*several, erased])} == {"delivered"}
    connector.close()
    assert [fields["profile_id"] for _, fields in client.xrange("headwater:events")] == ["p9", "p9"]
    assert client.smembers("headwater:members:trial") == {"p9"}
    kept = {key for key in client.keys("headwater:*") if ":seen:" not in key}
    assert not [key for key in kept if any(name in key for name in ("p1", "p2", "ada"))]


@pytest.mark.parametrize("parted", [False, True])
def test_an_erased_identifier_is_kept_by_nobody_who_once_had_it(client: Any, parted: bool) -> None:
    """They were taken for one person when the membership began, and parted by an unlink since."""
    ada, bob = IdentifierPair("user_id", "ada"), IdentifierPair("user_id", "bob")
    connector = opened()
    several = [sample_delivery(0, "p9", identifiers=[bob, ada])]
    several += [sample_delivery(1, "p1", identifiers=[ada])] if parted else []
    erased = sample_delivery(2, "p1", action="profile_erased", segment=None, identifiers=[ada], body=ERASED)
    assert {outcome.status for outcome in connector.deliver([*several, erased])} == {"delivered"}
    connector.close()
    assert client.smembers("headwater:known:p9") == {"user_id:bob"}
    assert not client.keys("headwater:*ada*") and client.get("headwater:identifier:user_id:bob") == "p9"


def statuses(connector: RedisConnector, deliveries: Sequence[Delivery]) -> set[str]:
    return {outcome.status for outcome in connector.deliver(deliveries)}


def patient(connector: RedisConnector, deliveries: Sequence[Delivery], attempts: int = 40) -> int:
    """Again until all is delivered, as the deliver role does; gives how many attempts it took."""
    for attempt in range(1, attempts + 1):
        if statuses(connector, deliveries) == {"delivered"}:
            return attempt
        time.sleep(0.1)
    raise AssertionError("it was not delivered")


def test_after_a_failover_the_old_master_is_given_up(client: Any, monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Its connections stay, and it takes nothing any more: the name of the address leads to the new one by now."""
    with redis_server(PASSWORD) as second, Relay(port) as relay:
        monkeypatch.setenv("TESTED_REDIS", f"redis://:{PASSWORD}@127.0.0.1:{relay.port}/0")
        connector = opened()
        assert statuses(connector, [sample_delivery(1)]) == {"delivered"}
        client.replicaof("127.0.0.1", second)
        try:
            relay.target = second
            [told] = connector.deliver([sample_delivery(2, "p2")])
            assert (told.status, briefly(told.detail)) == ("retry", "Redis ReadOnlyError")
            assert patient(connector, [sample_delivery(2, "p2")]) == 1
            there = redis.Redis(port=second, password=PASSWORD, decode_responses=True)
            assert there.smembers("headwater:members:trial") == {"p2"}
        finally:
            client.replicaof("NO", "ONE")
            connector.close()


def test_a_password_that_changes_in_its_file_needs_no_restart(client: Any, port: int, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(f"redis://:{PASSWORD}@127.0.0.1:{port}/0")
    connector = RedisConnector("tested", RedisOptions.model_validate({"url": {"file": str(file)}}))
    assert statuses(connector, [sample_delivery(1)]) == {"delivered"}
    client.config_set("requirepass", "another")
    try:
        client.client_kill_filter(_type="normal", skipme=True)
        assert statuses(connector, [sample_delivery(2)]) == {"retry"}
        file.unlink()
        [told] = connector.deliver([sample_delivery(2)])
        assert (told.status, told.detail.partition(" ")[0]) == ("retry", "the")
        file.write_text(f"redis://:another@127.0.0.1:{port}/0")
        assert statuses(connector, [sample_delivery(2)]) == {"delivered"}
    finally:
        client.config_set("requirepass", PASSWORD)
        connector.close()


def test_what_is_heard_after_everybody_has_left_changes_nothing(
    client: Any, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """A network that stood still passes on what was sent long ago, behind what was sent since on another connection."""

    def change(number: int, plan: str) -> Delivery:
        body = {"change": "updated", "set": {"traits": {"plan": plan}}, "entity": "person"}
        return sample_delivery(number, action="profile_changed", segment=None, body=body)

    with Relay(port) as relay:
        monkeypatch.setenv("TESTED_REDIS", f"redis://:{PASSWORD}@127.0.0.1:{relay.port}/0")
        options = {"url": {"env": "TESTED_REDIS"}, "timeout_seconds": 0.5}
        connector = RedisConnector("tested", RedisOptions.model_validate(options))
        assert statuses(connector, [change(1, "free")]) == {"delivered"}
        relay.hold(b"EVALSHA")
        assert statuses(connector, [change(2, "pro")]) == {"retry"}
        assert relay.held.is_set()
        assert statuses(connector, [change(2, "pro"), change(3, "team")]) == {"delivered"}
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        relay.let_go()
        while client.info("commandstats")["cmdstat_evalsha"]["calls"] == before:
            time.sleep(0.01)
        assert client.hget("headwater:profile:p1", "traits.plan") == '"team"'
        connector.close()


def test_an_answer_that_is_lost_is_asked_for_again_and_nothing_happens_twice(
    client: Any, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    several = [
        sample_delivery(number, f"p{number % 3}", action="event", segment=None, body={"event": "Order"})
        for number in range(30)
    ]
    with Relay(port) as relay:
        monkeypatch.setenv("TESTED_REDIS", f"redis://:{PASSWORD}@127.0.0.1:{relay.port}/0")
        connector = opened()
        assert statuses(connector, several[:1]) == {"delivered"}
        relay.lose_answer(b"$-1\r\n", b"_\r\n")  # nothing, in either protocol
        assert statuses(connector, several) == {"retry"}
        assert relay.lost.is_set() and client.xlen("headwater:events") > 1
        assert statuses(connector, several) == {"delivered"}
        connector.close()
    assert client.xlen("headwater:events") == 30


@pytest.mark.parametrize("server_is", ["full", "unable to write to its disk", "cut off from its master"])
def test_a_server_that_takes_nothing_is_waited_for(client: Any, server_is: str) -> None:
    connector = opened()
    event = sample_delivery(3, action="event", segment=None, body={"event": "Order"})
    several = [sample_delivery(2, "p2"), sample_delivery(3, "p2", action="segment_exited"), event]
    assert statuses(connector, [sample_delivery(1)]) == {"delivered"}
    before = {name: client.config_get(name)[name] for name in ("maxmemory", "save", "replica-serve-stale-data")}
    folder = Path(client.config_get("dir")["dir"])
    try:
        if server_is == "full":
            client.config_set("maxmemory", "100kb")
        elif server_is == "cut off from its master":
            client.config_set("replica-serve-stale-data", "no")
            client.replicaof("127.0.0.1", 1)
        else:
            client.config_set("save", "3600 1")
            (folder / "dump.rdb").mkdir()
            client.bgsave()
            while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
                time.sleep(0.01)
        told = connector.deliver(several)
        assert {one.status for one in told} == {"retry"} and len({one.detail for one in told}) <= 3, told
    finally:
        client.replicaof("NO", "ONE")
        for name, value in before.items():
            client.config_set(name, value)
        if server_is.startswith("unable"):
            (folder / "dump.rdb").rmdir()
            client.bgsave()
            while client.info("persistence")["rdb_last_bgsave_status"] != "ok":
                time.sleep(0.01)
    assert patient(connector, several) == 1
    connector.close()
    assert client.smembers("headwater:members:trial") == {"p1"} and client.xlen("headwater:events") == 1


def test_a_server_that_still_loads_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept = ("--dir", str(tmp_path))
    slowly = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    with redis_server(PASSWORD, *kept) as number:
        filled = redis.Redis(port=number, password=PASSWORD)
        filled.mset({f"key {n}": "x" for n in range(3_000)})
        filled.save()
    with redis_server(PASSWORD, *kept, *slowly) as number:
        monkeypatch.setenv("TESTED_REDIS", f"redis://:{PASSWORD}@127.0.0.1:{number}/0")
        options = {"url": {"env": "TESTED_REDIS"}, "timeout_seconds": 0.5}
        connector = RedisConnector("tested", RedisOptions.model_validate(options))
        assert patient(connector, [sample_delivery(1)]) > 1
        connector.close()


def test_in_a_cluster_the_node_that_holds_the_keys_is_found_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    is_cluster = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-port")
    ports = [str(free_port()) for _ in range(2)]
    with (
        redis_server("", *is_cluster, ports[0]) as first,
        redis_server("", *is_cluster, ports[1]) as second,
    ):
        one, two = (redis.Redis(port=number, decode_responses=True) for number in (first, second))
        slot = one.execute_command("CLUSTER KEYSLOT", "{headwater}:events")
        monkeypatch.setenv("TESTED_REDIS", f"redis://127.0.0.1:{first}/0")
        options = {"url": {"env": "TESTED_REDIS"}, "prefix": "{headwater}:"}
        connector = RedisConnector("tested", RedisOptions.model_validate(options))
        assert statuses(connector, [sample_delivery(1)]) == {"retry"}, "nobody holds them"
        two.execute_command("CLUSTER ADDSLOTS", slot)
        one.execute_command("CLUSTER MEET", "127.0.0.1", second, ports[1])
        patient(connector, [sample_delivery(1)], attempts=200)
        assert two.smembers("{headwater}:members:trial") == {"p1"}
        # The other one has them from now on, as after a failover.
        two.flushall()
        others = one.execute_command("CLUSTER MYID")
        for each in (one, two):
            each.execute_command("CLUSTER SETSLOT", slot, "NODE", others)
        patient(connector, [sample_delivery(2)], attempts=200)
        assert one.smembers("{headwater}:members:trial") == {"p1"}
        connector.close()
