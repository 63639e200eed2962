"""`headwater up` on a machine where something is in its way: another one, somebody's port, a Kafka that ends, a folder
that cannot be written, and Ctrl-C pressed twice."""

import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from rich.console import Console

from pipeline import shared_ports, sockets
from pipeline.broker import Kafka
from pipeline.cli import up
from pipeline.collector.settings import CollectorSettings
from pipeline.errors import InputError, SettingsError
from pipeline.secret_check import check_of
from pipeline.settings import Settings
from pipeline.up import session
from pipeline.up.place import alone, see_that_metrics_have_ports, see_that_port_is_free
from pipeline.up.processes import Processes, RoleProcess
from pipeline.up.session import Session

HELD = "import sys, time; from pathlib import Path; from pipeline.up.place import alone\n"
HELD += "with alone(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_second_one_for_a_state_folder_is_told_who_the_first_is(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path / "state")], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match=str(other.pid)) as caught, alone(tmp_path / "state"):
            pass
        assert str(tmp_path / "state") in caught.value.where and caught.value.what_to_do
    finally:
        other.kill()
        other.communicate()
    # What a killed one leaves behind keeps nobody out, nor does one that has ended.
    for _ in range(2):
        with alone(tmp_path / "state"):
            pass


def test_a_state_folder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    for folder in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(SettingsError) as caught, alone(folder):
            pass
        assert str(folder) in caught.value.where and "HEADWATER_STATE_DIR" in caught.value.what_to_do


def test_a_port_of_another_workspaces_collector_is_not_shared() -> None:
    with sockets.listen("127.0.0.1", 0, "", shared=True) as listening:
        port = listening.getsockname()[1]
        listening.listen()
        sockets.listen("127.0.0.1", port, "", shared=True).close()  # another collector could
        settings = CollectorSettings(write_keys={"3f9c2b7a1d4e": "web"}, port=port)
        with pytest.raises(InputError) as caught:
            see_that_port_is_free(settings)
        assert caught.value.where == f"127.0.0.1:{port}" and "collector.port" in caught.value.what_to_do
        see_that_port_is_free(CollectorSettings(port=port))  # no write key, no collector
        see_that_port_is_free(settings.model_copy(update={"port": 0}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    see_that_port_is_free(settings.model_copy(update={"port": port}))


@pytest.mark.parametrize(
    ("first", "collector", "what"),
    [
        (65_530, 8088, "last port is 65,535"),
        (8085, 8088, "that of the collector"),
        (65_529, 8088, None),
        (8089, 8088, None),
        (8081, 8088, None),
        (8085, None, None),
        (0, 8088, None),
        (None, 8088, None),
    ],
)
def test_roles_whose_metrics_have_no_ports_are_told_before_they_are_started(
    tmp_path: Path, first: int | None, collector: int | None, what: str | None
) -> None:
    """They would end, one or two of them, again and again, until `headwater up` gave up."""
    keys = {"write_keys": {"3f9c2b7a1d4e": "web"}, "port": collector} if collector else {}
    settings = Settings.model_validate({"metrics_port": first, "collector": keys, "state_dir": tmp_path})
    if what is None:
        see_that_metrics_have_ports(settings, 7)
        return
    with pytest.raises(SettingsError, match=what) as told:
        see_that_metrics_have_ports(settings, 7)
    assert "HEADWATER_METRICS_PORT" in told.value.what_to_do
    if first == 65_530:
        settings = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "archive": str(tmp_path)})
        with pytest.raises(SettingsError, match=what):
            Session(settings, Console(file=io.StringIO())).run()


def test_pressing_twice_breaks_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    class Pressed:
        def __init__(self, *_: object) -> None: ...

        def run(self) -> None:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                signal.sigtimedwait([], 5)
            finally:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                    os.kill(os.getpid(), number)
                ended.append("in order")

        def end(self) -> None:
            ended.append("shown")

    monkeypatch.setattr(up, "Session", Pressed)
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(tmp_path))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        up.command()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended == ["in order", "shown"]


class Stub(Kafka):
    def __init__(self, down: list[bool]) -> None:
        super().__init__("127.0.0.1:1", "local")
        self.down = down
        self.restarts = 0

    def is_down(self) -> bool:
        return bool(self.down) and self.down.pop(0)

    def restart(self, node: int = 1) -> None:
        self.restarts += 1


@pytest.fixture
def ended() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def watch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ended: list[tuple[str, str]]
) -> Callable[[Kafka, list[Mapping[str, Any]]], str]:
    def run(kafka: Kafka, positions: list[Mapping[str, Any]]) -> str:
        """What is said until the positions, one look a second, are used up."""
        clock = [100.0]

        def read(*_: object) -> list[Any]:
            clock[0] += 1.0
            return []

        def now(_: object) -> Mapping[str, Any]:
            if not positions:
                raise KeyboardInterrupt
            return positions.pop(0)

        monkeypatch.setattr(session, "GroupPositions", lambda _: SimpleNamespace(now=now))
        monkeypatch.setattr(session.time, "monotonic", lambda: clock[0])
        said = io.StringIO()
        shown = Session(Settings(state_dir=tmp_path), Console(file=said, width=200))
        with pytest.raises(KeyboardInterrupt):
            shown._watch(SimpleNamespace(read=read), SimpleNamespace(tend=ended.copy), kafka)  # type: ignore[arg-type]
        return said.getvalue()

    return run


