"""`headwater run`: what it does before a role begins."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import build
from pipeline.cli import run as run_module
from pipeline.errors import SettingsError
from pipeline.secret_check import check_of


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before = list(root.handlers)
    yield root
    root.handlers[:] = before


@pytest.mark.parametrize(
    ("level", "words", "logged"),
    [
        ("warning", (), logging.WARNING),
        ("debug", (), logging.DEBUG),
        (None, (), logging.INFO),
        ("error", ("--verbose",), logging.DEBUG),
    ],
)
def test_a_role_logs_as_much_as_the_setting_says(
    level: str | None,
    words: tuple[str, ...],
    logged: int,
    root_logger: logging.Logger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(run_module, "_run", lambda *_: seen.append(root_logger.level))
    monkeypatch.setattr(run_module.signal, "signal", lambda *_: None)
    if level is not None:
        monkeypatch.setenv("HEADWATER_LOG_LEVEL", level)
    monkeypatch.setenv("HEADWATER_SECRET", "s" * 32)
    root_logger.handlers[:] = []  # as in a process of its own
    root_logger.setLevel(logging.WARNING)
    said: Any = CliRunner().invoke(build(["run"]), [*words, "run", "ui"])
    assert said.exit_code == 0, said.output
    assert seen == [logged]


@pytest.mark.parametrize("role", ["identity", "unify", "api"])
def test_a_role_without_a_place_for_its_state_says_so(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(tmp_path / "file"))
    monkeypatch.setenv("HEADWATER_SECRET", "s" * 32)
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    said: Any = CliRunner().invoke(build(["run"]), ["run", role])
    assert isinstance(said.exception, SettingsError) and "HEADWATER_STATE_DIR" in said.exception.what_to_do


@pytest.mark.parametrize(
    "words",
    [
        ("run", "ingest"),
        ("run", "identity"),
        ("run", "unify"),
        ("replay", "run"),
        ("replay", "switch", "--yes"),
        ("backfill", "status"),
        ("explain", "user_id:1", "s"),
    ],
    ids=" ".join,
)
def test_another_number_of_partitions_than_that_of_the_workspace_is_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    """For a replay it is in the settings file, and the variable of the workspace before stands above that: its copier
    told only the first partitions what time it is, and the switch looked into these only."""
    (tmp_path / "new.yaml").write_text("prefix: w.\npartitions: 7\n")
    monkeypatch.setenv("HEADWATER_CONFIG", str(tmp_path / "new.yaml"))
    monkeypatch.setenv("HEADWATER_PARTITIONS", "4")
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HEADWATER_SECRET", "s" * 32)
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("pipeline.admin._metadata", lambda *_: (1, {"w.events": 7}))
    monkeypatch.setattr(run_module, "refuse_another_secret", lambda _: None)

    def too_late(*_: object) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("pipeline.cli.replay.workspace.origin_of", too_late)
    monkeypatch.setattr("pipeline.cli.backfill.read_catalog", too_late)
    said: Any = CliRunner().invoke(build([words[0]]), list(words))
    assert isinstance(said.exception, SettingsError) and "made with 7 partitions" in said.exception.what
    assert "HEADWATER_PARTITIONS=7" in said.exception.what_to_do


@pytest.mark.parametrize("words", [("run", "ingest"), ("replay", "run"), ("replay", "switch", "--yes")], ids=" ".join)
def test_another_secret_than_that_of_the_workspace_is_refused(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root_logger: logging.Logger
) -> None:
    """The copier finds the routes of what it moves by keys of the secret, and the switch the profiles."""
    kept = b'{"kind":"secret_check","check":"%s"}' % check_of(b"of the workspace").encode()
    monkeypatch.setenv("HEADWATER_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HEADWATER_SECRET", "s" * 32)
    monkeypatch.setenv("HEADWATER_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr("pipeline.admin._metadata", lambda *_: (1, {}))
    monkeypatch.setattr("pipeline.secret_check.current_value", lambda *_: kept)
    said: Any = CliRunner().invoke(build([words[0]]), list(words))
    assert isinstance(said.exception, SettingsError) and "made with another secret" in said.exception.what
