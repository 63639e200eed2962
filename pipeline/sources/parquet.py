"""Parquet files as raw records. Needs pyarrow: `pip install 'headwater[parquet]'`.

Columns are what those of a CSV file are: one whose name is a path of the tracking spec (`userId`, `timestamp`,
`properties.total`) goes there, any other becomes a property (for an identify call, a trait). Cells keep their types;
a column `properties`, `traits`, `context` or `identifiers` may be a struct or a map, or a text that is a JSON object.
Times without a zone are UTC, and have microseconds: what is finer is cut off. A cell that is null is absent.
"""

import datetime
import decimal
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import InputError
from pipeline.sources.files import CsvMapping, FileFacts, Row, check_heads, key_of, rest_of, said, target_of

_BATCH_ROWS = 10_000
_READ_BYTES = 1 << 20
_OBJECTS = ("properties", "traits", "context", "identifiers")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def inspect_parquet(path: Path, mapping: CsvMapping) -> FileFacts:
    """Read a file once, before anything is sent.

    Raises:
        InputError: it cannot be read, is no Parquet file, two columns lead to the same place, or one holds what JSON
            has not: told here, for what was sent before would come twice once the column is left out.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while part := file.read(_READ_BYTES):
                digest.update(part)
    except OSError as error:
        what_to_do = "write its path as seen from this folder; it must be a file that you may read"
        raise InputError(f"The file cannot be read: {error.strerror}.", str(path.absolute()), what_to_do) from error
    opened = _open(path)
    check_heads([head for head in opened.schema_arrow.names if head not in _OBJECTS], mapping, path)
    for column in opened.schema_arrow:
        strange = _strange(column.type, column.name in _OBJECTS)
        if strange and (column.name in _OBJECTS or target_of(column.name, mapping, "properties.")):
            raise InputError(
                f"The column {column.name} holds {strange}, which JSON has not.",
                str(path),
                f"write it as text, or leave it out: {column.name}=",
            )
    digest.update(said(mapping))
    return FileFacts(digest.hexdigest(), opened.metadata.num_rows)


def parquet_rows(path: Path, facts: FileFacts, mapping: CsvMapping) -> Iterator[Row]:
    """The rows of a file that was inspected, in order, numbered from 1."""
    opened = _open(path)
    import pyarrow

    number = 0
    try:
        for batch in opened.iter_batches(_BATCH_ROWS):
            held = dict(zip(batch.schema.names, batch.columns, strict=True))
            names = [name for name in held if name in _OBJECTS or target_of(name, mapping, "properties.")]
            columns = [_listed(held[name], name, path, number) for name in names]
            for cells in zip(*columns, strict=True):
                number += 1
                event = _event(dict(zip(names, cells, strict=True)), mapping, path, number)
                if event.get("messageId") is None:
                    event["messageId"] = f"{facts.digest}/{number}"
                yield Row(number, key_of(event), _encode(event))
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(f"The file breaks off after row {number}: {error}", str(path)) from error


def _open(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise InputError(
            "A Parquet file needs pyarrow, which is not installed.", str(path), "pip install 'headwater[parquet]'"
        ) from None
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(f"It is no Parquet file: {error}", str(path)) from error


def _strange(kind: Any, may_be_json: bool = False) -> str:
    """The type in a column's that JSON has nothing for; none if it can be written. `may_be_json`: bytes hold JSON."""
    import pyarrow

    types = pyarrow.types
    if any(known(kind) for known in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary)):
        return "" if may_be_json else str(kind)
    if types.is_duration(kind):
        return str(kind)
    if types.is_dictionary(kind):
        return _strange(kind.value_type, may_be_json)
    inside = (kind.field(number).type for number in range(kind.num_fields))
    return next((found for found in map(_strange, inside) if found), "")


def _listed(column: Any, name: str, path: Path, before: int) -> list[Any]:
    """The cells of a column. Python's times have no nanoseconds, and none beyond the year 9999."""
    import pyarrow

    try:
        return list(pyarrow.compute.cast(column, _coarser(column.type), safe=False).to_pylist())
    except (pyarrow.ArrowException, ValueError, OverflowError, LookupError) as error:  # LookupError: no such time zone
        raise InputError(
            f"The column {name} holds, behind row {before}, what cannot be read: {error}",
            str(path),
            f"mend it, or leave it out: {name}=",
        ) from None


def _coarser(kind: Any) -> Any:
    """A type with microseconds for nanoseconds, wherever they stand."""
    import pyarrow

    types = pyarrow.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pyarrow.timestamp("us", kind.tz)
    if types.is_time64(kind) and kind.unit == "ns":
        return pyarrow.time64("us")
    if types.is_dictionary(kind):
        return _coarser(kind.value_type)
    if types.is_struct(kind):
        return pyarrow.struct([one.with_type(_coarser(one.type)) for one in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        made = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return made(kind.value_field.with_type(_coarser(kind.value_type)))
    if types.is_map(kind):
        return pyarrow.map_(kind.key_type, kind.item_field.with_type(_coarser(kind.item_type)))
    return kind


def _event(cells: dict[str, Any], mapping: CsvMapping, path: Path, number: int) -> dict[str, Any]:
    event: dict[str, Any] = {"type": mapping.type}
    if mapping.event is not None:
        event["event"] = mapping.event
    rest = rest_of(cells, mapping)
    for head in _OBJECTS:
        if cells.get(head) is not None:
            event[head] = _object(cells[head], head, path, number)
    for head, cell in cells.items():
        if cell is None or head in _OBJECTS:
            continue
        target = target_of(head, mapping, rest)
        if target:
            *parents, last = target.split(".")
            place = event
            for parent in parents:
                place = place.setdefault(parent, {})
                if not isinstance(place, dict):
                    raise InputError(
                        f"Row {number}: {head} leads into {parent}, which is no object.",
                        str(path),
                        f"leave it out: {head}=",
                    )
            place[last] = _plain(cell, path, number)
    return event


def _object(cell: Any, head: str, path: Path, number: int) -> dict[str, Any]:
    """A column that is a whole object: a struct, a map (pairs), or JSON."""
    try:
        found = _decode(cell) if isinstance(cell, str | bytes) else dict(cell)
    except (msgspec.MsgspecError, TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"Row {number}: {head} is no object.", str(path), "make it a struct, a map, or a JSON text of one"
        )
    return {str(name): _plain(value, path, number) for name, value in found.items() if value is not None}


def _plain(value: Any, path: Path, number: int) -> Any:
    """A cell as JSON has it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {str(name): _plain(one, path, number) for name, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one, path, number) for one in value]
    raise InputError(
        f"Row {number} holds a {type(value).__name__}, which JSON has not.", str(path), "leave the column out: COLUMN="
    )
