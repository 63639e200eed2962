"""`python -m tests.kafka.debezium`: a table of a real PostgreSQL feeds profiles, by Kafka Connect and Debezium.

It needs PostgreSQL (Debian), Java 17 and Maven, which fetches Connect and Debezium by their coordinates, once. Rows are
there before the connector starts, and are changed while it runs and while it is killed and started again. At the end
every person's traits must be those of the table, with one profile for each row that was ever there.
"""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka.admin import NewTopic

from pipeline.admin import admin_client, create_topics
from pipeline.broker import LocalKafka
from pipeline.broker.jars import find_java
from pipeline.settings import Settings, default_cache_dir, load
from tests.kafka.deployment import Deployment

CONNECT_VERSION = "4.1.1"
DEBEZIUM_VERSION = "3.3.1.Final"
PEOPLE = 200
WAIT_S = 120
_CHANGES = 600
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion><groupId>headwater</groupId><artifactId>connect</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId>
      <version>{CONNECT_VERSION}</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-json</artifactId>
      <version>{CONNECT_VERSION}</version></dependency>
    <dependency><groupId>io.debezium</groupId><artifactId>debezium-connector-postgres</artifactId>
      <version>{DEBEZIUM_VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
_SOURCE = """
source: crm
topic: /crm.public.customers
envelope: debezium
event:
  type: identify
  userId: {from: row.id, as: text}
  messageId: {text: 'crm-{source.lsn}-{row.id}'}
  traits: {from: row, without: [id, password_hash]}
"""


def jars() -> Path:
    """Connect and Debezium in the cache folder."""
    folder = default_cache_dir() / f"connect-{CONNECT_VERSION}-{DEBEZIUM_VERSION}"
    if not (folder / "whole").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(_POM)
        command = ["mvn", "-q", "-B", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run([*command, f"-DoutputDirectory={folder / 'jars'}"], check=True)
        (folder / "whole").touch()
    return folder / "jars"


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL with logical decoding; gives how to connect."""
    found = shutil.which("initdb")
    programs = Path(found).parent if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    folder.mkdir()
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    port, data = _free_port(), folder / "data"
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, **user}
    subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"], check=True, **quiet
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c wal_level=logical -c fsync=off"
    subprocess.run(
        [programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], check=True, **quiet
    )
    try:
        yield f"host=127.0.0.1 port={port} user=tester dbname=postgres"
    finally:
        subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **quiet)


def connect(folder: Path, kafka: str, database: str) -> "subprocess.Popen[bytes]":
    """Start Kafka Connect with the connector; the same folder goes on where it was."""
    given = dict(part.split("=") for part in database.split())
    worker = {
        "bootstrap.servers": kafka,
        "key.converter": "org.apache.kafka.connect.json.JsonConverter",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter",
        "offset.storage.file.filename": folder / "offsets",
        "offset.flush.interval.ms": 1_000,
        "listeners": f"http://127.0.0.1:{_free_port()}",
        "plugin.discovery": "service_load",
    }
    connector = {
        "name": "crm",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "plugin.name": "pgoutput",
        "database.hostname": given["host"],
        "database.port": given["port"],
        "database.user": given["user"],
        "database.password": "none",
        "database.dbname": given["dbname"],
        "topic.prefix": "crm",
        "table.include.list": "public.customers",
    }
    for name, values in (("worker", worker), ("connector", connector)):
        (folder / f"{name}.properties").write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    main_class = "org.apache.kafka.connect.cli.ConnectStandalone"
    command = [find_java(), "-Xmx256m", "-cp", f"{jars()}/*", main_class, "worker.properties", "connector.properties"]
    with (folder / "connect.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        kafka = LocalKafka(load().cache_dir)
        try:
            with postgres(folder / "postgres") as database:
                return _run(folder, kafka.bootstrap_servers, database)
        finally:
            kafka.stop()


def _run(folder: Path, kafka: str, database: str) -> int:
    given = {
        "bootstrap_servers": kafka,
        "prefix": "cdc.",
        "state_dir": folder / "state",
        "secret": "s",
        "partitions": 2,
    }
    settings = Settings.model_validate(given)
    create_topics(settings)
    client = admin_client(settings)
    for future in client.create_topics([NewTopic("crm.public.customers", 1, 1)]).values():
        future.result(120)
    with psycopg.connect(database, autocommit=True) as table, Deployment(settings, folder) as running:
        table.execute(
            "CREATE TABLE customers (id int PRIMARY KEY, email text, plan text, visits int, password_hash text,"
            " scores bigint[], carts uuid[])"
        )
        # So large that they are kept beside the row: an update says of them that they have not changed, and no more.
        for large in ("scores", "carts"):
            table.execute(f"ALTER TABLE customers ALTER {large} SET STORAGE EXTERNAL")
        half = PEOPLE // 2
        for number in range(1, half + 1):  # 0 is no identifier anywhere
            _insert(table, number)
        running.apply(_SOURCE)  # before any role: its first record meets the mapping
        running.start("ingest", HEADWATER_SOURCES="/crm.public.customers")
        running.start("identity")
        running.start("unify")
        process = connect(folder, kafka, database)
        try:
            running.wait_until(lambda: len(running.table("profiles")) == half, "the rows that were there", WAIT_S)
            print(f"{half} rows that were there before are profiles", flush=True)
            for number in range(half + 1, PEOPLE + 1):
                _insert(table, number)
            for number in range(_CHANGES):
                person = number * 7 % PEOPLE + 1
                table.execute(
                    "UPDATE customers SET visits = %s, plan = %s WHERE id = %s", (number, f"p{number}", person)
                )
                if number == _CHANGES // 3:
                    process.kill()
                    process.wait()
                elif number == 2 * _CHANGES // 3:
                    process = connect(folder, kafka, database)
            table.execute("DELETE FROM customers WHERE id = 5")
            expected = {
                str(row[0]): dict(zip(("email", "plan", "visits", "scores", "carts"), row[1:], strict=True))
                for row in table.execute(
                    "SELECT id, email, plan, visits, scores, carts::text[] FROM customers"
                ).fetchall()
            }

            def traits() -> dict[str, Any]:
                found = {}
                for profile in running.table("profiles").values():
                    users = [pair["value"] for pair in profile["identifiers"] if pair["namespace"] == "user_id"]
                    found[users[0] if users else ""] = profile["traits"]
                found.pop("5", None)
                return found

            started = time.monotonic()
            give_up = time.monotonic() + WAIT_S
            while (found := traits()) != expected:
                if time.monotonic() > give_up:
                    different = [(user, found.get(user), expected.get(user)) for user in {*found, *expected}]
                    print([each for each in different if each[1] != each[2]][:5], flush=True)
                    raise AssertionError("the profiles are not as the table")
                time.sleep(0.5)
            print(f"{PEOPLE} people, {_CHANGES} changes, connector killed in between: profiles are as the table")
            print(f"{time.monotonic() - started:.1f} s after the last change")
            letters = running.values("dead-letters")
            assert not letters, letters[:3]
        finally:
            process.kill()
            process.wait()
    return 0


def _insert(table: Any, number: int) -> None:
    scores = [number * 1_000_000 + each for each in range(300)]
    carts = [uuid.UUID(int=each) for each in range(number, number + 150)]
    values = (number, f"person-{number}@example.org", "free", 0, "secret", scores, carts)
    table.execute("INSERT INTO customers VALUES (%s, %s, %s, %s, %s, %s, %s)", values)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
