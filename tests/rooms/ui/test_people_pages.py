"""People: found by any identifier, with reasons; what a token hides is not on the page."""

import time
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from pipeline.records import Definition, Event, Generation, PrivacyReceipt, ReceiptEntry, Unlink, encode
from pipeline.ui.graph import Edge, picture
from tests.rooms.api.harness import ADA, enter, event, profile, retire, show
from tests.rooms.ui.house import House, Visitor
from tests.rooms.ui.town import hangs_together, settle

OLDER = "abcdefab-cdef-5abc-8def-abcdefabcdef"


@pytest.fixture
def house(tmp_path: Path) -> House:
    found = House(tmp_path)
    world = found.world
    ada = profile(ADA, "user_id:42", "email:ada@example.org", segments={"buyers": 1}, plan="<b>pro</b>")
    world.follower.read(
        [
            *show(world, ada),
            *retire(world, OLDER, ADA),
            *enter(world, "buyers", ADA),
            event(world, "user_id:42", 5, path="/pricing"),
        ]
    )
    for name in ("buyers", "others"):
        body = {"segment": name, "when": {"trait": {"plan": "pro"}}}
        world.catalog.add(f"segment/{name}/1".encode(), encode(Definition("segment", name, 1, body)))
    world.catalog.add(b"generation/1", encode(Generation(1, {"segment/buyers": 1, "segment/others": 1})))
    return found


@pytest.mark.parametrize("asked", ["ada@example.org", "ADA@example.org ", "42", "user_id:42", ADA, f" {OLDER.upper()}"])
def test_somebody_is_found_by_any_identifier(house: House, asked: str) -> None:
    answer = Visitor(house, "viewer").ask("GET", "/people", params={"q": asked})
    assert answer.status_code == 303 and answer.headers["location"] == f"/people/{ADA}"


@pytest.mark.parametrize("asked", ["nobody@example.org", "null", "x:y:z", "<script>", "a" * 2_000])
def test_nobody_is_found_and_that_is_told(house: House, asked: str) -> None:
    answer = Visitor(house, "viewer").ask("GET", "/people", params={"q": asked})
    assert answer.status_code == 200 and "Nobody is known" in answer.text and "<script>alert" not in answer.text


def test_a_profile_id_that_is_not_whole_is_told_so(house: House) -> None:
    viewer = Visitor(house, "viewer")
    assert "a profile_id must be whole" in viewer.ask("GET", "/people", params={"q": ADA[:-1]}).text
    assert "a profile_id must be whole" not in viewer.ask("GET", "/people", params={"q": "user_id:7"}).text
    page = viewer.get(f"/people/{ADA[:-1]}")
    assert page.status_code == 400 and "no identifier, and no profile_id" in page.text


@pytest.mark.parametrize("value", ["a/b", "</title>", "../x", "a?b#c"])
def test_a_page_by_an_identifier_with_a_slash_in_it(house: House, value: str) -> None:
    house.world.follower.read(show(house.world, profile(OLDER, f"path_id:{value}")))
    page = Visitor(house, "viewer").get(f"/people/path_id:{quote(value, safe='')}")
    assert page.status_code == 200 and f"<h1>{escape(value)}</h1>" in page.text


def test_the_page_has_what_is_known_and_why(house: House) -> None:
    page = Visitor(house, "viewer").get(f"/people/{ADA}?why=others").text
    for text in ("ada@example.org", "buyers", "Page Viewed", "/pricing", "&lt;b&gt;pro&lt;/b&gt;", "trait plan is pro"):
        assert text in page, text
    assert "<b>pro" not in page and "Unlink" not in page
    assert "Unlink" in Visitor(house, "operator").get(f"/people/{ADA}").text
    assert Visitor(house, "viewer").get("/people/user_id:7").status_code == 404


def test_a_text_that_reads_like_a_number_is_told_from_the_number(house: House) -> None:
    """Whoever asks why “age is 30” is not true of somebody sees that theirs is a text."""
    traits = {"age": "30", "children": 3, "pays": "true", "plan": "pro", "note": " ", "tags": ["3", 3]}
    house.world.follower.read(show(house.world, profile(ADA, "user_id:42", **traits)))
    body = {"segment": "others", "when": {"trait": {"age": 30}}}
    house.world.catalog.add(b"segment/others/1", encode(Definition("segment", "others", 1, body)))
    page = Visitor(house, "viewer").get(f"/people/{ADA}?why=others").text
    for name, shown in {
        "age": "“30”", "children": "3", "pays": "“true”", "plan": "pro", "note": "“ ”", "tags": "[&#34;3&#34;, 3]"
    }.items():  # fmt: skip
        assert f'<th scope="row">{name}</th><td class="value">{shown}</td>' in page, name
    assert "trait age is 30" in page and "· is “30”" in page


def test_somebody_of_whom_only_events_are_known_has_their_pages(house: House) -> None:
    world, other = house.world, ADA[:-1] + "0"
    nobody = profile(other, "user_id:7")
    nobody.totals = {}  # no trait, no consent, no total: the API says null for each
    world.follower.read([*show(world, nobody), *enter(world, "buyers", other), event(world, "user_id:7", 6)])
    visitor = Visitor(house, "operator")
    for answer in (visitor.get("/segments/buyers"), visitor.get("/segments/buyers", "members")):
        assert answer.status_code == 200 and f"/people/{other}" in answer.text
    answer = visitor.get(f"/people/{other}")
    assert answer.status_code == 200 and "Page Viewed" in answer.text


