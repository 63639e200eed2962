"""Files as raw records: what a line becomes, and that ingest takes it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.identity import builtin_rules
from pipeline.ingest import Emit, ingest
from pipeline.runtime.ports import Record
from pipeline.sources import CsvMapping, Row, inspect_file, read_rows

NOW_MS = 1_740_830_400_000


def rows_of(path: Path, content: str | bytes, mapping: CsvMapping | None = None) -> list[Row]:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    facts = inspect_file(path, mapping)
    rows = list(read_rows(path, facts, mapping))
    assert len(rows) == facts.rows
    return rows


def events_of(rows: list[Row]) -> list[dict[str, Any]]:
    return [json.loads(row.value) for row in rows]


def test_json_lines_pass_byte_by_byte(tmp_path: Path) -> None:
    line = b'{"messageId": "m1",  "type":"track","userId":"ann", "n": 1.10}'
    rows = rows_of(tmp_path / "a.jsonl", line + b"\n\n  \r\nnot json\r\n" + b"\xff\n[1]")
    assert rows == [Row(1, b"ann", line), Row(4, None, b"not json"), Row(5, None, b"\xff"), Row(6, None, b"[1]")]


def test_a_line_without_a_message_id_gets_the_files_hash_and_its_line(tmp_path: Path) -> None:
    content = '{"userId":"ann","x":1.10}\n{}\n{"messageId":null,"anonymousId":"a"}\n'
    rows = rows_of(tmp_path / "a.jsonl", content)
    digest = inspect_file(tmp_path / "a.jsonl").digest
    assert [one["messageId"] for one in events_of(rows)] == [f"{digest}/1", f"{digest}/2", f"{digest}/3"]
    assert rows[0].value.endswith(b'"x":1.10}')
    assert [row.key for row in rows] == [b"ann", None, b"a"]
    # The same content, packed, is the same file: producing it again adds nothing.
    assert rows_of(tmp_path / "b.jsonl.gz", content) == rows
    assert rows_of(tmp_path / "c.jsonl", content + "\n") != rows


def test_a_column_goes_where_its_head_says(tmp_path: Path) -> None:
    content = "type,event,userId,timestamp,properties.total,coupon,identifiers.card,context.page.path\n"
    content += "track,Order Completed,00001,2025-01-01,12.50,SPRING,0012,/\n"
    [row] = rows_of(tmp_path / "a.csv", content)
    event = events_of([row])[0]
    assert event.pop("messageId").endswith("/2")
    assert event == {
        "type": "track",
        "event": "Order Completed",
        "userId": "00001",
        "timestamp": "2025-01-01",
        "properties": {"total": 12.5, "coupon": "SPRING"},
        "identifiers": {"card": "0012"},
        "context": {"page": {"path": "/"}},
    }
    assert (row.line, row.key) == (2, b"00001")
    outcome = ingest(Record("raw", 0, 0, row.key, row.value), NOW_MS, builtin_rules())
    assert isinstance(outcome, Emit) and outcome.event.identifiers == ["user_id:00001", "card:0012"]


def test_a_mapping_names_what_the_file_does_not(tmp_path: Path) -> None:
    fields = {"customer_id": "userId", "date": "timestamp", "cds": "properties.quantity", "secret": ""}
    mapping = CsvMapping(event="Order Completed", fields=fields, delimiter=";")
    [row] = rows_of(tmp_path / "a.csv.gz", "customer_id;date;cds;dollars;secret\r\n7;1997-01-01;1;11.77;x\r\n", mapping)
    event = events_of([row])[0]
    assert (event["type"], event["event"], event["userId"], event["timestamp"]) == (
        "track",
        "Order Completed",
        "7",
        "1997-01-01",
    )
    assert event["properties"] == {"quantity": 1, "dollars": 11.77}


CELLS: list[tuple[str, Any]] = [
    ("3", 3),
    ("-3", -3),
    ("0", 0),
    ("3.50", 3.5),
    ("007", "007"),
    ("1e5", "1e5"),
    ("12e4567", "12e4567"),
    ("1234567890123456789", "1234567890123456789"),
    ("true", True),
    ("True", "True"),
    (" 3", " 3"),
    ("NaN", "NaN"),
    ('"a,b\nc"', "a,b\nc"),
    ('"say ""hi"""', 'say "hi"'),
]


