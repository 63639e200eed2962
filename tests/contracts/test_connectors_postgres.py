"""The PostgreSQL connector on a real PostgreSQL, started for these tests; skipped where there is none."""

import os
import random
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

psycopg = pytest.importorskip("psycopg")

from connectors.postgres import PostgresConnector, PostgresOptions  # noqa: E402
from connectors.testing import ERASED, ConnectorContract, sample_delivery  # noqa: E402
from pipeline.deliver.health import briefly  # noqa: E402
from pipeline.records import Delivery, IdentifierPair  # noqa: E402
from tests.contracts.relay import Relay  # noqa: E402
from tests.contracts.servers import NotHereError, pgbouncer, postgres  # noqa: E402


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    try:
        with postgres() as address:
            yield address
    except NotHereError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def database(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS headwater_members, headwater_profiles, headwater_events")
    monkeypatch.setenv("TESTED_DATABASE", server)
    return server


def rows(server: str, query: str) -> list[Any]:
    with psycopg.connect(server) as connection:
        return connection.execute(query).fetchall()


class TestPostgres(ConnectorContract):
    connector = PostgresConnector
    mirrors = True

    @pytest.fixture(autouse=True)
    def _database(self, database: str) -> None:
        self.server = database

    def options(self) -> dict[str, Any]:
        return {"connection": {"env": "TESTED_DATABASE"}}

    def received(self) -> list[str]:
        return [row[0] for row in rows(self.server, "SELECT delivery_id FROM headwater_members ORDER BY sequence")]

    def members(self) -> set[str]:
        return {row[0] for row in rows(self.server, "SELECT profile_id FROM headwater_members WHERE is_member")}

    def break_destination(self) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute("ALTER USER tester NOLOGIN")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'headwater %'"
            )

    def mend_destination(self) -> None:
        # The user may no longer come in over the network; a server without one is mended as its owner would.
        with psycopg.connect(self.server.replace("user=tester", "user=mender"), autocommit=True) as connection:
            connection.execute("ALTER USER tester LOGIN")

    @pytest.fixture(autouse=True)
    def _mender(self, database: str) -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'mender'").fetchone():
                connection.execute("CREATE ROLE mender SUPERUSER LOGIN")


def test_a_server_that_is_frozen_holds_nobody(database: str) -> None:
    """It neither answers nor ends the connection: without a bound of our own a thread waits as long."""
    options = {"connection": {"env": "TESTED_DATABASE"}, "timeout_seconds": 1}
    connector = PostgresConnector("tested", PostgresOptions.model_validate(options))
    try:
        assert [one.status for one in connector.deliver([sample_delivery(1)])] == ["delivered"]
        [connection] = connector._connections
        frozen = connection.info.backend_pid
        os.kill(frozen, signal.SIGSTOP)
        thaws = threading.Timer(120, os.kill, (frozen, signal.SIGCONT))
        thaws.start()
        try:
            begun = time.monotonic()
            [outcome] = connector.deliver([sample_delivery(2)])
            took_s = time.monotonic() - begun
        finally:
            thaws.cancel()
            os.kill(frozen, signal.SIGCONT)
        assert outcome.status == "retry" and took_s < 100
        assert [one.status for one in connector.deliver([sample_delivery(2)])] == ["delivered"]
    finally:
        connector.close()


def opened() -> PostgresConnector:
    return PostgresConnector("tested", PostgresOptions.model_validate({"connection": {"env": "TESTED_DATABASE"}}))


def profile_change(number: int, profile: str = "p1", **body: Any) -> Delivery:
    return sample_delivery(number, profile, action="profile_changed", segment=None, body={"entity": "person", **body})


def test_a_row_left_keeps_nothing_personal_and_old_news_changes_nothing(database: str) -> None:
    connector = opened()
    entered, exited = sample_delivery(1), sample_delivery(2, action="segment_exited")
    connector.deliver([entered, exited])
    connector.deliver([entered])
    connector.close()
    assert rows(database, "SELECT is_member, sequence, identifiers, traits FROM headwater_members") == [
        (False, 2, None, None)
    ]


def test_consent_taken_back_and_given_again_changes_a_membership_of_the_same_sequence(database: str) -> None:
    connector = opened()
    entry = sample_delivery(1)
    exit_ = sample_delivery(1, delivery_id="dlv_x", action="segment_exited", cause="consent")
    again = sample_delivery(1, delivery_id="dlv_y", cause="consent")
    for told, member in (([entry, exit_], False), ([entry], False), ([again], True), ([exit_, again], True)):
        connector.deliver(told)
        assert rows(database, "SELECT is_member FROM headwater_members") == [(member,)]
    connector.close()


