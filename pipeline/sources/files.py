"""JSON lines and CSV files, plain or gzipped, and Parquet files, as raw records.

A row without a messageId gets one: the hash of the file's content, and of what its columns were said to be, and the
number of its line. So producing the same file twice adds nothing within the time in which duplicates are told; but one
that was first read as customers, and then as what they signed up for, is two files.

A line of JSON is passed on byte by byte, even if it is none: ingest says what is wrong with it. A column of a CSV file
whose head is a path of the tracking spec (`userId`, `timestamp`, `properties.total`) goes there; any other becomes a
property (for an identify call, a trait). A cell that is a plain number or true or false becomes one, except in ids
and times; one with leading zeros stays a text, and an empty one is absent. A byte order mark is no part of a file.
"""

import codecs
import csv
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import msgspec

from pipeline.errors import InputError
from pipeline.ingest import MAX_RAW_BYTES, forgiving

MAX_LINE_BYTES = 8 * 1024 * 1024
KEPT_BYTES = 2 * MAX_RAW_BYTES
"""Of a value that is larger than ingest takes, so much is kept: enough to be refused, and found in the dead letters."""
KEPT_KEY_BYTES = 512

_SPEC_FIELDS = frozenset(
    {
        "type", "event", "messageId", "userId", "anonymousId", "previousId", "groupId", "timestamp",
        "originalTimestamp", "sentAt", "receivedAt", "name", "category",
    }
)  # fmt: skip
_SPEC_OBJECTS = ("properties.", "traits.", "context.", "identifiers.")
# No exponent: an order number like 12e345 is no number.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Row(NamedTuple):
    """One raw record of a file: its line (from 1), a key (the person, where one is named) and the value."""

    line: int
    key: bytes | None
    value: bytes


class FileFacts(NamedTuple):
    """What a first reading found: the hash of the content (32 hex characters) and the number of rows."""

    digest: str
    rows: int


# What spreadsheets put between cells, by their language; and how it is written in a command.
_DELIMITERS = {";": ";", "\t": "\\t", "|": "|", ",": ","}


@dataclass(frozen=True, slots=True)
class CsvMapping:
    """How columns become fields. `type` and `event` hold for rows that name none; `fields` maps a column's head to a
    path of the tracking spec, "" to leave it out."""

    type: str = "track"
    event: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    delimiter: str = ","


def is_parquet(path: Path) -> bool:
    """Whether a file is read as Parquet, by its name."""
    return path.name.lower().endswith((".parquet", ".pq"))


def is_csv(path: Path) -> bool:
    """Whether a file is read as CSV, by its name; what is neither this nor Parquet is read as JSON lines."""
    return path.name.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def inspect_file(path: Path, mapping: CsvMapping | None = None) -> FileFacts:
    """Read a file once, before anything is sent.

    Raises:
        InputError: it cannot be read, or it is a CSV file whose form is broken: says the line.
    """
    if is_parquet(path):
        from pipeline.sources.parquet import inspect_parquet

        return inspect_parquet(path, mapping or CsvMapping())
    digest = hashlib.blake2b(digest_size=16)
    rows = 0
    with _open(path) as file:
        for line in _lines(file, path):
            digest.update(line)
            rows += bool(_bare(line))
    if is_csv(path):
        mapping = mapping or CsvMapping()
        rows = sum(1 for _ in _cells(path, mapping))
        digest.update(said(mapping))
    return FileFacts(digest.hexdigest(), rows)


def read_rows(path: Path, facts: FileFacts, mapping: CsvMapping | None = None) -> Iterator[Row]:
    """The rows of a file that was inspected, in order.

    Raises:
        InputError: as `inspect_file`.
    """
    if is_parquet(path):
        from pipeline.sources.parquet import parquet_rows

        return parquet_rows(path, facts, mapping or CsvMapping())
    return _csv_rows(path, facts, mapping or CsvMapping()) if is_csv(path) else _json_rows(path, facts)


def said(mapping: CsvMapping) -> bytes:
    """A mapping, as the ids of rows go by it: nothing where nothing was said."""
    if mapping == CsvMapping():
        return b""
    return _encode([mapping.type, mapping.event, sorted(mapping.fields.items()), mapping.delimiter])


def _open(path: Path) -> BinaryIO:
    try:
        return cast(BinaryIO, gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb"))
    except OSError as error:
        what_to_do = "write its path as seen from this folder; it must be a file that you may read"
        raise InputError(f"The file cannot be read: {error.strerror}.", str(path.absolute()), what_to_do) from error


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    number = 0
    try:
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > MAX_LINE_BYTES:
                what_to_do = "Is it JSON lines, with one object per line?"
                raise InputError(f"Line {number} is longer than {MAX_LINE_BYTES:,} bytes", str(path), what_to_do)
            yield line
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"The file breaks off after line {number}: {error}", str(path)) from error


def _bare(line: bytes) -> bytes:
    """A line of JSON without what surrounds it. Files put behind each other have byte order marks within."""
    return line.strip().removeprefix(codecs.BOM_UTF8).strip()


def _json_rows(path: Path, facts: FileFacts) -> Iterator[Row]:
    with _open(path) as file:
        for number, line in enumerate(_lines(file, path), start=1):
            value = _bare(line)
            if not value:
                continue
            try:
                event = forgiving(_decode, value)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                event = None
            if not isinstance(event, dict):
                yield Row(number, None, value)
                continue
            if event.get("messageId") is None:
                # In front: of two equal keys the last one counts, so a null that stands there must go.
                if "messageId" in event:
                    value = _encode({**event, "messageId": f"{facts.digest}/{number}"})
                else:
                    comma = b"," if event else b""
                    value = b'{"messageId":"%s/%d"%s%s' % (facts.digest.encode(), number, comma, value[1:])
            yield Row(number, key_of(event), value)