@pytest.mark.parametrize(("cell", "value"), CELLS)
def test_cells(tmp_path: Path, cell: str, value: Any) -> None:
    [event] = events_of(rows_of(tmp_path / "a.csv", f"userId,x\nann,{cell}\n"))
    assert event["properties"]["x"] == value
    assert type(event["properties"]["x"]) is type(value)


def test_an_empty_cell_is_absent_and_identify_takes_traits(tmp_path: Path) -> None:
    content = "\ufefftype\tuserId\tcity\tage\nidentify\tann\tUlm\t\n"
    [event] = events_of(rows_of(tmp_path / "a.tsv", content))
    assert (event["traits"], "properties" in event) == ({"city": "Ulm"}, False)


BROKEN: list[tuple[bytes, CsvMapping, str]] = [
    (b"", CsvMapping(), "empty"),
    (b"a,,b\n", CsvMapping(), "no name"),
    (b"a,a\n", CsvMapping(), "'a' twice"),
    (b"a,b\n1,2\n1\n", CsvMapping(), "Line 3 has 1 columns, the head has 2"),
    (b'a,b\n1,"2\n', CsvMapping(), "is not CSV"),
    (b"a,b\n1,2\n1,\xff\n", CsvMapping(), "Line 3 is not UTF-8"),
    (b"a,b\n", CsvMapping(fields={"c": "userId"}), "no column 'c'"),
    (b"a,b\n", CsvMapping(fields={"a": "user"}), "'user' is no path"),
    (b"a,b\n", CsvMapping(fields={"a": "userId", "b": "userId"}), "same place"),
    (b"a,traits.a\n", CsvMapping("identify"), "same place: traits.a and traits.a"),
    (b"type,a,traits.a\n", CsvMapping(), "same place: traits.a and traits.a"),
    (b"a,a-b,a.b\n", CsvMapping(), "same place: properties.a and properties.a.b"),
    (b"userId;total\nann;1\n", CsvMapping(), "a single column, 'userId;total'"),
    (b"userId\ttotal\nann\t1\n", CsvMapping(), "a single column"),
    (b"userId,total\nann,1\n", CsvMapping(delimiter=";"), "a single column"),
    (b"a||b\n", CsvMapping(delimiter="||"), "'||' cannot part cells"),
    (b"a,b\n", CsvMapping(delimiter=""), "'' cannot part cells"),
    (b"a,b\n", CsvMapping(delimiter='"'), "'\"' cannot part cells"),
]


@pytest.mark.parametrize(("content", "mapping", "told"), BROKEN)
def test_a_broken_csv_file_is_refused_before_anything_is_sent(
    tmp_path: Path, content: bytes, mapping: CsvMapping, told: str
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        inspect_file(path, mapping)
    assert told in caught.value.what
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("head", "mapping"),
    [
        ('"customer, id"', CsvMapping()),
        ('"customer, id"', CsvMapping(fields={"customer, id": "userId"})),
        ("customer; id", CsvMapping(fields={"customer; id": "userId"})),
    ],
)
def test_a_single_column_may_have_a_delimiter_in_its_quoted_or_mapped_head(
    tmp_path: Path, head: str, mapping: CsvMapping
) -> None:
    assert len(rows_of(tmp_path / "a.csv", f"{head}\nann\nbob\n", mapping)) == 2


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    line = b'{"type":"track","event":"E","userId":"a"}'
    first, second = rows_of(tmp_path / "marked.jsonl", b"\xef\xbb\xbf" + line + b"\n" + line)
    assert (first.key, second.key) == (b"a", b"a")
    assert first.value.endswith(line[1:]) and b"/1" in first.value, "produced again it is told as a duplicate"
    assert len(rows_of(tmp_path / "blank.jsonl", b"\xef\xbb\xbf\n" + line)) == 1


