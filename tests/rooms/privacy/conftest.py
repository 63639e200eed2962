"""What the tests of this room begin with."""

from pathlib import Path

import pytest

from tests.rooms.privacy import log as logs


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> logs.Log:
    """The topics of a workspace in which nobody has asked for anything."""
    return logs.made(monkeypatch, tmp_path)
