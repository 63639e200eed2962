"""Operations: what is wrong stands on top, charts have numbers beside them, dead letters are mended and sent again."""

from typing import Any

import pytest

from pipeline.letters import Letter
from pipeline.records import DeadLetter, Marker, encode
from pipeline.replay.backfills import Backfill
from pipeline.ui.charts import Line, bars, lines, spark, top_of
from pipeline.ui.pages.operations import segment_growth
from tests.rooms.ui.house import House, Visitor
from tests.rooms.ui.town import settle, works

HOUR = 3_600_000


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    found = House(tmp_path_factory.mktemp("house"))
    settle(found, 20)
    works(found)
    return found


def test_everything_stands_on_the_page(house: House) -> None:
    page = Visitor(house, "viewer").get("/operations").text
    for text in (
        "unify", "Records done a second", "<svg", "half are faster", "not_json", "contract_violation:/properties/total",
        "shop/3", "9 dead letters in the last hour",
    ):  # fmt: skip
        assert text in page, text
    assert "All is well" not in page and "Send again" not in page
    assert "<h1>" not in Visitor(house, "viewer").get("/operations", "operations").text


def test_a_role_that_nobody_works_in_is_said(house: House) -> None:
    world = house.world
    world.kafka.members = {**world.kafka.members, "unify": 0}
    world.service.pulse.look()  # type: ignore[union-attr]
    assert "nobody works on them" in Visitor(house, "viewer").get("/operations").text
    world.kafka.members["unify"] = 2
    world.service.pulse.look()  # type: ignore[union-attr]


def test_dead_letters_are_seen_mended_and_sent_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    held = Letter(0, 2, DeadLetter("not_json", "The value <b>", "raw", 1, 5, 0, value=b"{no\nyes", key=b"k"))
    monkeypatch.setattr("pipeline.api.operating.named", lambda settings, ids: [held for _ in ids])
    monkeypatch.setattr("pipeline.letters.produce_all", lambda _, topic, records: sent.append(records) or len(records))
    viewer, operator = Visitor(house, "viewer"), Visitor(house, "operator")
    listed = viewer.get("/operations/dead-letters?reason=not_json").text
    assert "not_json" in listed and "422: the field" not in listed and "checkbox" not in listed
    assert "checkbox" in operator.get("/operations/dead-letters").text
    page = viewer.get("/operations/dead-letters/0/2").text
    assert "{no\nyes" in page and "textarea" not in page and "The value &lt;b&gt;" in page
    assert "textarea" in operator.get("/operations/dead-letters/0/2").text
    answer = operator.post("/operations/dead-letters/replay", [("id", "0/2"), ("id", "0/3")])
    assert answer.status_code == 303 and [one[1] for one in sent[0]] == [b"{no\nyes"] * 2
    mended = [("id", "0/2"), ("mended", "1"), ("value", "{}\r\n{}")]
    assert operator.post("/operations/dead-letters/replay", mended).status_code == 303
    assert sent[1][0][1] == b"{}\n{}"
    assert operator.post("/operations/dead-letters/replay", []).status_code == 422
    assert len(sent) == 2


def test_history_that_is_being_read_is_told(house: House) -> None:
    world = house.world
    world.follower.read([world.record("events", "x", encode(Marker(99, 1)), 1)])
    world.kafka.history = [Backfill(0, 98, 99, 99, 30, 120), Backfill(1, 99, 99)]
    for path in ("/operations",):
        page = Visitor(house, "viewer").get(path).text
        assert "Generation 99 is being put into force" in page and "30 of 120" in page and "partition 1" not in page


def test_sizes_are_worked_out_backwards() -> None:
    now = 50 * HOUR + 5
    hours = [{"at": 48 * HOUR, "entered": 6, "exited": 1}, {"at": 50 * HOUR, "entered": 0, "exited": 2}]
    found = segment_growth({"segment": "a", "size": 10, "hours": hours}, now, 1)
    assert (found["entered"], found["exited"], found["change"]) == (6, 3, 3)
    assert "from 7 to 10" in found["spark"] and found["days"][0][0] == "1970-01-03"


def test_charts_escape_and_hold_what_is_given() -> None:
    for chart in (bars([1, 3], ["<a>", "b"], "<t>"), lines([Line("<l>", [1, None, 3])], ["<a>", "b", "c"], "<t>")):
        assert "<a>" not in chart and "<t>" not in chart and "&lt;t&gt;" in chart
    assert lines([Line("a", [1, 2, None, 3, 4])], ["a"] * 5, "t").count("polyline") == 2
    assert [top_of(one) for one in (0, 0.3, 1, 7, 24, 26, 1_001)] == [1, 0.5, 1, 10, 25, 50, 2_000]
    assert "svg" in spark([], "nothing") and "svg" in bars([], [], "nothing")
