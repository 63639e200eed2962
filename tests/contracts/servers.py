"""A PostgreSQL and a Redis (or Valkey) of this machine, started for a while. NotHereError where there is none."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class NotHereError(Exception):
    """This machine has no such server."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _programs() -> Path | None:
    found = shutil.which("initdb")
    candidates = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return candidates[-1] if candidates and (candidates[-1] / "initdb").exists() else None


@contextmanager
def postgres(fsync: bool = False) -> Iterator[str]:
    """A PostgreSQL; gives its connection string."""
    programs = _programs()
    if programs is None:
        raise NotHereError("no PostgreSQL on this machine")
    as_user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="headwater-postgres-"))
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            raise NotHereError("no user postgres to run as") from None
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    port = free_port()
    data = folder / "data"
    run = {"cwd": folder, "capture_output": True, **as_user}
    subprocess.run(
        [programs / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "-N"], check=True, **run
    )
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync={'on' if fsync else 'off'}"
    started = {**run, "capture_output": False, "stdout": subprocess.DEVNULL}
    subprocess.run(
        [programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start"], check=True, **started
    )
    try:
        yield f"host=127.0.0.1 port={port} user=tester dbname=postgres"
    finally:
        subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=True, **started)
        shutil.rmtree(folder)


@contextmanager
def pgbouncer(server: str, connections: int) -> Iterator[str]:
    """A PgBouncer before a PostgreSQL, with so many connections there, given out by the transaction."""
    import psycopg

    program = shutil.which("pgbouncer")
    if program is None:
        raise NotHereError("no PgBouncer on this machine")
    told = psycopg.conninfo.conninfo_to_dict(server)
    port = free_port()
    settings = f"""
[databases]
postgres = host=127.0.0.1 port={told["port"]} dbname=postgres user=tester
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
ignore_startup_parameters = options
"""
    as_user: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="headwater-pgbouncer-") as folder:
        file = Path(folder) / "settings"
        file.write_text(settings)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        process = subprocess.Popen([program, "-q", file], stderr=subprocess.DEVNULL, **as_user)
        address = psycopg.conninfo.make_conninfo(server, port=port)
        try:
            _wait_until_it_answers(process, lambda: psycopg.connect(address).close(), psycopg.OperationalError)
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _wait_until_it_answers(
    process: "subprocess.Popen[bytes]", ask: Callable[[], object], not_yet: type[Exception]
) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask()
            return
        except not_yet:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)


@contextmanager
def redis_server(password: str = "", *more: str) -> Iterator[int]:
    """A Valkey or Redis, under a password; gives its port."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        raise NotHereError("neither Valkey nor Redis on this machine")
    with tempfile.TemporaryDirectory(prefix="headwater-redis-") as folder:
        port = free_port()
        settings = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        server = subprocess.Popen([program, *settings, "--requirepass", password, *more], stdout=subprocess.DEVNULL)
        try:
            client = redis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0))

            def ping() -> None:
                with suppress(redis.BusyLoadingError):
                    client.ping()

            _wait_until_it_answers(server, ping, redis.ConnectionError)
            yield port
        finally:
            server.terminate()
            server.wait(60)
