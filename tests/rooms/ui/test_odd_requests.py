"""What browsers never send: each is answered, and says whose fault it is."""

import asyncio
import errno
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from pipeline.api.client import ApiClient, ApiError
from pipeline.errors import InputError
from pipeline.ui.drafts import Drafts
from pipeline.ui.edits import edit, new_segment
from pipeline.ui.forms import fields_of, held, tree_of
from pipeline.ui.sentences import sentence
from pipeline.ui.tree import Node, read_segment
from pipeline.ui.writing import read_lines, write_segment
from tests.hostile.asking import Asked, hand_over
from tests.rooms.ui.house import House, InProcess, Visitor

DEEP = "[" * 50_000
AN_EVERYONE = [("n:kind", "segment"), ("n:name", "a"), ("n.0:kind", "all")]


@pytest.fixture
def house(tmp_path: Path) -> House:
    found = House(tmp_path)
    found.world.segment("a")
    return found


def raw(house: House, target: bytes, *headers: tuple[bytes, bytes]) -> Any:
    return asyncio.run(hand_over(house.desk.app, Asked("GET", target, [(b"host", b"ui"), *headers])))


def test_bytes_that_are_no_text_in_an_address(house: House) -> None:
    cookie = (b"cookie", f"headwater_session={Visitor(house, 'viewer').cookies['headwater_session']}".encode())
    assert raw(house, b"/segments?q=\xff&\xed\xa0\x80", cookie).status == 200
    assert raw(house, b"/segments?\xff").header("location") == "/sign-in?onward=/segments"


def test_nobody_is_led_where_the_request_says_it_is(house: House) -> None:
    answer = raw(house, b"/segments/", (b"host", b"evil.example"))
    assert answer.status == 404 and "evil" not in answer.header("location")


@pytest.mark.parametrize("path", ["/nothing/here", "/segments/", "/static/nothing.css"])
def test_an_address_that_leads_nowhere_is_a_page_from_which_one_can_go_on(house: House, path: str) -> None:
    stranger, viewer = Visitor(house).get(path), Visitor(house, "viewer").get(path)
    for answer in (stranger, viewer):
        assert answer.status_code == 404 and answer.headers["content-type"].startswith("text/html")
        assert answer.headers["content-security-policy"] and "There is no such page" in answer.text
    assert 'href="/"' in stranger.text and "viewer" not in stranger.text
    assert 'href="/segments"' in viewer.text


def test_dots_lead_nowhere_else(house: House) -> None:
    operator = Visitor(house, "operator")
    for path in ("/operations/dead-letters/%2e%2e/operations", "/people/%2e%2e", "/people/%2e"):
        assert operator.get(path).status_code in (400, 404, 422), path
    asked: list[str] = []

    def noted(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path.decode())
        return httpx.Response(404, json={"detail": "there is none"})

    with ApiClient("http://api", "t", transport=httpx.MockTransport(noted)) as client:
        for text in (".", "..", "...", "a/../b"):
            assert client.get_segment(text) is None
    assert asked == ["/v1/segments/%2E", "/v1/segments/%2E%2E", "/v1/segments/%2E%2E%2E", "/v1/segments/a%2F..%2Fb"]


def test_what_the_api_refuses_is_the_askers_fault(house: House) -> None:
    viewer = Visitor(house, "viewer")
    assert viewer.get("/people/nothing").status_code == 400
    assert viewer.get(f"/accounts?after={'x' * 600}").status_code == 400
    assert viewer.get(f"/accounts?after={'(' * 30_000}").status_code == 414
    house.world.service.access.replace([])
    assert viewer.get("/segments").status_code == 502, "its own token is not what who asks has to do with"


@pytest.mark.parametrize("said", [b"<html>", b"\xff", b"[1]", DEEP.encode()])
def test_an_address_that_is_no_api_is_told(said: bytes) -> None:
    for status in (200, 500):
        transport = httpx.MockTransport(lambda _, status=status: httpx.Response(status, content=said))
        with ApiClient("http://api", "t", transport=transport) as client, pytest.raises(ApiError):
            client.list_segments()


