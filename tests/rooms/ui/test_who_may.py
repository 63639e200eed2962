"""Signing in, roles and forms: what a viewer may not do is refused by the pages, and by the API behind them."""

import errno
from pathlib import Path
from typing import Any

import pytest

from pipeline.api.app import operations
from pipeline.api.client import ApiError
from pipeline.errors import InputError, SettingsError
from pipeline.ui.sessions import Sessions, TooManyTries
from pipeline.ui.users import SCOPES, read_users, seal_user
from pipeline.ui.web import MAX_FORM
from tests.rooms.ui.house import PASSWORD, House, Visitor


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    found = House(tmp_path)

    def written(*_: Any, **__: Any) -> Any:
        raise AssertionError("something was written")

    monkeypatch.setattr("pipeline.api.writes.apply", written)
    monkeypatch.setattr("pipeline.api.writes.produce_all", written)
    return found


# What is a POST because it sends a form, and changes nothing.
_ONLY_TRIES = {"/builder", "/builder/meaning", "/builder/yaml", "/segments/import"}


def _address(path: str) -> str:
    for name in ("name", "key", "profile", "account:path", "partition", "offset", "id"):
        path = path.replace(f"{{{name}}}", "a")
    return path


def test_a_viewer_can_change_nothing(house: House) -> None:
    viewer = Visitor(house, "viewer")
    posts = [one for one in house.desk.entries if one.method == "POST"]
    assert {one.path for one in posts if one.role == "viewer"} == _ONLY_TRIES
    for one in posts:
        if one.path not in _ONLY_TRIES:
            answer = viewer.post(_address(one.path), {"n:kind": "segment", "n:name": "a", "n.0:kind": "all"})
            assert answer.status_code == 403 and "needs the role" in answer.text, one.path


def test_the_api_refuses_a_viewer_too(house: House) -> None:
    writes = {one.scope for one in operations(house.world.service) if one.name in _WRITES}
    assert writes == {"definitions:write", "identity:write", "privacy:write", "operations:write"}
    assert (
        writes.isdisjoint(SCOPES["viewer"])
        and writes <= set(SCOPES["operator"])
        and "identity:write" not in SCOPES["editor"]
    )
    client = house.open_client("token-of-viewer")
    for change in (
        lambda: client.apply_definitions("segment: a\nwhen: {all: []}\n"),
        lambda: client.change_definitions(remove=["segment/a"]),
        lambda: client.unlink("user_id:1", "user_id:2"),
        lambda: client.relink("user_id:1", "user_id:2"),
        lambda: client.ask_privacy("erase", "user_id:1"),
        lambda: client.replay_dead_letters(["0/1"]),
    ):
        with pytest.raises(ApiError, match="403"):
            change()


_WRITES = {"applyDefinitions", "changeDefinitions", "unlink", "relink", "askPrivacy", "replayDeadLetters"}


def test_every_operation_that_writes_is_known_to_this_test(house: House) -> None:
    posts = {one.name for one in operations(house.world.service) if one.method == "POST"}
    assert posts - _WRITES == {"previewSegment"}


def test_an_editor_publishes_and_does_not_unlink(house: House) -> None:
    editor = Visitor(house, "editor")
    for one in house.desk.entries:
        if one.role == "operator":
            assert editor.ask(one.method, _address(one.path)).status_code == 403, one.path


def test_nobody_sees_a_page_without_signing_in(house: House) -> None:
    stranger = Visitor(house)
    for one in house.desk.entries:
        answer = stranger.ask(one.method, _address(one.path))
        assert answer.status_code == 303 and answer.headers["location"].startswith("/sign-in"), one.path
        assert stranger.ask(one.method, _address(one.path), headers={"X-Part": "x"}).status_code == 401
    assert stranger.get("/sign-in").status_code == 200


def test_a_form_of_another_site_or_session_does_nothing(house: House) -> None:
    editor = Visitor(house, "editor")
    assert editor.post("/segments/a/remove", {"form_key": "x"}, key=False).status_code == 403
    assert editor.post("/segments/a/remove", {}, key=False).status_code == 403
    other = Visitor(house, "operator")
    assert editor.post("/segments/a/remove", {"form_key": other.form_key}, key=False).status_code == 403
    cross = editor.ask("POST", "/sign-in", content="name=a", headers={"Sec-Fetch-Site": "cross-site"})
    assert cross.status_code == 403


def test_signing_in_and_out(house: House) -> None:
    visitor = Visitor(house)
    wrong = visitor.post("/sign-in", {"name": "editor", "password": "wrong" * 5})
    assert wrong.status_code == 401 and "wrong" * 5 not in wrong.text
    assert visitor.post("/sign-in", {"name": "nobody", "password": PASSWORD}).status_code == 401
    right = visitor.post("/sign-in", {"name": "editor", "password": PASSWORD, "onward": "//evil.example"})
    assert right.status_code == 303 and right.headers["location"] == "/"
    cookie = right.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    visitor.cookies = dict(right.cookies)
    assert visitor.get("/segments").status_code == 200
    visitor.post("/sign-out")
    assert visitor.get("/segments").status_code == 303


