"""The form in which state is stored: the fields of each record, in order, with their types, and the version it has.

Records are arrays: a field more at the end, with a default, is read by this release and by the one before. Anything
else changes what the bytes mean, and needs another VERSION.
"""

import json
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import NODEFAULT

import pipeline.unify.account_state  # noqa: F401 - it adds its records to those of actors
from pipeline.identity import state as identity_state
from pipeline.profile import fragment
from pipeline.unify import actor as unify_state
from pipeline.unify import dedup

LAYOUT = "layout.json"
_STORES: dict[str, tuple[int, dict[int, Any]]] = {
    "unify": (unify_state.VERSION, unify_state.DECODERS),
    "identity": (identity_state.VERSION, identity_state._DECODERS),
}
_PACKED = {"seen": dedup._ENTRY, "recent": fragment._RECENT}
"""Of what is packed by hand, how many bytes an entry has."""

Fields = list[list[Any]]
"""Of each field its name, its type, and whether it has a default."""


def layout() -> dict[str, Any]:
    """As this release has it: of each store the version, what is packed, and the fields of each record."""
    found = {}
    for name, (version, decoders) in _STORES.items():
        records: dict[str, Fields] = {}
        for prefix, decode in decoders.items():
            _add(decode.__self__.type, chr(prefix), records)
        found[name] = {"version": version, "packed": _PACKED if name == "unify" else {}, "records": records}
    return found


def _add(kind: Any, name: str, records: dict[str, Fields]) -> None:
    if name in records:
        return
    fields = msgspec.structs.fields(kind)
    records[name] = []
    for one in fields:
        has_default = one.default is not NODEFAULT or one.default_factory is not NODEFAULT
        records[name].append([one.name, _text(one.type), has_default])
        for inner in _structs_in(one.type):
            _add(inner, inner.__name__, records)


def _text(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def _structs_in(kind: Any) -> list[Any]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [found for one in get_args(kind) for found in _structs_in(one)]


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What has changed so that another VERSION is needed, of stores that still have the one they had."""
    found = []
    for store, was in before.items():
        present = now[store]
        if present["version"] != was["version"]:
            continue
        found += [
            f"{store}: {what} is packed otherwise" for what in was["packed"] if present["packed"] != was["packed"]
        ]
        for record, fields in was["records"].items():
            there = present["records"].get(record)
            if there is None:
                found.append(f"{store}: the record {record} is gone")
                continue
            if there[: len(fields)] != fields:
                found.append(f"{store}: the fields of {record} were {fields}, and are {there}")
            found += [f"{store}: {record}.{name} has no default" for name, _, has in there[len(fields) :] if not has]
    return found


def write(folder: Path) -> None:
    """Keep this release's layout in a golden folder."""
    (folder / LAYOUT).write_text(json.dumps(layout(), separators=(",", ":")) + "\n")


def written(folder: Path) -> dict[str, Any] | None:
    """As the release of a golden folder had it; None if it is older than this file."""
    kept = folder / LAYOUT
    found: dict[str, Any] | None = json.loads(kept.read_text()) if kept.exists() else None
    return found
