"""What is on this machine for a Kafka of our own: programs that hang, and folders of somebody else's, are told."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.broker import jars
from pipeline.broker.folder import announced, is_locked
from pipeline.errors import BrokerError


@pytest.fixture
def hanging(tmp_path: Path) -> Path:
    """A program that answers nothing, and waits for its input for ever."""
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    return program


def test_a_java_that_hangs_is_told(hanging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(hanging.parent.parent))
    monkeypatch.setattr(jars, "_JAVA_WITHIN_S", 0.2)
    with pytest.raises(BrokerError, match="did not come to an end within") as told:
        jars.find_java()
    assert told.value.where == str(hanging)


def test_a_maven_that_hangs_is_told_and_leaves_nothing(
    hanging: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hanging.parent / "mvn").symlink_to(hanging)
    monkeypatch.setenv("PATH", f"{hanging.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(jars, "_MAVEN_WITHIN_S", 0.2)
    cache = tmp_path / "cache"
    cache.mkdir()
    with pytest.raises(BrokerError, match="Maven did not come to an end"):
        jars._fetch(hanging, cache / "kafka")
    assert not list(cache.iterdir())


def test_a_folder_that_may_not_be_looked_into_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_locked(tmp_path / "nothing") and announced(tmp_path) is None

    def refused(path: Any, *_: Any) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(BrokerError, match="Permission denied") as told:
        announced(tmp_path)
    assert "HEADWATER_STATE_DIR" in told.value.what_to_do