def test_an_operator_takes_a_link_back(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr("pipeline.api.writes.produce_all", lambda _, topic, records: told.append((topic, records)))
    monkeypatch.setattr("pipeline.api.writes.refuse_decisions", lambda _: None)
    fields = {"a": "email:ada@example.org", "b": "user_id:42"}
    assert Visitor(house, "operator").post(f"/people/{ADA}/unlink", fields).status_code == 303
    [(topic, [(_, value)])] = told
    assert topic == "identity-edges" and b"email:ada@example.org" in value and b"ui.operator" in value
    again = {"a": "email:ada@example.org", "b": "user_id:42"}
    assert Visitor(house, "operator").post(f"/people/{ADA}/relink", again).status_code == 303
    assert b'"relink"' in told[1][1][0][1]
    wrong = {"a": "user_id:42", "b": "user_id:42"}
    assert Visitor(house, "operator").post(f"/people/{ADA}/unlink", wrong).status_code == 422


def test_the_page_says_why_it_is_one_person(house: House) -> None:
    profile_id = hangs_together(_town(house))
    page = Visitor(house, "viewer").get(f"/people/{profile_id}").text
    for text in ("<svg", "5 links, 1 not followed", "device_id:kiosk-lobby", "it touches too many people", "shop/3"):
        assert text in page, text
    assert "Identify</a> from raw" in page and "<button data-sure" not in page
    operator = Visitor(house, "operator").get(f"/people/{profile_id}").text
    assert "Unlink user_id:1002" in operator and "to be forgotten" in operator


def test_a_link_that_was_taken_back_is_no_evidence_until_it_is_seen_again(house: House) -> None:
    """It stands among the evidence as long as they are one person by other links."""
    profile_id = hangs_together(_town(house))
    operator, ends = Visitor(house, "operator"), ("user_id:1002", "device_id:laptop-7")
    later = time.time_ns() // 1_000_000 + 60_000
    for taken_back in (Unlink(a=ends[1], b=ends[0], received=later), Unlink(a=ends[1], received=later, forever=True)):
        house.world.decisions[:] = [encode(taken_back)]
        page = operator.get(f"/people/{profile_id}").text
        # Of a device alone all links are taken back: that to the e-mail address too.
        gone = 1 if taken_back.b else 2
        assert f"{5 - gone} links, {1 + gone} not followed" in page
        assert page.count('<span class="tag">taken back</span>') == gone
        assert f"Unlink {ends[0]} and {ends[1]}" not in page and f"Unlink {ends[1]} and {ends[0]}" not in page
    house.world.decisions[:] = [encode(Unlink(a=ends[1], b=ends[0], received=later))]
    again = Event("again", "identify", "Identify", [*ends], later + 1, later + 1, "raw/0/99")
    house.world.follower.read([house.world.record("events", ends[0], encode(again), 1)])
    page = operator.get(f"/people/{profile_id}").text
    assert "5 links, 1 not followed" in page and '<span class="tag">taken back</span>' not in page


def _town(house: House) -> House:
    settle(house, 4)
    return house


def test_a_picture_escapes_what_it_shows() -> None:
    found = picture(["user_id:<b>", "email:a"], [Edge("user_id:<b>", "x:y", 3, False)], "<t>")
    assert "<b>" not in found and "<t>" not in found and found.count("<circle") == 3 and "refused" in found
    assert picture([], [], "nobody").count("<circle") == 0


def test_an_operator_makes_a_privacy_request_and_sees_its_receipt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(settings: Any, *what: Any) -> str:
        asked.append(what)
        return "20270115-4f1d0a9c3e"

    receipt = PrivacyReceipt("20270115-4f1d0a9c3e", "erase", "5d7d", 1_800_000_000_000, "working", "ui.operator")
    receipt.stores = [ReceiptEntry("state of unify", "done", 1_800_000_000_001, "gone")]
    held = {b"20270115-4f1d0a9c3e": encode(receipt)}
    monkeypatch.setattr("pipeline.api.privacy.ask", ask)
    monkeypatch.setattr("pipeline.api.privacy.current_values", lambda *_: held)
    operator = Visitor(house, "operator")
    fields = {"request": "rectify", "trait": "plan", "value": "free"}
    answer = operator.post(f"/people/{ADA}/privacy", fields)
    assert answer.headers["location"] == "/privacy/20270115-4f1d0a9c3e"
    assert asked == [("rectify", ADA, "ui.operator", {"plan": "free"}, False)]
    for part in ("", "receipt"):
        page = operator.get("/privacy/20270115-4f1d0a9c3e", part).text
        assert "working" in page and "state of unify" in page
    held.clear()
    assert "Nothing is known of it yet" in operator.get("/privacy/other").text
    for wrong in ({"request": "forget"}, {"request": "rectify"}):
        assert operator.post(f"/people/{ADA}/privacy", wrong).status_code == 422
    assert Visitor(house, "editor").post(f"/people/{ADA}/privacy", fields).status_code == 403
    assert len(asked) == 1
