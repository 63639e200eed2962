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
