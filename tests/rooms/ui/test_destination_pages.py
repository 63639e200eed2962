"""Destinations: the list, and the form of those that need no file."""

from pathlib import Path

import pytest

from tests.rooms.ui.house import House, Visitor
from tests.rooms.ui.town import applies, takes_no_definitions


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    found = House(tmp_path)
    applies(found, monkeypatch)
    found.open_client("token-of-editor").apply_definitions("segment: buyers\nwhen: {all: []}\n")
    found.applied.clear()
    return found


FILE = {"kind": "file", "name": "crm", "path": "out/crm.jsonl", "which": "some", "segments": "buyers"}
HOOK = {"kind": "webhook", "name": "hook", "url": "https://example.org/in", "secret": "CRM_SECRET", "which": "all"}


def test_a_form_becomes_the_definition_and_stands_in_the_list(house: House) -> None:
    editor = Visitor(house, "editor")
    for fields in (FILE, HOOK):
        form = editor.get(f"/destinations/new/{fields['kind']}").text
        for name in fields:
            assert f'name="{name}"' in form, name
        answer = editor.post("/destinations", fields)
        assert answer.status_code == 303, answer.text
    assert [asked["written"][0].body for _, asked in house.applied] == [
        {"destination": "crm", "kind": "file", "segments": ["buyers"], "path": "out/crm.jsonl"},
        {
            "destination": "hook", "kind": "webhook", "segments": "*", "url": "https://example.org/in",
            "secret": {"env": "CRM_SECRET"},
        },
    ]  # fmt: skip
    assert {asked["applied_by"] for _, asked in house.applied} == {"ui.editor"}
    page = Visitor(house, "viewer").get("/destinations").text
    for text in ("crm", "hook", "webhook", "every segment", "buyers", "in force"):
        assert text in page, text
    assert "example.org" not in page and "Remove" not in page
    assert editor.post("/destinations/crm/pause").status_code == 303
    assert "paused" in editor.get("/destinations").text
    assert editor.post("/destinations/crm/resume").status_code == 303
    assert editor.post("/destinations/crm/remove").status_code == 303
    assert "crm" not in editor.get("/destinations").text


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (FILE | {"name": " "}, "no name"),
        (FILE | {"name": "Not a name"}, "a name begins with a small letter"),
        (FILE | {"segments": "nobody_knows"}, "nobody_knows"),
        (FILE | {"segments": "", "path": "<b>"}, "&lt;b&gt;"),
        (HOOK | {"secret": ""}, "signing secret"),
        (HOOK | {"url": "http://example.org"}, "https://"),
        (HOOK | {"url": "https://a:b@example.org"}, "password in the url"),
        (HOOK | {"kind": "redis"}, "no form"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(house: House, fields: dict[str, str], said: str) -> None:
    answer = Visitor(house, "editor").post("/destinations", fields)
    assert answer.status_code == 422 and said in answer.text
    assert house.applied == [] or house.world.catalog.latest.members.keys() == {"segment/buyers"}


def test_one_that_is_there_is_not_written_over(house: House) -> None:
    editor = Visitor(house, "editor")
    assert editor.post("/destinations", FILE).status_code == 303
    answer = editor.post("/destinations", FILE | {"path": "elsewhere"})
    assert answer.status_code == 422 and "already" in answer.text and "elsewhere" in answer.text
    assert len(house.applied) == 1


def test_a_copy_that_takes_no_definitions_says_so_and_keeps_what_was_typed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes_no_definitions(monkeypatch)
    editor = Visitor(house, "editor")
    answer = editor.post("/destinations", FILE)
    assert answer.status_code == 409 and "apply it in v." in answer.text and "out/crm.jsonl" in answer.text
