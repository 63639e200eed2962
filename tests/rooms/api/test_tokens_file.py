"""The file of tokens while the API runs: what is changed in it counts at once; what befalls it takes nothing away."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.api.access import TokensFollowed, create_token, read_tokens, revoke_token
from pipeline.errors import SettingsError
from tests.rooms.api.harness import World, world_with_ada


class Served:
    """An API whose tokens are those of a file."""

    def __init__(self, world: World, path: Path) -> None:
        self.path = path
        self.token = create_token(path, "web", ["profiles:read"])
        self._world = world
        self._tokens = TokensFollowed(path)
        world.service.access = self._tokens.access

    def status(self, token: str) -> int:
        """What becomes of a request by then."""
        self._tokens.look()
        return self._world.ask("/v1/profiles/user_id:42", token).status_code


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(world_with_ada(tmp_path), tmp_path / "tokens.yaml")


def test_who_gets_a_token_and_whose_is_revoked(served: Served) -> None:
    assert served.status(served.token) == 200
    other = create_token(served.path, "other", ["profiles:read"])
    assert served.status(other) == served.status(served.token) == 200
    revoke_token(served.path, "web")
    assert (served.status(served.token), served.status(other)) == (401, 200)
    revoke_token(served.path, "other")
    assert served.status(other) == 401, "a file without tokens is one too"


def denied(_: Path, *__: object, **___: object) -> str:
    raise PermissionError(errno.EACCES, "Permission denied")


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


FORMS: dict[str, Callable[[Path], object]] = {
    "no utf-8": lambda path: path.write_bytes(b"tokens: []  # J\xfcrgen\n"),
    "no yaml": lambda path: path.write_text("tokens: ["),
    "no bytes of a text": lambda path: path.write_bytes(b"\0" * 300),
    "an impossible date": lambda path: path.write_text("tokens: 2026-99-99"),
    "no boolean": lambda path: path.write_text("tokens: !!bool x"),
    "no time": lambda path: path.write_text("tokens: !!timestamp x"),
    "too deep": lambda path: path.write_text("[" * 50_000),
    "no tokens": lambda path: path.write_text("tokens: 3"),
    "a list": lambda path: path.write_text("- name: web"),
    "a scope that is none": lambda path: path.write_text(path.read_text().replace("profiles:read", "everything")),
    "gone": lambda path: path.unlink(),
    "a folder": replaced_by_a_folder,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_cannot_be_used_leaves_the_tokens_as_they_were(
    served: Served, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = served.path.read_text()
    FORMS[form](served.path)
    with pytest.raises(SettingsError):
        read_tokens(served.path)
    with caplog.at_level(logging.ERROR):
        assert [served.status(served.token) for _ in range(3)] == [200, 200, 200]
    assert caplog.text.count("the tokens stay as they were") == 1, "once, not with every look"
    assert str(served.path) in caplog.text
    if served.path.is_dir():
        served.path.rmdir()
    served.path.write_text(whole)
    other = create_token(served.path, "other", ["profiles:read"])
    assert served.status(other) == served.status(served.token) == 200, "the next change counts again"


@pytest.mark.parametrize("what", ["read_text", "stat"], ids=["the file", "its folder"])
def test_what_may_not_be_read_is_read_once_it_may(
    served: Served, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = create_token(served.path, "other", ["profiles:read"])
    for times in (1, 2):
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(Path, what, denied)
            with pytest.raises(SettingsError, match="Permission denied"):
                read_tokens(served.path)
            assert [served.status(served.token) for _ in range(3)] == [200, 200, 200]
            assert served.status(other) == 401
        assert caplog.text.count("cannot be read: Permission denied") == times, "once, whenever it begins"
        assert served.status(other) == served.status(served.token) == 200, "its rights were mended, it did not change"
        other = create_token(served.path, f"other{times}", ["profiles:read"])
