"""The builder's pages: the form is the tree, whatever the rule; what is done with it; and what it says."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.api.client import ApiError
from pipeline.definitions.documents import read_documents
from pipeline.ui.checks import unseen
from pipeline.ui.forms import fields_of, tree_of
from pipeline.ui.tree import read_segment
from pipeline.ui.writing import write_segment
from tests.rooms.api.harness import ADA, event, profile, show
from tests.rooms.ui.house import Fields, House, Visitor
from tests.rooms.ui.test_edits import LINES, PRICING_INTENT
from tests.rooms.ui.test_tree import definitions
from tests.rooms.ui.town import AtOnce, applies, takes_no_definitions


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    found = House(tmp_path)

    def apply(settings: Any, written: Any = (), **more: Any) -> Any:
        found.applied.append(("apply", {"written": list(written), **more}))
        return SimpleNamespace(generation=None, changes=())

    monkeypatch.setattr("pipeline.api.writes.apply", apply)
    monkeypatch.setattr("pipeline.api.writes.Readiness", AtOnce)
    return found


def test_the_form_of_any_rule_is_the_rule(house: House) -> None:
    editor = Visitor(house, "editor")
    chosen = random.Random(7).sample(list(definitions(200)), 60)
    for body in chosen:
        tree = read_segment(body)
        page = editor.post("/builder", fields_of(tree), part="tree")
        assert page.status_code == 200
        sent = Fields(page.text).found
        assert len({name for name, _ in sent}) == len(sent), "a field stands twice"
        assert tree_of(sent) == tree, body


def test_from_an_empty_page_to_a_published_rule(house: House) -> None:
    editor = Visitor(house, "editor")
    fields = Fields(editor.get("/segments/new").text).found
    for line in LINES:
        fields = [(name, text) for name, text in fields if not name.startswith("line:")]
        page = editor.post("/builder", [*fields, ("line:n.0", line), ("do", "type:n.0")], part="tree")
        assert page.status_code == 200, page.text
        fields = Fields(page.text).found
    fields = [(name, "pricing_intent" if name == "n:name" else text) for name, text in fields]
    answer = editor.post("/segments/publish", fields)
    assert answer.status_code == 303 and answer.headers["location"].startswith("/segments/pricing_intent?")
    [(_, asked)] = house.applied
    assert asked["written"][0].body == PRICING_INTENT
    assert asked["applied_by"] == "ui.editor" and asked["owner"] == "ui" and asked["take_over"] is False


@pytest.mark.parametrize("alone", [{"performed": {"event": "Page Viewed"}}, {"not": {"in_segment": "buyers"}}])
def test_a_condition_is_added_to_a_rule_that_stands_alone(house: House, alone: dict[str, Any]) -> None:
    editor = Visitor(house, "editor")
    opened = editor.post("/segments/import", [("text", json.dumps({"segment": "alone", "when": alone}))])
    for button in ("add:n:trait", "type:n"):
        assert f'value="{button}"' in opened.text, button
    fields = [one for one in Fields(opened.text).found if one[0] not in ("do", "line:n")]
    page = editor.post("/builder", [*fields, ("line:n", "plan is free"), ("do", "type:n")], part="tree")
    assert 'id="line:n.0"' in page.text and "data-focus" in page.text.partition('id="line:n.0"')[2].partition(">")[0]
    assert 'value="add:n:trait"' not in page.text, "the group has them from then on"
    assert editor.post("/segments/publish", Fields(page.text).found).status_code == 303
    [(_, asked)] = house.applied
    assert asked["written"][0].body["when"] == {"all": [alone, {"trait": {"plan": {"equals": "free"}}}]}


def test_what_is_not_whole_is_told_and_not_published(house: House) -> None:
    editor = Visitor(house, "editor")
    fields = Fields(editor.get("/segments/new").text).found
    fields = Fields(editor.post("/builder", [*fields, ("do", "add:n.0:in_segment")], part="tree").text).found
    answer = editor.post("/segments/publish", fields)
    assert answer.status_code == 422 and "not whole" in answer.text and house.applied == []
    fields = [one for one in fields if one[0] != "line:n.0"]
    told = editor.post("/builder", [*fields, ("do", "type:n.0"), ("line:n.0", "x where y")], part="tree")
    assert told.status_code == 422 and "is not understood" in told.text


def test_the_meaning_has_the_sentence_the_size_and_why(house: House) -> None:
    ada = profile(ADA, "email:ada@example.org", plan="free")
    world = house.world
    world.follower.read([*show(world, ada), event(world, "email:ada@example.org", 5, "Page Viewed", path="/pricing")])
    body = {"segment": "s", "when": {"all": [{"trait": {"plan": "free"}}, {"performed": {"event": "Page Viewed"}}]}}
    page = Visitor(house, "viewer").post("/builder/meaning", fields_of(read_segment(body)), part="meaning").text
    assert "People of whom this is true: plan is “free” and did “Page Viewed”." in page
    assert "Who would be in it now" in page and "Not whole yet" not in page
    for name, said in (("Pricing Visitors", "write pricing_visitors"), ("", "a name is missing")):
        other = fields_of(read_segment({**body, "segment": name}))
        told = Visitor(house, "viewer").post("/builder/meaning", other, part="meaning").text
        assert f"{said}</p>" in told and "Who would be in it now" in told
    assert "ada@example.org" in page and "trait plan is free" in page
    assert "<strong>1</strong> of 1 person" in " ".join(page.split()).replace("<strong> 1", "<strong>1")


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"performed": {"event": "Order Completed"}}, []),
        ({"performed": {"event": "*", "where": {"properties.event": "x"}}}, []),
        ({"any": [{"trait": {"event": {"in": ["x"]}}}, {"computed": {"event": "x"}}]}, []),
        ({"not": {"performed": {"event": ["Order Completed", "looked at a cart"]}}}, ["looked at a cart"]),
        ({"sequence": {"steps": [{"event": "a"}, {"not": {"event": "b"}, "within": "1h"}]}}, ["a", "b"]),
        ({"score": {"events": [{"event": "a", "weight": 1}], "half_life": "7d", "at_least": 1}}, ["a"]),
    ],
)
def test_an_event_that_nobody_was_seen_doing_is_told(house: House, when: Any, told: list[str]) -> None:
    house.world.follower.read(show(house.world, profile(ADA, "email:ada@example.org")))
    body = fields_of(read_segment({"segment": "s", "when": when}))
    page = Visitor(house, "viewer").post("/builder/meaning", body, part="meaning").text
    said = "Nobody was seen doing " + ", ".join(f"“{name}”" for name in told)
    assert (said in page) if told else ("Nobody was seen" not in page)


def test_where_nothing_is_known_of_any_event_none_is_told(house: House) -> None:
    body = fields_of(read_segment({"segment": "s", "when": {"performed": {"event": "a"}}}))
    assert "Nobody was seen" not in Visitor(house, "viewer").post("/builder/meaning", body, part="meaning").text


def test_events_of_a_rule_in_the_making_may_be_anything() -> None:
    rule = {"performed": {"event": ["Seen", 5, {}]}, "all": [{"performed": {"event": None}}, {"event": {"a": 1}}, 7]}
    assert unseen(rule, ["Bought"]) == ["Seen"]


def test_yaml_in_and_out(house: House) -> None:
    viewer = Visitor(house, "viewer")
    body = {"segment": "s", "tags": ["a"], "when": {"trait": {"plan": {"in": ["a", "3"]}}}}
    file = viewer.post("/builder/yaml", fields_of(read_segment(body)))
    assert file.status_code == 200 and "s.yaml" in file.headers["content-disposition"]
    [document] = read_documents(file.text)
    assert document.value == body
    page = viewer.post("/segments/import", {"text": file.text.replace("\n", "\r\n")})
    assert write_segment(tree_of(Fields(page.text).found)).body == body
    for junk in ("", "segment: [", "segment: s\nwhen: {all: [}", "destination: d\nkind: file\npath: x\n"):
        assert viewer.post("/segments/import", {"text": junk}).status_code == 422


def test_drafts_are_their_authors_own(house: House) -> None:
    editor, operator = Visitor(house, "editor"), Visitor(house, "operator")
    body = {"segment": "half", "when": {"all": []}}
    assert editor.post("/drafts", fields_of(read_segment(body))).status_code == 303
    page = editor.get("/segments").text
    key = page.split('href="/drafts/')[1].split('"')[0]
    assert "half" in page and write_segment(tree_of(Fields(editor.get(f"/drafts/{key}").text).found)).body == body
    assert key not in operator.get("/segments").text and operator.get(f"/drafts/{key}").status_code == 404
    assert operator.post(f"/drafts/{key}/delete").status_code == 303
    assert editor.get(f"/drafts/{key}").status_code == 200
    assert editor.get("/drafts/..%2F..%2Fusers").status_code == 404
    editor.post(f"/drafts/{key}/delete")
    assert editor.get(f"/drafts/{key}").status_code == 404


def _published(visitor: Visitor, page: Any, name: str, line: str) -> Any:
    """Add a line to the segment on a page, and publish it under a name."""
    fields = [one for one in Fields(page.text).found if not one[0].startswith("line:")]
    page = visitor.post("/builder", [*fields, ("line:n.0", line), ("do", "type:n.0")])
    assert page.status_code == 200, page.text
    fields = [(field, name if field == "n:name" else text) for field, text in Fields(page.text).found]
    return visitor.post("/segments/publish", fields)


def test_a_copy_that_takes_no_definitions_says_so_and_keeps_the_segment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    takes_no_definitions(monkeypatch)
    editor = Visitor(house, "editor")
    told = _published(editor, editor.get("/segments/new"), "mine", "plan is free")
    assert told.status_code == 409 and "apply it in v." in told.text and 'value="mine"' in told.text


def test_nobody_writes_over_what_they_have_not_seen(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    applies(house, monkeypatch)

    def in_force() -> Any:
        held = house.world.catalog.in_force(house.world.catalog.latest, "segment/vips")
        return held.version, held.body["when"]["all"]

    one, other = Visitor(house, "editor"), Visitor(house, "operator")
    assert _published(one, one.get("/segments/new"), "vips", "Page Viewed").status_code == 303

    # A new segment of a name that is taken.
    told = _published(other, other.get("/segments/new"), "vips", "plan is free")
    assert told.status_code == 412 and "version 1, by ui.editor" in told.text and in_force()[0] == 1

    # Two who have it open at once: who comes second is told, loses nothing, and publishes over it knowingly.
    open_here, open_there = one.get("/segments/vips/edit"), other.get("/segments/vips/edit")
    assert _published(one, open_here, "vips", "Order Completed").status_code == 303
    told = _published(other, open_there, "vips", "Cart Viewed")
    assert told.status_code == 412 and "version 2, by ui.editor" in told.text
    assert "Cart Viewed" in told.text and 'href="/segments/vips"' in told.text
    assert in_force() == (2, [{"performed": {"event": "Page Viewed"}}, {"performed": {"event": "Order Completed"}}])
    again = other.post("/segments/publish", Fields(told.text).found)
    assert again.status_code == 303
    assert in_force() == (3, [{"performed": {"event": "Page Viewed"}}, {"performed": {"event": "Cart Viewed"}}])

    # A draft remembers what it was made from; under another name it takes nobody's place.
    assert one.post("/drafts", Fields(one.get("/segments/vips/edit").text).found).status_code == 303
    draft = one.get("/drafts/" + one.get("/segments").text.split('href="/drafts/')[1].split('"')[0])
    assert _published(one, draft, "vips", "plan is free").status_code == 303 and in_force()[0] == 4
    assert _published(other, other.get("/segments/vips/edit"), "vips_too", "plan is free").status_code == 303
    told = _published(other, other.get("/segments/vips_too/edit"), "vips", "plan is free")
    assert told.status_code == 412 and in_force()[0] == 4


def test_a_segment_that_was_removed_keeps_its_history_and_can_be_had_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    applies(house, monkeypatch)
    editor = Visitor(house, "editor")
    assert _published(editor, editor.get("/segments/new"), "vips", "plan is free").status_code == 303
    answer = editor.post("/segments/vips/remove")
    assert answer.status_code == 303 and answer.headers["location"].startswith("/segments/vips?")
    page = editor.get("/segments/vips")
    assert page.status_code == 200 and "not in force" in page.text and 'href="/segments/vips/edit"' in page.text
    assert "/segments/vips/edit?version=1" in page.text and "Nobody is in it now" in page.text
    assert editor.get("/segments/vips", part="members").status_code == 200
    again = editor.post("/segments/publish", Fields(editor.get("/segments/vips/edit?version=1").text).found)
    assert again.status_code == 303
    assert house.world.catalog.in_force(house.world.catalog.latest, "segment/vips").version == 2


def test_the_api_writes_only_over_the_version_that_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    applies(house, monkeypatch)
    client = house.open_client("token-of-editor")
    text = "segment: vips\nwhen: {{performed: {{event: {}}}}}\n"
    assert client.apply_definitions(text.format("A"), over=0)["changes"][0]["after"] == 1
    with pytest.raises(ApiError, match="already: version 1") as told:
        client.apply_definitions(text.format("B"), over=0)
    assert told.value.status == 412
    assert client.apply_definitions(text.format("B"), over=1)["changes"][0]["after"] == 2
    with pytest.raises(ApiError, match="changed meanwhile: version 2 is in force, by ui"):
        client.apply_definitions(text.format("C"), dry_run=True, over=1)