def test_the_fold_of_changes_is_the_profile(database: str) -> None:
    """Random changes, with repetitions as after a crash, end as folding them once does."""
    rng = random.Random(5)
    expected: dict[str, dict[str, Any]] = {}
    changes = []
    for number in range(400):
        profile = f"p{rng.randrange(6)}"
        change = "created" if profile not in expected else rng.choice(["updated"] * 6 + ["split", "erased"])
        if change == "erased":
            del expected[profile]
            changes.append(sample_delivery(number, profile, action="profile_deleted", body={"change": change}))
            continue
        given = {rng.choice("abc"): rng.randrange(9) for _ in range(rng.randrange(1, 3))}
        gone = [name for name in "abc" if name not in given and rng.random() < 0.3]
        traits = {} if change != "updated" else expected[profile]["traits"]
        traits = {name: value for name, value in {**traits, **given}.items() if name not in gone}
        accounts = [f"c{number}"] if rng.random() < 0.3 else None
        before = expected.get(profile, {}).get("accounts", []) if change == "updated" else []
        expected[profile] = {"traits": traits, "accounts": before if accounts is None else accounts}
        body: dict[str, Any] = {"change": change, "set": {"traits": given}, "unset": {"traits": gone}}
        if accounts is not None:
            body["set"]["accounts"] = accounts
        changes.append(profile_change(number, profile, **body))
    connector = opened()
    done = 0
    while done < len(changes):
        size = rng.randrange(1, 60)
        assert {outcome.status for outcome in connector.deliver(changes[done : done + size])} == {"delivered"}
        done = max(0, done + size - rng.choice([0, 0, 30]))
    connector.close()
    found = {
        row[0]: {"traits": row[1], "accounts": row[2]}
        for row in rows(database, "SELECT profile_id, traits, accounts FROM headwater_profiles")
    }
    assert found == expected


def test_events_stand_once(database: str) -> None:
    connector = opened()
    event = sample_delivery(
        1, action="event", segment=None, body={"event": "Order\x00 Completed", "properties": {"total": 3}}
    )
    connector.deliver([event, event])
    connector.deliver([event])
    connector.close()
    assert rows(database, "SELECT event, properties FROM headwater_events") == [("Order Completed", {"total": 3})]


def test_one_that_cannot_be_written_stops_no_other(database: str) -> None:
    connector = opened()
    bad = sample_delivery(2, "p2", body={"sequence": 2, "version": 1 << 40})
    statuses = [
        outcome.status for outcome in connector.deliver([sample_delivery(1, "p1"), bad, sample_delivery(3, "p3")])
    ]
    connector.close()
    assert statuses == ["delivered", "rejected", "delivered"]
    assert {row[0] for row in rows(database, "SELECT profile_id FROM headwater_members")} == {"p1", "p3"}


def test_texts_keep_everything_but_nul(database: str) -> None:
    connector = opened()
    name = "a\x00b\\u0000 \\ Zoë 🦊"
    connector.deliver([sample_delivery(1, body={"sequence": 1, "traits": {"name": name}})])
    connector.close()
    assert rows(database, "SELECT traits->>'name' FROM headwater_members") == [(name.replace("\x00", ""),)]


def test_a_wrong_password_or_address_stays_out_of_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTED_DATABASE", "host=127.0.0.1 port=1 user=x password=hunter2 dbname=y")
    connector = opened()
    [outcome] = connector.deliver([sample_delivery(1)])
    connector.close()
    assert outcome.status == "retry" and "hunter2" not in outcome.detail


def test_of_a_person_who_is_erased_no_row_stays_under_any_of_their_names(database: str) -> None:
    connector = opened()
    event = {"action": "event", "segment": None, "body": {"event": "Order Completed"}}
    several = [
        delivery
        for number, who in enumerate(("p1", "p2", "p9"))
        for delivery in (
            sample_delivery(number, who),
            profile_change(10 + number, who, change="created", set={"traits": {"name": "Ada"}}),
            sample_delivery(20 + number, who, **event),
        )
    ]
    for number, who in ((40, "p2"), (41, "p9")):
        matches = [{"rule": "r", "people": 1, "who": [{"profile_id": who, "since": 1, "identifiers": []}]}]
        told = {"alert": "warm", "alert_id": f"a{number}", "context": {"people": 1, "matches": matches}}
        several.append(sample_delivery(number, "account", action="alert", segment="s", body=told))
    erased = sample_delivery(30, "p1", action="profile_erased", segment=None, body=ERASED)
    assert {outcome.status for outcome in connector.deliver([*several, erased])} == {"delivered"}
    connector.close()
    for table in ("members", "profiles"):
        assert rows(database, f"SELECT profile_id FROM headwater_{table}") == [("p9",)]
    kept = rows(database, "SELECT profile_id, message_id FROM headwater_events ORDER BY profile_id")
    assert kept == [("account", "a41"), ("p9", None)]