@pytest.mark.parametrize(
    ("went_wrong", "told"),
    [
        (httpx.ConnectError, "That did not work"),
        (httpx.ReadTimeout, "may have been done"),
        (httpx.ReadError, "may have been"),
    ],
)
def test_what_was_asked_for_and_not_answered_is_not_said_to_have_failed(
    house: House, went_wrong: type[httpx.RequestError], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    answered = InProcess.handle_request

    def handed_over(transport: InProcess, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return answered(transport, request)
        waited.append(request.extensions["timeout"]["read"])
        raise went_wrong("no answer")

    editor = Visitor(house, "editor")
    monkeypatch.setattr(InProcess, "handle_request", handed_over)
    answer = editor.post("/segments/publish", AN_EVERYONE)
    assert answer.status_code == 502 and told in answer.text
    assert ("That did not work" in answer.text) == (went_wrong is httpx.ConnectError)
    # The API waits for a transaction, until it has read it, and until it is in force.
    assert waited == [30.0]
    tried = editor.post("/builder/meaning", AN_EVERYONE, part="meaning")
    assert tried.status_code == 502 and "does not answer" in tried.text and waited[1:] == [5.0]


@pytest.mark.parametrize("place", ["²/1", "0/²", "0/" + "9" * 30, "-1/0", "x/y"])
def test_a_place_that_is_none_has_no_event(house: House, place: str) -> None:
    assert Visitor(house, "viewer").get(f"/debugger/{quote(place)}").status_code == 404


def test_a_client_that_goes_away_is_no_failure(house: House) -> None:
    viewer = Visitor(house, "viewer")
    cookie = (b"cookie", f"headwater_session={viewer.cookies['headwater_session']}".encode())
    asked = Asked("POST", b"/builder", [(b"host", b"ui"), cookie], b"n=" + b"a" * 1_000, chunks=3, cut=True)
    assert asyncio.run(hand_over(house.desk.app, asked)).status == 400


# ---------------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "wrong",
    [
        ("n:kind", "all"),
        ("n.0:kind", "_class__"),
        ("n.0:kind", "check"),
        ("n.0:kind", ""),
        ("n.0.0:kind", "event"),
        ("n.0.0:kind", "segment"),
        ("n.1:kind", "test"),
    ],
)
def test_a_part_that_stands_where_it_cannot_is_refused(house: House, wrong: tuple[str, str]) -> None:
    editor = Visitor(house, "editor")
    for path in ("/builder", "/builder/meaning", "/builder/yaml", "/segments/publish", "/drafts"):
        assert editor.post(path, [*AN_EVERYONE, wrong]).status_code == 422, path


def test_nothing_is_added_where_it_cannot_stand() -> None:
    for kind in ("event", "test", "where_all", "step"):
        tree = new_segment()
        with pytest.raises(InputError):
            edit(tree, f"add:n.0:{kind}")
        assert tree == new_segment()


def test_a_result_that_is_none_is_a_mistake_and_no_failure(house: House) -> None:
    fields = [*AN_EVERYONE, ("n.0.0:kind", "performed"), ("n.0.0:result", "__class__")]
    page = Visitor(house, "viewer").post("/builder/meaning", fields, part="meaning")
    assert page.status_code == 200 and sentence(tree_of(fields))


@pytest.mark.parametrize("text", ["12345678901234567890", "-9223372036854775809", "1e999", "9" * 5_000, "abc", "²"])
def test_a_number_that_no_definition_can_hold_is_a_mistake(house: House, text: str) -> None:
    test = Node("test", {"operator": "equals", "type": "number", "value": text})
    check = Node("check", {"path": "plan"}, [test])
    tree = Node("segment", {"name": "a"}, [Node("trait", {}, [check])])
    [(_, told)] = write_segment(tree).problems
    assert "no number" in told
    editor = Visitor(house, "editor")
    for path in ("/segments/publish", "/builder/yaml"):
        assert editor.post(path, fields_of(tree)).status_code == 422


def test_texts_behind_the_mark_that_are_no_texts_stay_as_they_were() -> None:
    for text in (f"json:{DEEP}", 'json:"\\ud800"', "json:1", "json:["):
        assert held("name", text) == text
    assert held("name", 'json:"a\\nb"') == "a\nb"
    assert read_lines(DEEP) == [DEEP]


# --------------------------------------------------------------------------------------------------------------- drafts


@pytest.mark.parametrize(
    "text",
    ["", "{", DEEP, "\udcff", "[]", "{}", '{"fields": 3}', '{"saved_at": "x", "fields": [["n:kind", "segment"]]}',
     '{"saved_at": 1e999, "fields": [["n:kind", "segment"]]}', '{"saved_at": 1, "fields": [["n:kind", "x"]]}'],
)  # fmt: skip
def test_a_draft_that_cannot_be_read_is_not_there(tmp_path: Path, text: str) -> None:
    drafts = Drafts(tmp_path)
    drafts.save("ada", read_segment({"segment": "a", "when": {"all": []}}))
    [draft] = drafts.all("ada")
    [path] = tmp_path.rglob("*.json")
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert drafts.all("ada") == [] and drafts.read("ada", draft.key) is None


def test_names_of_drafts_that_are_none(house: House) -> None:
    editor = Visitor(house, "editor")
    editor.post("/drafts", AN_EVERYONE)  # so that there is a folder to look into
    for key in ("a" * 500, "²", "%00", "a" * 32):
        assert editor.get(f"/drafts/{key}").status_code == 404
        assert editor.post(f"/drafts/{key}/delete").status_code == 303


def test_drafts_that_cannot_be_kept_are_told(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    answer = Visitor(house, "editor").post("/drafts", AN_EVERYONE)
    assert answer.status_code == 422 and "No space left" in answer.text and "state_dir" in answer.text
