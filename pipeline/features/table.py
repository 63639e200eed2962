"""Profiles as a table: one row a profile, one column a feature, always the same columns for the same definitions."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from pipeline.records import ProfileDocument

_encode = msgspec.json.Encoder(order="deterministic").encode


class Table(NamedTuple):
    """Columns by name, each with a value (or None) for every row."""

    columns: dict[str, list[Any]]
    rows: int


def table(
    documents: Mapping[str, ProfileDocument],
    at: int,
    *,
    entity: str,
    computed: Sequence[str],
    segments: Sequence[str],
    namespaces: Sequence[str],
) -> Table:
    """The table of these profiles as of `at`, by profile_id. Columns: `profile_id`, `as_of`, `identifier.NAMESPACE`
    (the first), `first_seen`, `last_seen`, `computed.NAME`, `segment.NAME`, and what the data have: `trait.NAME`,
    `count.EVENT`, `last.EVENT`."""
    chosen = [document for _, document in sorted(documents.items()) if document.entity == entity]
    traits = sorted({name for document in chosen for name in document.traits})
    events = sorted({name for document in chosen for name in document.totals})
    columns: dict[str, list[Any]] = {
        "profile_id": [document.profile_id for document in chosen],
        "as_of": [at] * len(chosen),
    }
    for namespace in namespaces:
        columns[f"identifier.{namespace}"] = [_first(document, namespace) for document in chosen]
    columns["first_seen"] = [document.first_seen or None for document in chosen]
    columns["last_seen"] = [document.last_seen or None for document in chosen]
    for name in computed:
        columns[f"computed.{name}"] = _even(document.computed.get(name) for document in chosen)
    for name in segments:
        columns[f"segment.{name}"] = [name in document.segments for document in chosen]
    for name in traits:
        columns[f"trait.{name}"] = _even(document.traits.get(name) for document in chosen)
    for name in events:
        totals = [document.totals.get(name) for document in chosen]
        columns[f"count.{name}"] = [total.count if total is not None else 0 for total in totals]
        columns[f"last.{name}"] = [total.last if total is not None else None for total in totals]
    return Table(columns, len(chosen))


def _first(document: ProfileDocument, namespace: str) -> str | None:
    return next((pair.value for pair in document.identifiers if pair.namespace == namespace), None)


def _even(values: Iterable[Any]) -> list[Any]:
    """Values of one type: as they are where they are all numbers, texts or booleans; else as JSON texts."""
    held = list(values)
    kinds = {type(value) for value in held if value is not None}
    if kinds <= {int, float}:
        return [float(value) if value is not None else None for value in held]
    if kinds <= {str} or kinds <= {bool}:
        return held
    return [None if value is None else _encode(value).decode() for value in held]
