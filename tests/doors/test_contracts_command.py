"""`headwater contracts infer` and `check`, on files: what CI runs."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import build
from pipeline.contracts import check, infer
from pipeline.definitions.contracts import compile_contracts
from pipeline.definitions.loader import load_text
from pipeline.records import Event, encode
from pipeline.runtime.ports import Record

APP = build(["contracts"])


def run(*words: str, columns: int = 200) -> tuple[int, str]:
    done = CliRunner().invoke(APP, ["contracts", *words], env={"COLUMNS": str(columns)})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def track(number: int, **properties: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Order Completed", "userId": f"u-{number}", "properties": properties}


def order(number: int) -> dict[str, Any]:
    more = {"coupon": "x"} if number % 2 else {}
    return track(number, total=number + 0.5, items=number, mail=f"a{number}@example.org", tags=["a"], **more)


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A file of thirty good orders, and the contract inferred from it."""
    good = tmp_path / "good.jsonl"
    good.write_text("".join(json.dumps(order(number)) + "\n" for number in range(30)))
    code, text = run("infer", "--events", str(good), "--name", "shop")
    assert code == 0
    contract = tmp_path / "shop.yaml"
    contract.write_text(text)
    return good, contract


@pytest.mark.parametrize(
    ("source", "name"), [("/crm.public.Customers", "crm.public.customers"), ("web", "web"), ("/42", "inferred")]
)
def test_what_is_inferred_of_a_source_can_be_applied(tmp_path: Path, source: str, name: str) -> None:
    events, contract = tmp_path / "events.jsonl", tmp_path / "contract.yaml"
    events.write_text("".join(json.dumps({**order(1), "event": event}) + "\n" for event in ("Order Completed", "*")))
    code, text = run("infer", "--events", str(events), "--source", source)
    assert code == 0 and yaml.safe_load(text)["contract"] == name
    contract.write_text(text)
    assert run("check", str(contract), "--events", str(events), "--source", source)[0] == 0


def test_what_is_inferred_is_what_all_had_in_common(files: tuple[Path, Path]) -> None:
    body = yaml.safe_load(files[1].read_text())
    assert body == {
        "contract": "shop",
        "on_violation": "flag",
        "unplanned_events": "flag",
        "unplanned_properties": "flag",
        "events": {
            "Order Completed": {
                "required": ["items", "mail", "tags", "total"],
                "properties": {
                    "coupon": {"type": "string"},
                    "items": {"type": "integer"},
                    "mail": {"type": "string", "format": "email"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "total": {"type": "number"},
                },
            }
        },
    }


def test_a_good_file_passes(files: tuple[Path, Path]) -> None:
    good, contract = files
    assert run("check", str(contract), "--events", str(good)) == (0, "30 events, 0 not as their contract says\n")
    assert run("check", str(contract))[0] == 0


def test_a_bad_file_fails_with_what_where_and_how_often(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, contract = files
    bad = tmp_path / "bad.jsonl"
    wrong = [order(1), {**order(2), "event": "Dance"}, track(3, total="x", items=1, mail="m@x.org", tags=[]), {"a": 1}]
    bad.write_text("".join(json.dumps(event) + "\n" for event in (*wrong, wrong[2])))
    code, told = run("check", str(contract), "--events", str(bad))
    assert code == 1 and "5 events, 4 not as their contract says" in told
    [line] = [line for line in told.splitlines() if "/properties/total" in line]
    assert line.split()[:5] == ["Order", "Completed", "/properties/total", "type", "2"]
    assert "unplanned_event" in told and "unknown_type" in told


def test_the_field_is_told_whole_where_lines_are_short(files: tuple[Path, Path], tmp_path: Path) -> None:
    """As in CI, where no terminal says how wide it is."""
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({**order(1), "properties": {**order(1)["properties"], "receipt_address": 1}}) + "\n")
    code, told = run("check", str(files[1]), "--events", str(bad), columns=80)
    heading, *lines = told.splitlines()[:-1]
    field = slice(heading.index("field"), heading.index("rule"))
    assert code == 1 and "".join(line[field].strip() for line in lines) == "/properties/receipt_address"


def test_sources_are_told_apart(files: tuple[Path, Path], tmp_path: Path) -> None:
    contract = tmp_path / "web.yaml"
    contract.write_text(files[1].read_text() + "sources: [web]\n")
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps(track(1, total="x")) + "\n")
    assert run("check", str(contract), "--events", str(bad), "--source", "billing")[0] == 0
    assert run("check", str(contract), "--events", str(bad), "--source", "web")[0] == 1


def test_a_topic_outside_of_the_workspace_is_known_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As contracts, cleaning and `headwater sources` know it."""

    class Topic:
        def __init__(self, *_: Any) -> None: ...
        def __enter__(self) -> "Topic":
            return self

        def __exit__(self, *_: object) -> None: ...
        def read_to_end(self) -> list[Record]:
            places = (("", "/crm.orders/0/7"), ("", "raw/0/1"), ("web", "/crm.orders/0/8"))
            events = [
                Event("m", "track", f"E{n}", ["user_id:a"], 1, 1, at, {"n": n}, origin=origin)
                for n, (origin, at) in enumerate(places)
            ]
            return [Record("events", 0, n, None, encode(event)) for n, event in enumerate(events)]

    monkeypatch.setattr("pipeline.cli.contracts.TopicReader", Topic)
    monkeypatch.setattr("pipeline.cli.contracts.find_kafka", lambda settings: settings)
    for source, seen in (("crm.orders", ["E0"]), ("/crm.orders", ["E0"]), ("raw", ["E1"]), ("web", ["E2"])):
        code, text = run("infer", "--source", source)
        assert code == 0 and list(yaml.safe_load(text)["events"]) == seen


LOOKS_LIKE: list[list[Any]] = [
    ["2026-03-01 12:00:00+00:00"],  # Python's own form of a time: no T
    ["2026-03-01", "0000-00-00"],
    ["2026-02-30"],
    ["2026-03-01T12:00:00Z", "2026-13-45T00:00:00Z"],
    ["ada@example.org", "a..b@example.org"],
    ["\u00e4@example.org"],
]


@pytest.mark.parametrize("values", LOOKS_LIKE, ids=str)
def test_what_is_inferred_lets_through_all_that_was_seen(values: list[Any]) -> None:
    events = [("E", {"p": value, "in": [{"x": value}]}, {"t": value}) for value in values * 25]
    [contract] = compile_contracts({"x": (1, infer("x", events))}).contracts
    for name, properties, traits in events:
        assert check(contract, name, {"properties": properties, "traits": traits, "context": {}}).violations == ()


def test_inference_is_bounded_and_what_it_says_is_valid() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"x": deep}
    wide = {f"p{number}": number for number in range(2_000)}
    body = infer("wild", [("E", {"deep": deep}, {}), ("F", wide, {"t": None}), ("F", {"mixed": [1, "a", None]}, {})])
    [written] = load_text(json.dumps(body))
    assert written.body["events"]["F"]["unplanned_properties"] == "allow"
    assert len(written.body["events"]["F"]["properties"]) == 500
