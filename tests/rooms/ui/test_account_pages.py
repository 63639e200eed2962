"""Accounts: found by name, with people, activity, segments and alerts; ranked; nothing of what a token may not see."""

import pytest

from pipeline.definitions.documents import read_documents
from pipeline.records import AccountAlert, Cause, encode
from pipeline.ui.forms import fields_of
from pipeline.ui.tree import read_segment
from tests.rooms.ui.house import House, Visitor
from tests.rooms.ui.town import applies, settle

WARM = """
segment: warm
entity: account
when:
  all:
    - members: {match: {performed: {event: Page Viewed, within: 30d}}, at_least: 2}
    - not: {trait: {plan: {equals: team}}}
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    found = House(tmp_path_factory.mktemp("house"))
    settle(found, 60, 8)
    return found


@pytest.fixture
def viewer(house: House, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    applies(house, monkeypatch)
    return Visitor(house, "viewer")


def test_accounts_are_found_by_name_and_have_their_page(house: House, viewer: Visitor) -> None:
    assert "acme.example" in viewer.get("/accounts").text
    assert "wayne.example" not in viewer.get("/accounts?q=acme").text
    assert "No account" in viewer.get("/accounts?q=<b>").text
    page = viewer.get("/accounts/of/acme.example").text
    people, _ = house.world.follower.model.people("acme.example", "", 100)
    assert f"account · {len(people)} people" in page and "<svg" in page and "owner" in page
    for person in people:
        assert f"/people/{person.profile_id}" in page
    assert viewer.get("/accounts/of/nobody").status_code == 404
    account_id = house.world.service.identifier("account:acme.example")
    assert viewer.get(f"/people/{account_id}").headers["location"] == "/accounts/of/acme.example"


def test_a_rule_about_accounts_is_tried_and_its_reasons_told(house: House, viewer: Visitor) -> None:
    tried = house.open_client("token-of-viewer").preview_segment(WARM)
    assert tried["all"] and tried["people"] == 8 and 0 < tried["matching"] < 8
    house.open_client("token-of-editor").apply_definitions(WARM)
    assert house.world.follower.model.size("warm") == tried["matching"]
    assert "/accounts/of/" in viewer.get("/segments/warm").text
    page = viewer.get("/accounts/of/acme.example?why=warm").text
    assert "people: count of Page Viewed within 30d" in page and "trait plan is team" in page
    assert "There is no such segment in force" in viewer.get("/accounts/of/acme.example?why=nothing_such").text


def test_what_a_rule_about_accounts_would_hold_is_counted_in_accounts(viewer: Visitor) -> None:
    fields = fields_of(read_segment(read_documents(WARM)[0].value))
    page = " ".join(viewer.post("/builder/meaning", fields, part="meaning").text.split())
    assert "of 8 accounts</p>" in page and "Tried on 8 accounts;" in page and "people;" not in page


def test_the_ranking_leaves_out_who_pays(house: House, viewer: Visitor) -> None:
    page = viewer.get("/accounts/ranking?trait=plan&among=free,trial").text
    model = house.world.follower.model
    documents = {name: house.open_client("token-of-viewer").get_account(name) for name, _ in model.accounts("", "", 99)}
    paying = {name for name, one in documents.items() if one and one["account"]["traits"]["plan"] == "team"}
    assert paying and not any(f"/accounts/of/{name}" in page for name in paying)
    assert any(f"/accounts/of/{name}" in page for name in set(documents) - paying)
    assert viewer.get("/accounts/ranking?among=free").status_code == 200


def test_alerts_stand_on_both_pages(house: House, viewer: Visitor) -> None:
    account_id = house.world.service.identifier("account:acme.example")
    alert = AccountAlert(
        "a1", "call_them", "acme.example", account_id, "kim", "warm", 1, 5, 5, 1, "event", Cause(), "<b>Call</b>"
    )
    house.world.follower.read([house.world.record("account-alerts", account_id, encode(alert))])
    for path in ("/accounts", "/accounts/of/acme.example"):
        page = viewer.get(path).text
        assert "call_them" in page and "&lt;b&gt;Call" in page and "for kim" in page
