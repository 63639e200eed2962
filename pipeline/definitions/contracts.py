"""Contracts as people write them; docs/contracts.md has the language.

contract: shop
sources: [web, raw]                 # names of sources; left out: all that no other contract names
owner: shop-team@example.org        # whom to tell
on_violation: reject                # or strip, or flag (the default)
unplanned_events: flag              # or allow (the default), reject
unplanned_properties: strip         # or allow (the default), flag, reject
purposes: [analytics]
retention: 400d
events:
  Order Completed:
    required: [order_id, total]
    properties:                     # JSON Schema of each, and what it is
      order_id: {type: string, pattern: '^o-'}
      total: {type: number, minimum: 0}
      email: {type: string, format: email, labels: [pii], purposes: [receipts], retention: 30d}
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import jsonschema_rs
from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pipeline.contracts import Contract, ContractsPlan, EventContract, LabelledField
from pipeline.contracts.plan import SECTIONS
from pipeline.definitions.comparisons import Duration, Model, Name
from pipeline.definitions.durations import duration_ms
from pipeline.definitions.keys import source_named
from pipeline.errors import DefinitionError

MAX_SCHEMA_DEPTH = 20
MAX_SCHEMA_PARTS = 20_000
_REGEX_SIZE_BYTES = 1 << 20
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,49}")
_ANNOTATIONS = ("labels", "purposes", "retention")
# Keywords that lead to another place: followed here, a schema could call itself without end.
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor", "$schema", "$vocabulary")


def _word(value: Any) -> str:
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise ValueError("write a word of small letters, digits, _ and -, at most 50, beginning with a letter")
    return value


def _event_name(value: str) -> str:
    if not value.strip() or len(value) > 512:
        raise ValueError("the name of an event has 1 to 512 characters")
    return value


Word = Annotated[str, BeforeValidator(_word)]
Words = Annotated[list[Word], Field(max_length=50)]
Unplanned = Literal["allow", "flag", "strip", "reject"]


def _parts(schema: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    if depth > 2 * MAX_SCHEMA_DEPTH:
        raise ValueError(f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels")
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _parts(value, depth + 1)
    elif isinstance(schema, list):
        for value in schema:
            yield from _parts(value, depth + 1)


def checked_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema (2020-12) within bounds. Raises ValueError: what is wrong with it, and where."""
    for number, part in enumerate(_parts(schema)):
        if number >= MAX_SCHEMA_PARTS:
            raise ValueError(f"the schema has more than {MAX_SCHEMA_PARTS:,} parts")
        for keyword in _REFERENCES:
            if isinstance(part.get(keyword), str):
                raise ValueError(f"{keyword} is not known here; write out what it stands for")
    try:
        _validator(schema)
    except jsonschema_rs.ValidationError as error:
        where = ".".join(map(str, error.instance_path))
        raise ValueError(f"this is no JSON Schema{f', at {where}' if where else ''}: {error.message}") from None
    except ValueError as error:
        raise ValueError(f"this is no JSON Schema: {error}") from None
    list(_labelled(schema, "", (), is_field=True))
    return schema


def _validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    # RegexOptions is the engine without backtracking: no pattern and no text makes it slow. Values never stand in
    # messages: they go to logs and dead letters' details, and may be somebody's.
    return jsonschema_rs.Draft202012Validator(
        schema,
        validate_formats=True,
        offline=True,
        mask="the value",
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_SIZE_BYTES),
    )


def _property(schema: dict[str, Any]) -> dict[str, Any]:
    return checked_schema(schema)


Schema = Annotated[dict[str, Any], AfterValidator(_property)]
Properties = dict[str, Schema]