def test_an_erased_identifier_is_kept_by_nobody_who_once_had_it(database: str) -> None:
    """They were taken for one person when the memberships began, and parted by an unlink since."""
    ada, bob = IdentifierPair("user_id", "ada"), IdentifierPair("user_id", "bob")
    connector = opened()
    begun = [
        sample_delivery(0, "p9", identifiers=[bob, ada]),
        sample_delivery(1, "p8", identifiers=[ada]),
        sample_delivery(2, "p7", identifiers=[bob]),
        sample_delivery(3, "p1", identifiers=[ada]),
    ]
    erased = sample_delivery(4, "p1", action="profile_erased", segment=None, identifiers=[ada], body=ERASED)
    assert {outcome.status for outcome in connector.deliver([*begun, erased])} == {"delivered"}
    connector.close()
    kept = dict(rows(database, "SELECT profile_id, identifiers FROM headwater_members"))
    named = [{"namespace": "user_id", "value": "bob"}]
    assert kept == {"p9": named, "p8": [], "p7": named}
    with psycopg.connect(database) as connection:
        connection.execute("SET enable_seqscan = off")
        for asked in ("profile_id = 'p9'", 'identifiers @> \'[{"namespace": "user_id", "value": "bob"}]\''):
            plan = str(connection.execute(f"EXPLAIN SELECT 1 FROM headwater_members WHERE {asked}").fetchall())
            assert "headwater_members_of_profile" in plan or "headwater_members_known_by" in plan, plan


def test_tables_of_an_earlier_release_get_their_indexes(database: str) -> None:
    connector = opened()
    connector.deliver([sample_delivery(1)])
    connector.close()
    drop = "DROP INDEX headwater_members_of_profile, headwater_members_known_by"
    asked = (
        "SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'headwater_members_%_%' AND indexname NOT LIKE '%pkey'"
    )
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(drop)
    connector = opened()
    assert [one.status for one in connector.deliver([sample_delivery(2)])] == ["delivered"]
    assert rows(database, asked) == [(2,)]
    connector.close()
    # Somebody else makes them, and takes long: deliveries do not wait.
    with psycopg.connect(database) as other:
        other.execute(drop)
        other.commit()
        other.execute("SELECT pg_advisory_xact_lock(7305820195261382756)")
        connector = opened()
        assert [one.status for one in connector.deliver([sample_delivery(3)])] == ["delivered"]
        connector.close()
    assert rows(database, asked) == [(0,)]


EVENT: dict[str, Any] = {
    "action": "event",
    "segment": None,
    "body": {"event": "Order Completed", "properties": {"total": 3}, "traits": {"plan": "pro"}},
}


