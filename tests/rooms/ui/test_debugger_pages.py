"""The debugger: what comes just now, and an event, or a person, followed through every room."""

from pathlib import Path

import pytest

from pipeline.api.trace import Effects
from tests.rooms.ui.house import House, Visitor
from tests.rooms.ui.town import settle, traces


def test_an_event_is_followed_from_the_record_to_its_deliveries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    settle(house, 10)
    address = traces(house, monkeypatch)
    viewer = Visitor(house, "viewer")
    assert address in viewer.get("/debugger?q=user_id:1001").text
    page = viewer.get(address).text
    for text in (
        " /Docs", "properties.path", "shop/3", "contract_violation:/properties/total", "user_id:1001", "its route",
        "lookers", "entered", "handed over", "given up", "refused: 422",
    ):  # fmt: skip
        assert text in page, text


def test_where_much_has_happened_since_it_is_read_longer_if_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path)
    settle(house, 10)
    address = traces(house, monkeypatch)
    asked: list[float] = []

    def effects(*given: object) -> Effects:
        longest_s = given[-1]
        assert isinstance(longest_s, float)
        asked.append(longest_s)
        return Effects([], [], [], longest_s > 1)

    monkeypatch.setattr("pipeline.api.tracing.effects", effects)
    viewer = Visitor(house, "viewer")
    assert 'href="?longer=1">Read longer' in viewer.get(address).text
    assert "Read longer" not in viewer.get(f"{address}?longer=1").text
    assert asked[0] < 0.5 and asked[1] >= 3, asked


def test_what_came_is_listed_and_found_by_its_message(tmp_path: Path) -> None:
    house = House(tmp_path)
    settle(house, 5)
    viewer = Visitor(house, "viewer")
    newest = house.world.follower.visible.newest.tail(1)[0]
    for page in (viewer.get("/debugger").text, viewer.get("/debugger", "newest").text):
        assert f"/debugger/{newest.partition}/{newest.offset}" in page
    answer = viewer.get(f"/debugger?q={newest.message_id}")
    assert answer.headers["location"] == f"/debugger/{newest.partition}/{newest.offset}"
    assert "&lt;b&gt;" in viewer.get("/debugger?q=<b>").text
    for address in ("/debugger/x/1", "/debugger/0/99999999999999999999999999"):
        assert viewer.get(address).status_code == 404