def _labelled(schema: Any, section: str, path: tuple[str, ...], is_field: bool = False) -> Iterator[LabelledField]:
    """The fields under a schema that carry labels, purposes or a retention. Raises ValueError."""
    if not isinstance(schema, dict):
        return
    if is_field and any(name in schema for name in _ANNOTATIONS):
        try:
            labels = [_word(one) for one in _listed(schema, "labels")]
            purposes = [_word(one) for one in _listed(schema, "purposes")]
            # Of what is not to be kept at all nothing may be left; to windows 0 would mean that they have no end.
            retention = max(1, duration_ms(schema["retention"])) if "retention" in schema else None
        except ValueError as error:
            raise ValueError(f"{'.'.join(path)}: {error}" if path else str(error)) from None
        yield LabelledField(section, path, frozenset(labels), tuple(purposes), retention)
    for name, part in _named(schema, "properties"):
        yield from _labelled(part, section, (*path, name), is_field=True)
    for part in _schemas(schema, _OF_ITEMS):
        yield from _labelled(part, section, (*path, "*"), is_field=True)
    # What is said in another schema of the same value is said of that value; of members that have no names of their
    # own, of what they are members of.
    for part in _schemas(schema, _OF_THE_SAME):
        yield from _labelled(part, section, path, is_field)
    for part in _schemas(schema, _OF_MEMBERS):
        yield from _labelled(part, section, path, is_field=bool(path))


# Keywords under which other schemas stand: one, a list of them, or some by name.
_OF_ITEMS = ("items", "prefixItems", "contains", "unevaluatedItems")
_OF_THE_SAME = ("allOf", "anyOf", "oneOf", "if", "then", "else", "not", "dependentSchemas")
_OF_MEMBERS = ("additionalProperties", "patternProperties", "unevaluatedProperties")
_BY_NAME = ("dependentSchemas", "patternProperties")


def _named(schema: dict[str, Any], keyword: str) -> Iterator[tuple[str, Any]]:
    inner = schema.get(keyword)
    if isinstance(inner, dict):
        yield from inner.items()


def _schemas(schema: dict[str, Any], keywords: Iterable[str]) -> Iterator[Any]:
    for keyword in keywords:
        if keyword in _BY_NAME:
            yield from (part for _, part in _named(schema, keyword))
        elif isinstance(schema.get(keyword), list):
            yield from schema[keyword]
        else:
            yield schema.get(keyword)


def _listed(schema: dict[str, Any], name: str) -> list[Any]:
    value = schema.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"`{name}` is a list of words")
    return value


def _of_sections(schema: Any) -> Iterator[tuple[str, Any]]:
    """The schemas of sections in a schema over all of them."""
    if isinstance(schema, dict):
        yield from ((name, part) for name, part in _named(schema, "properties") if name in SECTIONS)
        for part in _schemas(schema, _OF_THE_SAME):
            yield from _of_sections(part)


