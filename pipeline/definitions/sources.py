"""Sources as people write them: how the records of a topic become events; docs/sources.md has the language.

source: crm
topic: /crm.public.customers        # one of the setting `sources`
envelope: debezium
event:
  type: identify
  userId: {from: row.id, as: text}
  messageId: {text: 'crm-{source.lsn}-{row.id}'}
  traits: {from: row, without: [id, password_hash]}
"""

import re
from collections.abc import Mapping as Named
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from connectors.base import Options
from connectors.registry import UnknownKindError
from connectors.sources import Source, source_kind
from pipeline.definitions.comparisons import Model, Name
from pipeline.definitions.durations import DurationMs
from pipeline.errors import DefinitionError
from pipeline.ingest import CHANGES, Constant, From, Items, Mapping, MappingPlan, Object, Text

_ROOTS = {"none": ("key", "value"), "debezium": ("key", "value", "row", "before", "after", "source", "change", "ts_ms")}
_FIELDS = frozenset(
    (
        *("type", "event", "messageId", "userId", "anonymousId", "previousId", "groupId", "identifiers", "timestamp"),
        *("sentAt", "properties", "traits", "context", "name", "category"),
    )
)
_KINDS = frozenset(("text", "time_s", "time_ms", "time_us", "time_ns", "days"))
_PLACE = re.compile(r"\{([^{}]*)\}")
_MAX_DEPTH = 10


def _shape(value: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(value) - _FIELDS)
    if unknown:
        raise ValueError(f"an event has no `{unknown[0]}`; it has {', '.join(sorted(_FIELDS))}")
    if "type" not in value:
        raise ValueError("say the `type` of the events: track, identify, page, screen, group or alias")
    return value


class PullDefinition(BaseModel):
    """Where the records of a topic are pulled from: a kind of source, its options, and how often it is asked."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    kind: str
    every: DurationMs = Field(default=5_000, ge=100, le=86_400_000)
    batch: int = Field(default=500, ge=1, le=10_000)
    _options: Options = PrivateAttr()

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            kind = source_kind(self.kind)
        except UnknownKindError as error:
            raise ValueError(str(error)) from None
        object.__setattr__(self, "_options", kind.options_model.model_validate(self.__pydantic_extra__ or {}))
        return self

    def opened(self, name: str) -> Source:
        """The source, opened. Raises ValueError, or whatever it raises, if it cannot be."""
        return source_kind(self.kind)(name, self._options)

    @property
    def options(self) -> Options:
        """The options of the kind, validated."""
        return self._options

    @property
    def limit(self) -> int:
        """How many records it is asked for at a time."""
        return min(self.batch, source_kind(self.kind).max_batch)


class SourceDefinition(Model):
    """How the records of a topic become events, and where they are pulled from, if they are."""

    source: Name
    description: str = Field(default="", max_length=2_000)
    topic: str = Field(min_length=1, max_length=300)
    encoding: Literal["json", "avro"] = "json"
    envelope: Literal["none", "debezium"] = "none"
    changes: list[Literal["insert", "update", "snapshot", "delete"]] = Field(
        default=["insert", "update", "snapshot"], min_length=1
    )
    event: Annotated[dict[str, Any], AfterValidator(_shape)] | None = None
    pull: PullDefinition | None = None

    def model_post_init(self, _: Any) -> None:
        """The mapping is read once here, so that what is wrong with it is told."""
        if self.event is None and self.pull is None:
            raise ValueError("say how a record becomes an `event`, or where records are pulled from: `pull`")
        self.compiled()

    def compiled(self) -> Mapping | None:
        """The frozen mapping; None where records are events already."""
        if self.event is None:
            return None
        return Mapping(
            source=self.source,
            topic=self.topic,
            encoding=self.encoding,
            envelope=self.envelope,
            changes=frozenset(self.changes),
            event=Object(tuple((name, self._node(value, 0)) for name, value in self.event.items())),
        )

    def _node(self, value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError("the mapping is nested too deeply")
        if isinstance(value, list):
            return Items(tuple(self._node(item, depth + 1) for item in value))
        if not isinstance(value, dict):
            return Constant(value)
        if "from" in value:
            return self._field(value)
        if set(value) == {"text"}:
            return self._text(value["text"])
        return Object(tuple((name, self._node(inner, depth + 1)) for name, inner in value.items()))

    def _field(self, value: dict[str, Any]) -> From:
        unknown = sorted(set(value) - {"from", "as", "without"})
        if unknown:
            raise ValueError(f"`from` goes with `as` and `without`, not with `{unknown[0]}`")
        kind, without = value.get("as"), value.get("without", [])
        if kind not in (None, *_KINDS):  # it may be a list, which no set takes
            raise ValueError(f"`as` is one of {', '.join(sorted(_KINDS))}")
        if not isinstance(without, list) or not all(isinstance(name, str) for name in without):
            raise ValueError("`without` is a list of names")
        return From(self._path(value["from"]), kind, frozenset(without))

    def _text(self, value: Any) -> Text:
        if not isinstance(value, str):
            raise ValueError("`text` is a text with fields in it, like 'crm-{row.id}'")
        parts: list[str | tuple[str, ...]] = []
        end = 0
        for place in _PLACE.finditer(value):
            parts += [value[end : place.start()], self._path(place[1])]
            end = place.end()
        return Text((*parts, value[end:]))

    def _path(self, value: Any) -> tuple[str, ...]:
        steps = tuple(value.split(".")) if isinstance(value, str) else ()
        roots = _ROOTS[self.envelope]
        if not steps or not all(steps) or steps[0] not in roots:
            example = "row.id" if "row" in roots else "value.id"
            raise ValueError(f"{value!r} is no field; it begins with {', '.join(roots)}, like {example}")
        return steps


def compile_sources(bodies: Named[str, dict[str, Any]]) -> MappingPlan:
    """The plan of sources by name.

    Raises:
        DefinitionError: two sources read one topic.
    """
    # What they are pulled by need not be installed where their records are read.
    mapped = ({**body, "pull": None} for _, body in sorted(bodies.items()) if body.get("event") is not None)
    compiled = (SourceDefinition.model_validate(body).compiled() for body in mapped)
    mappings = tuple(mapping for mapping in compiled if mapping is not None)
    readers: dict[str, str] = {}
    for mapping in mappings:
        other = readers.setdefault(mapping.topic, mapping.source)
        if other != mapping.source:
            raise DefinitionError(
                f"The sources {other} and {mapping.source} both map the topic {mapping.topic}.",
                f"source/{mapping.source}",
                "make one source of the two",
            )
    return MappingPlan(mappings)


assert set(CHANGES.values()) == {"insert", "update", "snapshot", "delete"}
