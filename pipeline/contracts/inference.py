"""A contract from what was seen. It says what all events had in common, and no more: types, and what was always there.

    a property is required         it was in every event of that name, and there were LEAST_SEEN of them
    an integer                     no number with a fraction was seen
    email, uuid, date-time, date   every text looked like one, and is one to who checks, and there were LEAST_SEEN

What is inferred only flags. Somebody must read it before it may refuse anything.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema_rs

LEAST_SEEN = 20
MAX_EVENTS = 1_000
MAX_PROPERTIES = 500
_MAX_DEPTH = 6
_FORMATS = (
    ("email", re.compile(r"[^@\s]{1,64}@[A-Za-z0-9.-]{1,200}\.[A-Za-z]{2,24}").fullmatch),
    ("uuid", re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.I).fullmatch),
    (
        "date-time",
        re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)").fullmatch,
    ),
    ("date", re.compile(r"\d{4}-\d\d-\d\d").fullmatch),
)
# 0000-00-00 looks like a date: a contract that said so would be violated by what it was inferred from.
_CHECKED = tuple(
    jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True).is_valid for name, _ in _FORMATS
)


class Seen:
    """What was seen at one place: a property, an item of a list."""

    def __init__(self) -> None:
        self.count = 0
        self.types: dict[str, int] = {}
        self.formats = set(range(len(_FORMATS)))
        self.fields: dict[str, Seen] = {}
        self.items: Seen | None = None
        self.is_open = False

    def take(self, value: Any, depth: int = 0) -> None:
        """See one more value."""
        self.count += 1
        kind = _type_of(value)
        self.types[kind] = self.types.get(kind, 0) + 1
        if kind == "string":
            for number in tuple(self.formats):
                if _FORMATS[number][1](value) is None or not _CHECKED[number](value):
                    self.formats.discard(number)
        elif depth >= _MAX_DEPTH:
            self.is_open = True
        elif kind == "object":
            for name, inner in value.items():
                found = self.fields.get(name)
                if found is None:
                    if len(self.fields) >= MAX_PROPERTIES:
                        self.is_open = True
                        continue
                    found = self.fields[name] = Seen()
                found.take(inner, depth + 1)
        elif kind == "array":
            if self.items is None:
                self.items = Seen()
            for inner in value:
                self.items.take(inner, depth + 1)

    def required(self) -> list[str]:
        """The fields that were in every object."""
        objects = self.types.get("object", 0)
        return sorted(name for name, seen in self.fields.items() if seen.count == objects >= LEAST_SEEN)

    def schema(self) -> dict[str, Any]:
        """What was seen, as a JSON Schema."""
        types = sorted(self.types)
        if "number" in types and "integer" in types:
            types.remove("integer")
        schema: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
        if self.types.get("string", 0) >= LEAST_SEEN and self.formats:
            schema["format"] = _FORMATS[min(self.formats)][0]
        if self.fields and not self.is_open:
            schema["properties"] = self.properties()
            if self.required():
                schema["required"] = self.required()
        if self.items is not None and self.items.count:
            schema["items"] = self.items.schema()
        return schema

    def properties(self) -> dict[str, Any]:
        """The schema of each field."""
        return {name: seen.schema() for name, seen in sorted(self.fields.items())}


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        # As JSON Schema has it: 3.0 is an integer.
        return "integer" if value.is_integer() else "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def infer(name: str, events: Iterable[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """The body of a contract, from (name, properties, traits) of events."""
    seen: dict[str, tuple[Seen, Seen]] = {}
    for event, properties, traits in events:
        found = seen.get(event)
        if found is None:
            if len(seen) >= MAX_EVENTS:
                continue
            found = seen[event] = Seen(), Seen()
        found[0].take(dict(properties))
        found[1].take(dict(traits))
    body: dict[str, Any] = {
        "contract": name,
        "on_violation": "flag",
        # No contract can name an event `*`.
        "unplanned_events": "flag" if seen.pop("*", None) is None else "allow",
        "unplanned_properties": "flag",
        "events": {},
    }
    for event, (properties_seen, traits_seen) in sorted(seen.items()):
        said: dict[str, Any] = {}
        if properties_seen.required():
            said["required"] = properties_seen.required()
        if properties_seen.fields:
            said["properties"] = properties_seen.properties()
        if traits_seen.fields:
            said["traits"] = traits_seen.schema()
        if properties_seen.is_open or traits_seen.is_open:
            said["unplanned_properties"] = "allow"
        body["events"][event] = said
    return body