def unheard(events: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is said where nobody would hear of it, by its path in `events`. `events` is of a valid contract."""
    for name, event in events.items():
        if name == "*":
            yield (name,), "`*` stands for no other event: name each, or say it beside `events`"
        for key in ("traits", "context"):
            for word in _of_a_section((event or {}).get(key)):
                yield (name, key), f"`{word}` of all {key} is heard by nobody: say it of each, or of the whole event"
        for section, schema in _of_sections((event or {}).get("schema")):
            for word in _of_a_section(schema):
                yield (name, "schema"), f"`{word}` of all {section} is heard by nobody: say it of each, or of the event"


def _of_a_section(schema: Any) -> Iterator[str]:
    """The annotations of a section itself, or of members of it that have no names."""
    if isinstance(schema, dict):
        yield from (word for word in _ANNOTATIONS if word in schema)
        for part in _schemas(schema, (*_OF_THE_SAME, *_OF_MEMBERS)):
            yield from _of_a_section(part)


class EventDefinition(Model):
    """What a contract says about one event. What is left out is the contract's."""

    description: str = Field(default="", max_length=2_000)
    owner: str = Field(default="", max_length=200)
    on_violation: Literal["reject", "strip", "flag"] | None = None
    unplanned_properties: Unplanned | None = None
    required: list[str] = Field(default=[], max_length=1_000)
    properties: Properties = Field(default={}, max_length=1_000)
    traits: Schema | None = None
    context: Schema | None = None
    schema_: Schema | None = Field(default=None, alias="schema")
    labels: Words = []
    purposes: Words | None = None
    retention: Duration | None = None

    @field_validator("required")
    @classmethod
    def _stands_once(cls, value: list[str]) -> list[str]:
        twice = next((name for number, name in enumerate(value) if name in value[:number]), None)
        if twice is not None:
            raise ValueError(f"{twice} stands twice")
        return value

    def json_schema(self) -> dict[str, Any]:
        """One JSON Schema over {properties, traits, context}."""
        own: dict[str, Any] = {"type": "object"}
        if self.properties:
            own["properties"] = self.properties
        if self.required:
            own["required"] = self.required
        parts: dict[str, Any] = {"properties": own}
        if self.traits is not None:
            parts["traits"] = self.traits
        if self.context is not None:
            parts["context"] = self.context
        schema: dict[str, Any] = {"type": "object", "properties": parts}
        if self.schema_ is not None:
            schema["allOf"] = [self.schema_]
        return schema

    def fields(self) -> tuple[LabelledField, ...]:
        """Every field that carries labels, purposes or a retention of its own."""
        schemas = [("properties", {"properties": self.properties}), ("traits", self.traits), ("context", self.context)]
        schemas += _of_sections(self.schema_)
        return tuple(found for section, schema in schemas for found in _labelled(schema, section, ()))

    def planned(self) -> dict[str, frozenset[str]]:
        """The names each section may have; context is never complete."""
        found = {"properties": frozenset((*self.properties, *self.required))}
        if self.traits is not None and isinstance(self.traits.get("properties"), dict):
            found["traits"] = frozenset((*self.traits["properties"], *self.traits.get("required", ())))
        return found


class ContractDefinition(Model):
    """A tracking plan: what the events of some sources must look like."""

    contract: Name
    description: str = Field(default="", max_length=2_000)
    owner: str = Field(default="", max_length=200)
    sources: list[str] | None = Field(default=None, min_length=1, max_length=100)
    on_violation: Literal["reject", "strip", "flag"] = "flag"
    unplanned_events: Literal["allow", "flag", "reject"] = "allow"
    unplanned_properties: Unplanned = "allow"
    purposes: Words = []
    retention: Duration | None = None
    events: dict[Annotated[str, AfterValidator(_event_name)], EventDefinition | None] = Field(max_length=5_000)

    @field_validator("events")
    @classmethod
    def _nothing_said_is_said(cls, value: dict[str, EventDefinition | None]) -> dict[str, EventDefinition | None]:
        return {name: event if event is not None else EventDefinition() for name, event in value.items()}

    @model_validator(mode="after")
    def _sources_stand_once(self) -> Self:
        if self.sources is not None and len(set(self.sources)) != len(self.sources):
            raise ValueError("a source stands twice in `sources`")
        return self

    def compiled(self, number: int = 1) -> Contract:
        """The frozen contract; `number` is its version."""
        version = f"{self.contract}/{number}"
        events = {}
        for name, event in self.events.items():
            assert event is not None
            purposes = self.purposes if event.purposes is None else event.purposes
            events[name] = EventContract(
                event=name,
                version=version,
                validator=_validator(event.json_schema()),
                on_violation=event.on_violation or self.on_violation,
                unplanned_properties=event.unplanned_properties or self.unplanned_properties,
                planned=event.planned(),
                labels=frozenset(event.labels),
                purposes=tuple(purposes),
                retention_ms=self.retention if event.retention is None else event.retention,
                fields=event.fields(),
            )
        return Contract(
            name=self.contract,
            number=number,
            sources=None if self.sources is None else frozenset(map(source_named, self.sources)),
            unplanned_events=self.unplanned_events,
            events=events,
            purposes=tuple(self.purposes),
            retention_ms=self.retention,
        )


def compile_contracts(bodies: Mapping[str, tuple[int, dict[str, Any]]]) -> ContractsPlan:
    """The plan of contracts by name, each with its version.

    Raises:
        DefinitionError: two contracts speak of the same source.
    """
    contracts = tuple(
        ContractDefinition.model_validate(body).compiled(number) for _, (number, body) in sorted(bodies.items())
    )
    owners: dict[str | None, str] = {}
    for contract in contracts:
        for source in contract.sources if contract.sources is not None else (None,):
            other = owners.setdefault(source, contract.name)
            if other != contract.name:
                what = f"the source {source}" if source is not None else "all sources that no other contract names"
                raise DefinitionError(
                    f"The contracts {other} and {contract.name} both speak of {what}.",
                    f"contract/{contract.name}",
                    "give each its own `sources`, or make one contract of the two",
                )
    return ContractsPlan(contracts)


assert set(SECTIONS) == {"properties", "traits", "context"}
