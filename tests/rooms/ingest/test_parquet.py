"""Parquet files as raw records, and how a long file goes on after an interruption."""

import datetime
import decimal
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.sources.files import CsvMapping, inspect_file, read_rows
from pipeline.sources.progress import FileProgress

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def written(folder: Path, **columns: Any) -> Path:
    path = folder / "events.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    return path


def rows(path: Path, mapping: CsvMapping | None = None) -> list[dict[str, Any]]:
    facts = inspect_file(path, mapping)
    found = [json.loads(row.value) for row in read_rows(path, facts, mapping)]
    assert len(found) == facts.rows
    return found


def test_columns_go_where_those_of_a_csv_file_go_and_keep_their_types(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        userId=["u1", "u2"],
        timestamp=[datetime.datetime(2020, 1, 2, 3, 4, 5, 678_000), None],  # noqa: DTZ001 - a column without a zone
        amount=[decimal.Decimal("12.50"), decimal.Decimal("7")],
        code=["007", None],
        properties=[{"path": "/a", "tags": ["x", "y"]}, None],
    )
    orders = CsvMapping(event="Order Completed")
    first, second = rows(path, orders)
    facts = inspect_file(path, orders)
    assert facts.digest != inspect_file(path).digest, "read as something else it is another file"
    assert first == {
        "type": "track",
        "event": "Order Completed",
        "userId": "u1",
        "timestamp": "2020-01-02T03:04:05.678000+00:00",
        "properties": {"path": "/a", "tags": ["x", "y"], "amount": 12.5, "code": "007"},
        "messageId": f"{facts.digest}/1",
    }
    assert second["properties"] == {"amount": 7}
    assert second["messageId"] == f"{facts.digest}/2"
    assert "timestamp" not in second


@pytest.mark.parametrize("cell", ['{"plan": "pro"}', {"plan": "pro"}])
def test_an_object_may_be_a_struct_or_a_text(tmp_path: Path, cell: object) -> None:
    path = written(tmp_path, type=["identify"], userId=["u1"], traits=[cell], city=["Gent"])
    assert rows(path)[0]["traits"] == {"plan": "pro", "city": "Gent"}


def test_what_it_cannot_use_it_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds binary"):
        rows(written(tmp_path, userId=["u1"], blob=[b"1"]))
    with pytest.raises(InputError, match="properties is no object"):
        rows(written(tmp_path, userId=["u1"], properties=["[1]"]))
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"not parquet")
    with pytest.raises(InputError, match="no Parquet file"):
        rows(broken)


DURATION = datetime.timedelta(seconds=5)


@pytest.mark.parametrize(
    "cells", [[b"x"], [DURATION], [[b"x"]], [{"deep": [{"er": DURATION}]}]], ids=["bytes", "duration", "list", "struct"]
)
def test_a_column_that_json_has_nothing_for_is_named_before_anything_is_sent(tmp_path: Path, cells: list[Any]) -> None:
    path = written(tmp_path, userId=["u", "v"], photo=[None, *cells])
    with pytest.raises(InputError, match="The column photo holds") as told:
        inspect_file(path)
    assert "photo=" in (told.value.what_to_do or "")
    assert len(rows(path, CsvMapping(fields={"photo": ""}))) == 2
    with pytest.raises(InputError, match="The column traits holds"):
        inspect_file(written(tmp_path, userId=["u"], traits=[{"photo": cells[0]}]))


def test_a_damaged_file_is_told_wherever_the_damage_is(tmp_path: Path) -> None:
    path = written(tmp_path, userId=["u1", "u2", "u1"], total=[1.5, 2.5, 3.5])
    whole, told = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            list(read_rows(path, inspect_file(path)))
        except InputError:
            told += 1
    assert told > len(whole) / 10


def test_times_with_nanoseconds_are_read_wherever_they_stand(tmp_path: Path) -> None:
    """As pandas writes them. Python has microseconds."""
    at, ns = 1_700_000_000_123_456_789, pyarrow.timestamp("ns", "UTC")
    path = written(
        tmp_path,
        userId=["u1"],
        timestamp=pyarrow.array([at], ns),
        opens=pyarrow.array([3_723_000_000_001], pyarrow.time64("ns")),
        properties=pyarrow.array(
            [{"seen": at, "all": [at, None], "by": [("a", at)], "n": 1}],
            pyarrow.struct(
                [("seen", ns), ("all", pyarrow.list_(ns)), ("by", pyarrow.map_(pyarrow.string(), ns)), ("n", "int64")]
            ),
        ),
    )
    [event] = rows(path, CsvMapping(event="Opened"))
    told = "2023-11-14T22:13:20.123456+00:00"
    assert event["timestamp"] == told
    assert event["properties"] == {
        "seen": told, "all": [told, None], "by": [["a", told]], "n": 1, "opens": "01:02:03",
    }  # fmt: skip


def test_a_time_that_python_has_not_is_told_and_may_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, userId=["u1"], ends=pyarrow.array([2**60], pyarrow.timestamp("ms")))
    with pytest.raises(InputError, match="ends holds"):
        rows(path)
    [event] = rows(path, CsvMapping(event="E", fields={"ends": ""}))
    assert event["userId"] == "u1" and "properties" not in event


def test_a_column_that_leads_into_a_text_and_a_zone_nobody_knows_are_told(tmp_path: Path) -> None:
    into = written(tmp_path, userId=["u1"], context=['{"page": "/a"}'], **{"context.page.url": ["/b"]})
    with pytest.raises(InputError, match=r"context\.page\.url leads into page, which is no object"):
        rows(into)
    unknown = written(tmp_path, userId=["u1"], at=pyarrow.array([1], pyarrow.timestamp("us", "Nowhere/City")))
    with pytest.raises(InputError, match="The column at holds"):
        rows(unknown)


def test_an_interrupted_file_goes_on_behind_its_last_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.progress.PART_ROWS", 3)
    path = written(tmp_path, userId=[f"u{number}" for number in range(8)])
    facts = inspect_file(path)
    progress = FileProgress(tmp_path, facts.digest, "raw")
    parts = progress.parts(read_rows(path, facts), 0)
    for done in (3, 6):
        assert len(list(next(parts))) == 3
        progress.keep(done)
    again = FileProgress(tmp_path, facts.digest, "raw")
    assert again.rows == 6
    assert [[row.line for row in part] for part in again.parts(read_rows(path, facts), again.rows)] == [[7, 8]]
    assert FileProgress(tmp_path, facts.digest, "other").rows == 0
    again.end()
    assert FileProgress(tmp_path, facts.digest, "raw").rows == 0