def changed(database: str, *statements: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def statuses(connector: PostgresConnector, *deliveries: Delivery) -> list[str]:
    return [outcome.status for outcome in connector.deliver(deliveries)]


def test_columns_that_were_dropped_and_put_back_hold_what_they_are_called(database: str) -> None:
    """They stand last in their table then."""
    connector = opened()
    connector.deliver([sample_delivery(1)])
    for table, column in (("members", "traits"), ("events", "properties")):
        changed(database, f"ALTER TABLE headwater_{table} DROP {column}")
    assert statuses(connector, sample_delivery(2)) == ["retry"]
    for table, column in (("members", "traits"), ("events", "properties")):
        changed(database, f"ALTER TABLE headwater_{table} ADD {column} jsonb")
    assert statuses(connector, sample_delivery(2), sample_delivery(3, **EVENT)) == ["delivered"] * 2
    connector.close()
    assert rows(database, "SELECT properties, traits FROM headwater_events") == [({"total": 3}, {"plan": "pro"})]


@pytest.mark.parametrize(
    ("altered", "back"),
    [
        ("ALTER segment TYPE bigint USING 0", "ALTER segment TYPE text"),
        ("ADD mine text NOT NULL", "DROP mine"),
    ],
)
def test_a_table_that_was_altered_gives_up_no_delivery(database: str, altered: str, back: str) -> None:
    connector = opened()
    connector.deliver([sample_delivery(1)])
    changed(database, "TRUNCATE headwater_members", f"ALTER TABLE headwater_members {altered}")
    told = connector.deliver(
        [sample_delivery(2), sample_delivery(3, action="segment_exited"), sample_delivery(4, "p2", **EVENT)]
    )
    assert [one.status for one in told] == ["retry", "retry", "delivered"], "what does not need the table goes on"
    assert "make it as it was" in told[0].detail
    changed(database, f"ALTER TABLE headwater_members {back}")
    assert statuses(connector, sample_delivery(2)) == ["delivered"]
    connector.close()


def test_whoever_writes_need_not_own_the_tables_nor_wait_for_who_writes_there(
    database: str, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = opened()
    connector.deliver([sample_delivery(1)])
    connector.close()
    with psycopg.connect(server) as other:
        other.execute("CREATE ROLE writer LOGIN")
        other.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO writer")
        other.commit()
        other.execute("INSERT INTO headwater_events (delivery_id, profile_id, at) VALUES ('x', 'x', now())")
        address = server.replace("user=tester", "user=writer")
        options = {"connection": {"env": "TESTED_WRITER"}, "timeout_seconds": 1}
        monkeypatch.setenv("TESTED_WRITER", address)
        connector = PostgresConnector("tested", PostgresOptions.model_validate(options))
        assert [(one.status, one.detail) for one in connector.deliver([sample_delivery(2)])] == [("delivered", "")]
        connector.close()
        other.rollback()
        other.execute("DROP OWNED BY writer")
        other.execute("DROP ROLE writer")


def test_a_connection_that_is_refused_is_told_in_the_servers_words(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = database.replace("user=tester", "user=nobody password=hunter2")
    for address, words in (
        (refused, 'role "nobody" does not exist'),
        ("host=127.0.0.1 hunter2", "no connection string"),
        ("host=127.0.0.1 port=1 password=hunter2", "does not answer"),
    ):
        monkeypatch.setenv("TESTED_DATABASE", address)
        connector = opened()
        [outcome] = connector.deliver([sample_delivery(1)])
        connector.close()
        assert outcome.status == "retry" and words in outcome.detail and "hunter2" not in outcome.detail


def port_of(server: str) -> int:
    return int(psycopg.conninfo.conninfo_to_dict(server)["port"] or 0)


def through(relay: Relay, server: str) -> str:
    return psycopg.conninfo.make_conninfo(server, port=relay.port)


def test_a_commit_whose_answer_is_lost_is_done_again_and_nothing_stands_twice(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = [
        sample_delivery(1),
        sample_delivery(2, "p2", **EVENT),
        profile_change(3, set={"traits": {"plan": "pro"}}),
    ]
    with Relay(port_of(database)) as relay:
        monkeypatch.setenv("TESTED_DATABASE", through(relay, database))
        connector = opened()
        assert statuses(connector, sample_delivery(0, "p0")) == ["delivered"]
        relay.lose_answer(b"COMMIT")
        assert statuses(connector, *several) == ["retry"] * 3
        assert relay.lost.is_set() and len(rows(database, "SELECT 1 FROM headwater_events")) == 1
        assert statuses(connector, *several) == ["delivered"] * 3
        connector.close()
    assert len(rows(database, "SELECT 1 FROM headwater_events")) == 1
    assert rows(database, "SELECT traits FROM headwater_profiles") == [({"plan": "pro"},)]


def test_what_a_lost_connection_had_locked_is_free_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server never hears that the other end has gone, as when a host or a network dies."""
    with Relay(port_of(database)) as relay:
        monkeypatch.setenv("TESTED_DATABASE", through(relay, database))
        options = {"connection": {"env": "TESTED_DATABASE"}, "timeout_seconds": 1}
        connector = PostgresConnector("tested", PostgresOptions.model_validate(options))
        assert statuses(connector, sample_delivery(0, "p0")) == ["delivered"]
        relay.hold(b"COMMIT")
        assert statuses(connector, sample_delivery(1)) == ["retry"]
        assert relay.held.is_set()
        give_up = time.monotonic() + 20
        while statuses(connector, sample_delivery(1)) != ["delivered"]:
            assert time.monotonic() < give_up, "its rows are locked"
        connector.close()


def test_a_password_that_changes_in_its_file_needs_no_restart(database: str, tmp_path: Path) -> None:
    file = tmp_path / "connection"
    file.write_text(database)
    connector = PostgresConnector("tested", PostgresOptions.model_validate({"connection": {"file": str(file)}}))
    assert statuses(connector, sample_delivery(1)) == ["delivered"]
    changed(database, "CREATE ROLE rotated SUPERUSER LOGIN")
    try:
        file.unlink()
        changed(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'headwater'")
        assert statuses(connector, sample_delivery(2)) == ["retry"]
        [told] = connector.deliver([sample_delivery(2)])
        assert told.status == "retry" and str(file) in told.detail
        file.write_text(database.replace("user=tester", "user=rotated"))
        assert statuses(connector, sample_delivery(2)) == ["delivered"]
        who = rows(database, "SELECT usename FROM pg_stat_activity WHERE application_name ~ 'headwater'")
        assert who == [("rotated",)]
        connector.close()
    finally:
        changed(database, "DROP ROLE rotated")


def test_where_there_is_room_for_one_connection_one_does_the_work(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector = opened()
    connector.deliver([sample_delivery(1)])
    connector.close()
    changed(
        database,
        "CREATE ROLE few LOGIN CONNECTION LIMIT 1",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO few",
    )
    try:
        monkeypatch.setenv("TESTED_DATABASE", database.replace("user=tester", "user=few"))
        connector = opened()
        with ThreadPoolExecutor(connector.concurrency) as pool:
            several = [sample_delivery(number, f"p{number}") for number in range(100)]
            told = list(pool.map(lambda one: connector.deliver([one])[0], several))
        connector.close()
        assert {(one.status, one.detail) for one in told} == {("delivered", "")}
    finally:
        changed(database, "DROP OWNED BY few", "DROP ROLE few")


def test_a_server_that_is_read_only_is_waited_for(database: str) -> None:
    """As one that a failover has made a standby of; here before there are tables, too."""

    def set_read_only(value: str) -> None:
        written = psycopg.conninfo.make_conninfo(database, options="-c default_transaction_read_only=off")
        changed(written, f"ALTER SYSTEM SET default_transaction_read_only = {value}", "SELECT pg_reload_conf()")
        give_up = time.monotonic() + 20
        while rows(database, "SHOW default_transaction_read_only") != [(value,)]:
            assert time.monotonic() < give_up

    connector = opened()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            set_read_only("on")
            [told] = connector.deliver([sample_delivery(1)])
            assert (told.status, briefly(told.detail)) == ("retry", "PostgreSQL ReadOnlySqlTransaction")
            set_read_only("off")
            assert statuses(connector, sample_delivery(1)) == ["delivered"]
            set_read_only("on")
            assert statuses(connector, sample_delivery(2)) == ["retry"]
        assert [one.message for one in warned] == [], "no connection is left to itself"
    finally:
        set_read_only("off")
    assert statuses(connector, sample_delivery(2)) == ["delivered"]
    connector.close()


def test_a_server_that_ends_its_connections_all_the_time_loses_and_doubles_nothing(database: str) -> None:
    connector = opened()
    connector.deliver([sample_delivery(0)])
    ended = threading.Event()
    kills = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ~ 'headwater'"

    def end() -> None:
        while not ended.wait(0.02):
            changed(database, kills)

    killer = threading.Thread(target=end)
    killer.start()
    repeated = 0
    try:
        for number in range(20):
            several = [sample_delivery(100 * number + one, f"p{one}", **EVENT) for one in range(100)]
            while set(told := statuses(connector, *several)) != {"delivered"}:
                assert set(told) == {"retry"}
                repeated += 1
    finally:
        ended.set()
        killer.join()
    connector.close()
    assert repeated and len(rows(database, "SELECT 1 FROM headwater_events")) == 2_000


def test_behind_a_pooler_each_destination_writes_what_is_its_own(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that was prepared by one is there for whoever gets the connection next, under the same name."""
    changed(database, "CREATE SCHEMA IF NOT EXISTS other")
    try:
        with pgbouncer(database, 3) as address, ThreadPoolExecutor(4) as pool:
            monkeypatch.setenv("TESTED_DATABASE", address)
            both = {
                schema: PostgresConnector(
                    "tested",
                    PostgresOptions.model_validate({"connection": {"env": "TESTED_DATABASE"}, "schema": schema}),
                )
                for schema in ("public", "other")
            }

            def deliver(number: int) -> list[str]:
                schema = ("public", "other")[number % 2]
                return statuses(both[schema], *(sample_delivery(10 * number + n, f"{schema} {n}") for n in range(10)))

            told = {one for each in pool.map(deliver, range(300)) for one in each}
            for each in both.values():
                each.close()
        for schema in both:
            held = rows(database, f"SELECT DISTINCT split_part(profile_id, ' ', 1) FROM {schema}.headwater_members")
            assert held == [(schema,)]
        assert told == {"delivered"}
    except NotHereError as missing:
        pytest.skip(str(missing))
    finally:
        changed(database, "DROP SCHEMA other CASCADE")