def test_too_many_tries_are_slowed(house: House) -> None:
    for _ in range(5):
        assert house.sessions.sign_in("editor", "no") is None
    with pytest.raises(TooManyTries):
        house.sessions.sign_in("editor", PASSWORD)
    assert house.sessions.sign_in("viewer", PASSWORD)


def test_a_session_ends(house: House, tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "users.yaml", house.open_client, lasts_s=-1, most=1)
    cookie = sessions.sign_in("viewer", PASSWORD)
    assert cookie and sessions.find(cookie) is None
    sessions = Sessions(tmp_path / "users.yaml", house.open_client, most=1)
    first, second = sessions.sign_in("viewer", PASSWORD), sessions.sign_in("editor", PASSWORD)
    assert first and second and sessions.find(first) is None and sessions.find(second)


def test_the_file_of_users_opens_nothing(tmp_path: Path, house: House) -> None:
    text = (tmp_path / "users.yaml").read_text()
    assert "token-of" not in text and PASSWORD not in text
    assert (tmp_path / "users.yaml").stat().st_mode & 0o077 == 0
    viewer = next(one for one in read_users(tmp_path / "users.yaml") if one.name == "viewer")
    assert viewer.token(PASSWORD) == "token-of-viewer"
    raised = viewer.model_copy(update={"role": "operator"})
    assert raised.token(PASSWORD) is None and viewer.token("another password") is None
    with pytest.raises(InputError):
        seal_user("a", "viewer", "t", "short")
    with pytest.raises(InputError):
        seal_user("A b", "viewer", "t", PASSWORD)


_BROKEN = ("users: [", "users: 3", "users: 2026-99-99", "users: !!bool x", "[" * 50_000, "\udcff")
_ONE_USER = "users:\n- name: editor\n  role: editor\n%s\n"
_BROKEN_ONES = (
    "  salt: é\n  sealed: AAAA",
    "  salt: AAAAAAAAAAAAAAAAAAAAAA==\n  sealed: ''",
    "  salt: AAAAAAAAAAAAAAAAAAAAAA==\n  sealed: AAAA",
    "  salt: ''\n  sealed: " + "A" * 64,
)


@pytest.mark.parametrize("text", [*_BROKEN, *(_ONE_USER % each for each in _BROKEN_ONES)])
def test_a_file_of_users_that_cannot_be_used_is_told(tmp_path: Path, house: House, text: str) -> None:
    path = tmp_path / "users.yaml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError, match="The file of users cannot be used") as caught:
        read_users(path)
    assert caught.value.where.startswith(str(path)) and caught.value.what_to_do
    answer = Visitor(house).post("/sign-in", {"name": "editor", "password": PASSWORD})
    assert answer.status_code == 500 and "Nobody can sign in now" in answer.text and str(path) not in answer.text


def test_a_file_of_users_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied")

    assert read_users(tmp_path / "none.yaml") == []
    with pytest.raises(SettingsError, match="Is a directory"):
        read_users(tmp_path)
    (tmp_path / "users.yaml").write_text("users: []\n")
    for name in ("read_text", "stat"):
        with monkeypatch.context() as patch, pytest.raises(SettingsError, match="Permission denied"):
            patch.setattr(Path, name, denied)
            read_users(tmp_path / "users.yaml")


def test_a_sign_in_that_is_too_large_or_unreadable_is_refused(house: House) -> None:
    visitor = Visitor(house)
    assert visitor.ask("POST", "/sign-in", content=b"name=" + b"a" * MAX_FORM).status_code == 413
    assert visitor.ask("POST", "/sign-in", content=b"name=\xff").status_code == 400


def test_pages_forbid_what_they_do_not_need(house: House) -> None:
    answer = Visitor(house, "viewer").get("/segments")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "<script>" not in answer.text and "style=" not in answer.text


def test_a_token_that_was_revoked_is_told_in_words_of_the_pages(house: House) -> None:
    viewer = Visitor(house, "viewer")
    house.world.service.access.replace([])
    told = viewer.get("/segments")
    assert told.status_code == 502 and "revoked" in told.text and "sign in again" in told.text
    assert "Bearer" not in told.text


def test_the_key_of_forms_is_for_who_is_signed_in_and_for_pages_of_this_site(house: House) -> None:
    viewer = Visitor(house, "viewer")
    assert viewer.get("/form-key").text == viewer.form_key
    assert viewer.ask("GET", "/form-key", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 401
    assert Visitor(house).get("/form-key").status_code == 401
