"""What commands say to somebody who is new: in a narrow window, in the wrong folder, with a key of digits."""

import io
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from rich.console import Console

from pipeline.broker import find_kafka
from pipeline.broker.local import _what_to_do
from pipeline.cli import main
from pipeline.cli.sources import Source, _shown
from pipeline.collector.settings import CollectorSettings
from pipeline.errors import BrokerError
from pipeline.settings import Settings


def test_sources_can_be_read_in_a_narrow_window() -> None:
    source = Source(events=12, refused=2, last_ms=1_800_000_000_000)
    source.names.update({"Page Viewed": 8, "Order Completed": 4})
    source.fields.update({f"properties.a_name_that_goes_on_{number}": 12 - number for number in range(8)})
    source.reasons.update({"no_identifier": 2})
    said = io.StringIO()
    Console(file=said, width=60).print(_shown("web", source))
    assert "web: 12 events, 2 refused, last 2027-01-15 08:00:00Z" in said.getvalue()
    words = said.getvalue().split()
    assert [f"properties.a_name_that_goes_on_{number}" in words for number in range(8)] == [True] * 8
    assert "no_identifier" in words and "67%" not in words and "100%," in words


def test_in_a_folder_without_a_workspace_the_whole_path_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrokerError) as caught:
        find_kafka(Settings(state_dir=Path(".headwater")))
    assert caught.value.where == str(tmp_path / ".headwater") and "headwater up" in caught.value.what_to_do


def test_a_write_key_of_digits_is_to_be_quoted() -> None:
    with pytest.raises(ValidationError, match="stands in quotes"):
        CollectorSettings.model_validate({"write_keys": {1234567890: "web"}})
    CollectorSettings.model_validate({"write_keys": {"1234567890": "web"}})


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"NO_SUCH": "1"}, "No such configuration property: `no.such`"),
        ({"SECURITY_PROTOCOL": "SASL"}, "Invalid value `SASL` for configuration property `security.protocol`"),
        ({"SECURITY_PROTOCOL": "SSL", "SSL_CA_LOCATION": "/no/such.pem"}, "cannot be used: ssl.ca.location failed"),
        (
            {"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "SCRAM-SHA-512", "SASL_USERNAME": "ada"},
            "cannot be used: sasl.username and sasl.password must be set",
        ),
        ({"LINGER_MS": "-1"}, "outside allowed range"),
    ],
)
def test_properties_with_which_no_client_can_be_made_are_settings(
    properties: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    for name, value in properties.items():
        monkeypatch.setenv(f"HEADWATER_KAFKA__{name}", value)
    monkeypatch.setattr("sys.argv", ["headwater", "topics"])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and said in told and "HEADWATER_KAFKA__" in told, told


def test_a_host_of_the_metrics_that_is_none_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADWATER_METRICS_HOST", "192.0.2.1")
    monkeypatch.setenv("HEADWATER_METRICS_PORT", "0")
    monkeypatch.setattr("sys.argv", ["headwater", "run", "ui"])
    monkeypatch.setattr("pipeline.cli.run._run", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and "The metrics cannot be served" in capsys.readouterr().err


def test_a_state_folder_that_is_none_is_told_before_a_role_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("HEADWATER_SECRET", "s" * 32)
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("pipeline.cli.run.refuse_another_secret", lambda *_: None)
    monkeypatch.setattr("pipeline.cli.run.refuse_other_partitions", lambda *_: None)
    monkeypatch.setattr("pipeline.cli.run._run", lambda *_: None)
    for role in ("unify", "identity"):
        monkeypatch.setattr("sys.argv", ["headwater", "run", role])
        with pytest.raises(SystemExit) as ended:
            main()
        told = capsys.readouterr().err
        assert ended.value.code == 2 and "The state cannot be kept" in told and str(tmp_path / "file") in told, told


def test_a_port_of_the_metrics_that_is_taken_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("HEADWATER_METRICS_PORT", str(taken.getsockname()[1]))
        monkeypatch.setattr("sys.argv", ["headwater", "run", "ui"])
        with pytest.raises(SystemExit) as ended:
            main()
    told = capsys.readouterr().err
    assert ended.value.code == 2 and "The metrics cannot be served" in told and "of its own" in told


def test_a_command_that_is_interrupted_while_it_loads_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.cli.import_module", interrupted)
    monkeypatch.setattr("sys.argv", ["headwater", "up"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


def test_a_reader_that_has_enough_is_no_error() -> None:
    run = [
        sys.executable,
        "-c",
        "from pipeline import cli; cli.build = lambda _: lambda: print('x' * 10**6); cli.main()",
    ]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, b"")


def test_nobody_is_told_to_remove_a_workspace_because_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk(free: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))

    disk(0)
    assert "make room" in _what_to_do(tmp_path) and "begins anew" not in _what_to_do(tmp_path)
    disk(10**9)
    assert "only if its data are damaged" in _what_to_do(tmp_path)
