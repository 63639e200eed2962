"""Files beside a process: whether one is there, and may be looked for, is told alike by all who read one."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.api.access import create_token, read_tokens
from pipeline.errors import SettingsError
from pipeline.private_files import UnreadableError, is_there, read_yaml
from pipeline.settings import load
from pipeline.ui.users import read_users

READERS: dict[str, Callable[[Path], object]] = {
    "settings file": load,
    "file of tokens": read_tokens,
    "file of users": read_users,
}


@pytest.fixture(params=READERS)
def called(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def denied(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_one_whose_folder_may_not_be_looked_into(called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "it.yaml"
    with monkeypatch.context() as patch, pytest.raises(UnreadableError) as caught:
        patch.setattr(Path, "stat", denied)
        READERS[called](path)
    error = caught.value
    assert error.what == f"The {called} cannot be read: Permission denied."
    assert (error.where, error.what_to_do) == (str(path), "let this process read it")


def test_a_folder_of_that_name_is_no_file_and_not_nothing_either(called: str, tmp_path: Path) -> None:
    with pytest.raises(UnreadableError) as caught:
        READERS[called](tmp_path)
    error = caught.value
    assert error.what == f"The {called} cannot be read: Is a directory."
    assert (error.where, error.what_to_do) == (str(tmp_path), "name a file")


def test_names_that_go_round_in_a_circle_are_not_nothing(called: str, tmp_path: Path) -> None:
    path = tmp_path / "it.yaml"
    path.symlink_to(path)
    with pytest.raises(UnreadableError, match=f"The {called} cannot be read: Too many levels of symbolic links"):
        READERS[called](path)


@pytest.mark.parametrize("path", ["none.yaml", "file/none.yaml", "a\0b"])
def test_what_is_not_there(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_there(tmp_path / path, "file of a test")
    assert is_there(tmp_path / "file", "file of a test")
    assert read_users(tmp_path / path) == []
    with pytest.raises(SettingsError, match="There are no tokens"):
        read_tokens(tmp_path / path)


def test_settings_from_a_pipe(tmp_path: Path) -> None:
    """As a shell hands them over: `--config <(...)`."""
    assert load(Path("/dev/null")).partitions == load().partitions


def test_a_token_is_not_made_where_nobody_knows_which_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(UnreadableError, match="Permission denied"):
        patch.setattr(Path, "stat", denied)
        create_token(tmp_path / "tokens.yaml", "web", ["profiles:read"])
    assert list(tmp_path.iterdir()) == []


def test_what_only_looks_like_the_same_key_is_none(tmp_path: Path) -> None:
    """What `<<` brings along is meant to be overridden, and 1 is not "1"."""
    (tmp_path / "x.yaml").write_text("a: &a {k: 1, l: 1}\nb: {<<: *a, k: 2}\nc: {1: x, '1': y}\n")
    found = read_yaml(tmp_path / "x.yaml", "file of a test")
    assert (found["b"], found["c"]) == ({"k": 2, "l": 1}, {1: "x", "1": "y"})