def test_a_kafka_of_its_own_that_ends_is_started_again(watch: Callable[..., str]) -> None:
    kafka = Stub([False, True, False])
    said = watch(kafka, [{"ingest": (1, 1)}] * 4)
    assert kafka.restarts == 1 and said.count("the Kafka had ended, and is started again") == 1


def test_a_role_that_ends_is_told_with_its_reason(watch: Callable[..., str], ended: list[tuple[str, str]]) -> None:
    ended.append(("ingest", "The disk is full."))
    assert "ingest had ended and was started again: The disk is full.\n" in watch(Stub([]), [{"ingest": (1, 1)}] * 2)


@pytest.mark.parametrize(("first", "ports"), [(9100, ["9100", "9101", "9102"]), (0, [None] * 3), (None, [None] * 3)])
def test_each_role_serves_its_metrics_on_a_port_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int | None, ports: list[str | None]
) -> None:
    """On one port for all of them, all but one ended again and again, until `headwater up` gave up."""
    started: list[str | None] = []

    def popen(command: list[str], env: Mapping[str, str], **_: Any) -> Any:
        started.append(env.get("HEADWATER_METRICS_PORT"))
        return SimpleNamespace(poll=lambda: 0)

    monkeypatch.delenv("HEADWATER_METRICS_PORT", raising=False)
    monkeypatch.setattr(subprocess, "Popen", popen)
    with Processes([("ingest",), ("unify",), ("collector",)], {}, tmp_path, first) as processes:
        assert started == ports
        processes.tend()
    assert started == ports * 2, "also when it is started again"


@pytest.mark.parametrize(
    ("before", "said", "why"),
    [
        ("", "INFO begins\nerror: The disk is full.\n  where: /state\n  what to do: make room\n", "The disk is full."),
        ("error: The disk is full.\n", "INFO begins\nKilled\n", "Killed"),
        ("", "Traceback (most recent call last):\n  File\nRuntimeError: odd\n\n", "RuntimeError: odd"),
        ("error: The disk is full.\n", "", "its log says nothing: {}"),
        ("", "x" * 200_000 + "\nerror: " + "y" * 1_000 + "\n", "y" * 300),
    ],
)
def test_why_a_role_ended_is_what_its_log_says_since_its_start(
    tmp_path: Path, before: str, said: str, why: str
) -> None:
    role = RoleProcess(("ingest",), tmp_path / "ingest.log", logged_before=len(before))
    role.log.write_text(before + said)
    assert role.why() == why.format(role.log)


def test_a_workspace_of_another_secret_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = b'{"kind":"secret_check","check":"%s"}' % check_of(b"of the first folder").encode()
    monkeypatch.setattr("pipeline.secret_check.current_value", lambda *_: kept)
    monkeypatch.setattr(session, "refuse_other_partitions", lambda _: None)
    monkeypatch.setattr(session, "create_topics", lambda _: None)

    def never(*_: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr(session, "Readiness", never)
    settings = Settings(bootstrap_servers="127.0.0.1:1", state_dir=tmp_path, secret=SecretStr("of the second folder"))
    with pytest.raises(SettingsError, match="made with another secret") as told:
        Session(settings, Console(file=io.StringIO())).run()
    assert "HEADWATER_BOOTSTRAP_SERVERS" in told.value.what_to_do and "HEADWATER_PREFIX" in told.value.what_to_do


def test_a_workspace_of_other_partitions_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("topics were made")

    monkeypatch.setattr("pipeline.admin._metadata", lambda *_: (1, {"headwater.events": 4}))
    monkeypatch.setattr(session, "create_topics", never)
    settings = Settings(bootstrap_servers="127.0.0.1:1", state_dir=tmp_path, partitions=7)
    with pytest.raises(SettingsError, match="made with 4 partitions, and 7 are set"):
        Session(settings, Console(file=io.StringIO())).run()


def test_a_kafka_that_does_not_answer_is_not_ready(watch: Callable[..., str]) -> None:
    said = watch(Stub([]), [{"ingest": (1, 1)}] * 6 + [{}] * 14 + [{"ingest": (1, 1)}] * 6)
    told = [line.partition(":")[0] for line in said.splitlines()]
    # A line every five seconds; an election of a few seconds is nothing to speak of.
    assert told == ["starting", "starting", "starting", "the Kafka does not answer", "starting", "starting"]


def test_a_port_is_shared_within_a_workspace_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine, other = (Settings.model_validate({"prefix": one, "secret": "s"}) for one in ("shop.", "trial."))
    try:
        shared_ports.claim(mine, "127.0.0.1", 8090, "HEADWATER_API__PORT")
        shared_ports.claim(mine, "127.0.0.1", 8090, "HEADWATER_API__PORT")
        shared_ports.claim(other, "127.0.0.1", 8091, "HEADWATER_API__PORT")
        shared_ports.claim(other, "127.0.0.1", 0, "HEADWATER_API__PORT")
        with pytest.raises(InputError, match="another workspace") as told:
            shared_ports.claim(other, "127.0.0.1", 8090, "HEADWATER_API__PORT")
        assert told.value.what_to_do == "set HEADWATER_API__PORT"
    finally:
        shared_ports.let_go()
    try:
        shared_ports.claim(other, "127.0.0.1", 8090, "HEADWATER_API__PORT")
    finally:
        shared_ports.let_go()