def _csv_rows(path: Path, facts: FileFacts, mapping: CsvMapping) -> Iterator[Row]:
    for number, cells in _cells(path, mapping):
        event: dict[str, Any] = {"type": mapping.type, "messageId": f"{facts.digest}/{number}"}
        if mapping.event is not None:
            event["event"] = mapping.event
        rest = rest_of(cells, mapping)
        for head, cell in cells.items():
            target = target_of(head, mapping, rest)
            if target and cell:
                _place(event, target, cell)
        yield Row(number, key_of(event), _encode(event))


def _cells(path: Path, mapping: CsvMapping) -> Iterator[tuple[int, dict[str, str]]]:
    with _open(path) as file:
        texts = _texts(file, path)
        csv.field_size_limit(MAX_LINE_BYTES)
        delimiter = "\t" if ".tsv" in path.name.lower() else mapping.delimiter
        if len(delimiter) != 1 or delimiter in '"\r\n':
            what_to_do = "name one character, like ; or \\t"
            raise InputError(f"{delimiter!r} cannot part cells", str(path), what_to_do)
        reader = csv.reader(texts, delimiter=delimiter, strict=True)
        try:
            heads = [head.strip() for head in next(reader, [])]
            if len(heads) == 1 and delimiter == mapping.delimiter:
                _check_delimiter(heads[0], mapping, path)
            check_heads(heads, mapping, path)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(heads):
                    what = f"Line {reader.line_num} has {len(row)} columns, the head has {len(heads)}"
                    raise InputError(what, str(path), "Is the delimiter right, and are texts with it in quotes?")
                yield reader.line_num, dict(zip(heads, row, strict=True))
        except csv.Error as error:
            raise InputError(f"Line {reader.line_num} is not CSV: {error}", str(path)) from error


def _check_delimiter(head: str, mapping: CsvMapping, path: Path) -> None:
    """A file that is parted otherwise has one column, and every row of it would be refused. Not meant are quotes around
    the delimiter in use, and a column that is named as a whole."""
    if head in mapping.fields:
        return
    for delimiter, written in _DELIMITERS.items():
        if delimiter in head and delimiter != mapping.delimiter:
            what = f"The head is a single column, {head[:80]!r}"
            raise InputError(what, str(path), f"If its cells are parted otherwise: --delimiter '{written}'.")


def _texts(file: BinaryIO, path: Path) -> Iterator[str]:
    for number, line in enumerate(_lines(file, path), start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"Line {number} is not UTF-8", str(path), "Save the file as UTF-8.") from error


def check_heads(heads: list[str], mapping: CsvMapping, path: Path) -> None:
    """Whether each column leads to a place of its own. InputError says which does not."""
    if not heads:
        raise InputError("The file is empty", str(path), "The first line of a CSV file names its columns.")
    for head in heads:
        if not head or heads.count(head) > 1:
            what = f"The head names {head!r} twice" if head else "A column has no name"
            raise InputError(what, str(path), "The first line of a CSV file names each column, each differently.")
    for head, target in mapping.fields.items():
        if head not in heads:
            raise InputError(f"There is no column {head!r}", str(path), f"Columns are {', '.join(heads)}.")
        if target and target not in _SPEC_FIELDS and not target.startswith(_SPEC_OBJECTS):
            what_to_do = "Paths are like userId, timestamp, properties.total or identifiers.loyalty_card."
            raise InputError(f"{target!r} is no path of the tracking spec", str(path), what_to_do)
    has_types = any(target_of(head, mapping, "properties.") == "type" for head in heads)
    for rest in ("traits.", "properties.") if has_types else (_rest(mapping.type),):
        found = (target_of(head, mapping, rest) for head in heads)
        targets = sorted((target for target in found if target), key=lambda target: target.split("."))
        for target, following in pairwise(targets):
            if following == target or following.startswith(target + "."):
                what = f"Two columns lead to the same place: {target} and {following}"
                raise InputError(what, str(path), "Map one of them elsewhere.")


def target_of(head: str, mapping: CsvMapping, rest: str) -> str:
    """Where a column leads: a path of the tracking spec, "" for nowhere."""
    mapped = mapping.fields.get(head)
    if mapped is not None:
        return mapped
    return head if head in _SPEC_FIELDS or head.startswith(_SPEC_OBJECTS) else rest + head


def rest_of(cells: Mapping[str, Any], mapping: CsvMapping) -> str:
    """Where a column goes that leads nowhere else: by the type of the row, whatever its column is called."""
    own = next((cell for head, cell in cells.items() if target_of(head, mapping, "properties.") == "type"), None)
    return _rest(own or mapping.type)


def _rest(kind: str) -> str:
    return "traits." if kind == "identify" else "properties."


def _place(event: dict[str, Any], target: str, cell: str) -> None:
    *path, last = target.split(".")
    place = event
    for part in path:
        place = place.setdefault(part, {})
    typed = path and path[0] != "identifiers"
    place[last] = _typed(cell) if typed else cell


def _typed(cell: str) -> Any:
    if cell in ("true", "false"):
        return cell == "true"
    if _NUMBER.fullmatch(cell):
        return float(cell) if "." in cell else int(cell)
    return cell


def key_of(event: dict[str, Any]) -> bytes | None:
    """The record key of an event: the person it names, if it does."""
    for name in ("userId", "anonymousId"):
        if isinstance(event.get(name), str | int):
            return str(event[name]).encode("utf-8", "replace")[:KEPT_KEY_BYTES]
    return None