def test_files_put_behind_each_other_have_byte_order_marks_within(tmp_path: Path) -> None:
    line = b'{"type":"track","event":"E","userId":"a"}\n'
    rows = rows_of(tmp_path / "joined.jsonl", (b"\xef\xbb\xbf" + line) * 2 + b"\xef\xbb\xbf\n")
    assert [(row.line, json.loads(row.value)["userId"]) for row in rows] == [(1, "a"), (2, "a")]
    assert inspect_file(tmp_path / "joined.jsonl").rows == 2


def test_a_file_that_is_read_as_something_else_is_another_file(tmp_path: Path) -> None:
    """Else the second reading of it would be told as duplicates of the first."""
    content = "userId,plan\nann,free\n"
    readings = [CsvMapping(), CsvMapping("identify"), CsvMapping(event="Signed Up"), CsvMapping(event="Left")]
    readings += [CsvMapping(fields={"plan": "properties.tariff"})]
    found = [events_of(rows_of(tmp_path / "a.csv", content, each))[0]["messageId"] for each in (*readings, *readings)]
    assert found[:5] == found[5:] and len(set(found)) == 5
    assert len({inspect_file(tmp_path / "a.csv", each).digest for each in readings}) == 5, (
        "nor is its progress that one's"
    )


def test_a_line_with_half_of_a_surrogate_pair_is_an_event_like_any_other(tmp_path: Path) -> None:
    [row] = rows_of(tmp_path / "a.jsonl", b'{"userId":"ann","x":"\\ud83d"}\n')
    assert row.key == b"ann" and b'/1","userId"' in row.value, "produced again it is told as a duplicate"


def test_the_type_of_a_row_counts_whatever_its_column_is_called(tmp_path: Path) -> None:
    content = "kind,userId,plan\nidentify,a,pro\ntrack,b,free\n"
    mapping = CsvMapping(event="E", fields={"kind": "type"})
    first, second = events_of(rows_of(tmp_path / "kinds.csv", content, mapping))
    assert (first["type"], first["traits"]) == ("identify", {"plan": "pro"})
    assert (second["type"], second["properties"]) == ("track", {"plan": "free"})
    [left_out] = events_of(
        rows_of(tmp_path / "left.csv", "type,userId,plan\nidentify,a,pro\n", CsvMapping(event="E", fields={"type": ""}))
    )
    assert (left_out["type"], left_out["properties"]) == ("track", {"plan": "pro"})


def test_a_long_cell_is_a_cell(tmp_path: Path) -> None:
    long = "x" * 200_000
    [event] = events_of(rows_of(tmp_path / "long.csv", f"userId,note\na,{long}\n", CsvMapping(event="E")))
    assert event["properties"]["note"] == long


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        inspect_file(tmp_path / "missing.jsonl")
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(b'{"userId":"ann"}\n' * 1_000)[:40])
    with pytest.raises(InputError, match="breaks off"):
        inspect_file(torn)
    packed = bytearray(gzip.compress(b'{"userId":"ann"}\n' * 1_000))
    packed[12:40] = b"\xff" * 28
    torn.write_bytes(packed)
    with pytest.raises(InputError, match="breaks off"):
        inspect_file(torn)
    (tmp_path / "plain.csv.gz").write_bytes(b"a,b\n")
    with pytest.raises(InputError, match="breaks off"):
        inspect_file(tmp_path / "plain.csv.gz")
    (tmp_path / "long.jsonl").write_bytes(b"x" * 9_000_000)
    with pytest.raises(InputError, match="longer than"):
        inspect_file(tmp_path / "long.jsonl")
