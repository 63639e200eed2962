"""Cleaning as people write it; docs/cleaning.md has the language.

cleaning: web_basics
sources: [web]                      # left out: all
events: [Order Completed]           # left out: all
on_failure: reject                  # of a function or a hash; or pass (the default)
steps:
  - rename: {field: properties.orderId, to: properties.order_id}
  - cast: {field: properties.total, to: number}
  - hash: traits.social_security
  - derive: campaign
  - call: {function: enrich, timeout: 50ms}
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.cleaning import (
    Call,
    Cast,
    Cleaning,
    CleaningPlan,
    Default,
    DeriveCampaign,
    DeriveReferrer,
    DeriveUserAgent,
    Drop,
    Hash,
    Join,
    Mask,
    Reference,
    Rename,
    RenameEvent,
)
from pipeline.definitions.comparisons import Model, Name
from pipeline.definitions.durations import DurationMs
from pipeline.definitions.keys import source_named
from pipeline.errors import DefinitionError

MAX_STEPS = 200
FUNCTIONS = "headwater.cleaning"
"""The group of entry points in which functions are looked for."""
_DERIVED = {"user_agent": DeriveUserAgent, "campaign": DeriveCampaign, "referrer": DeriveReferrer}


def _path(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 300:
        raise ValueError("write a path like properties.total")
    root, _, rest = value.partition(".")
    if root not in ("properties", "traits", "context") or not rest or not all(rest.split(".")):
        raise ValueError(f"{value!r} is no path; write properties.total, traits.plan, or properties.lines.*.sku")
    return value


def _plain(value: str) -> str:
    if "*" in value.split("."):
        raise ValueError("this path leads to one field: no * here")
    return value


FieldPath = Annotated[str, BeforeValidator(_path)]
PlainPath = Annotated[FieldPath, AfterValidator(_plain)]


class RenameStep(Model):
    """A field gets another place."""

    field: PlainPath
    to: PlainPath


class CastStep(Model):
    """A field becomes of another type."""

    field: FieldPath
    to: Literal["text", "number", "integer", "boolean"]


class DefaultStep(Model):
    """A field that is missing or null gets a value."""

    field: PlainPath
    value: Any


class MaskStep(Model):
    """A field keeps its last characters."""

    field: FieldPath
    keep_last: int = Field(default=0, ge=0, le=100)


class JoinStep(Model):
    """The row of a reference."""

    reference: Name
    by: PlainPath
    to: PlainPath


class CallStep(Model):
    """A Python function, by the name of its entry point."""

    function: str = Field(min_length=1, max_length=100)
    timeout: DurationMs = Field(default=100, ge=1, le=5_000)


class StepDefinition(Model):
    """One step: a mapping with one key."""

    rename: RenameStep | None = None
    rename_event: str | None = Field(default=None, min_length=1, max_length=512)
    cast: CastStep | None = None
    default: DefaultStep | None = None
    drop: FieldPath | None = None
    hash: FieldPath | None = None
    mask: MaskStep | None = None
    derive: Literal["user_agent", "campaign", "referrer"] | None = None
    join: JoinStep | None = None
    call: CallStep | None = None

    @model_validator(mode="after")
    def _is_one(self) -> "StepDefinition":
        if len(self.model_fields_set) != 1:
            raise ValueError(f"a step has one of the keys {', '.join(type(self).model_fields)}")
        [said] = self.model_fields_set
        if getattr(self, said) is None:
            raise ValueError(f"`{said}` has no value: say what it is to be done to")
        return self

    def compiled(self, references: Mapping[str, Reference]) -> Any:
        """The step as the room takes it. Raises DefinitionError for a reference that is not there."""
        if self.rename is not None:
            return Rename(_steps(self.rename.field), _steps(self.rename.to))
        if self.rename_event is not None:
            return RenameEvent(self.rename_event)
        if self.cast is not None:
            return Cast(_steps(self.cast.field), self.cast.to)
        if self.default is not None:
            return Default(_steps(self.default.field), self.default.value)
        if self.drop is not None:
            return Drop(_steps(self.drop))
        if self.hash is not None:
            return Hash(_steps(self.hash))
        if self.mask is not None:
            return Mask(_steps(self.mask.field), self.mask.keep_last)
        if self.derive is not None:
            return _DERIVED[self.derive]()
        if self.join is not None:
            reference = references.get(self.join.reference)
            if reference is None:
                there = ", ".join(sorted(references)) or "none"
                raise DefinitionError(
                    f"There is no reference {self.join.reference}.", "a step `join`", f"there are: {there}"
                )
            return Join(reference, _steps(self.join.by), _steps(self.join.to))
        assert self.call is not None
        return Call(self.call.function, self.call.timeout)


def _steps(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))


class CleaningDefinition(Model):
    """What is changed about events before anything is made of them."""

    cleaning: Name
    description: str = Field(default="", max_length=2_000)
    sources: list[str] | None = Field(default=None, min_length=1, max_length=100)
    events: list[str] | None = Field(default=None, min_length=1, max_length=5_000)
    on_failure: Literal["pass", "reject"] = "pass"
    steps: list[StepDefinition] = Field(min_length=1, max_length=MAX_STEPS)

    def compiled(self, references: Mapping[str, Reference]) -> Cleaning:
        """The frozen steps."""
        return Cleaning(
            name=self.cleaning,
            sources=None if self.sources is None else frozenset(map(source_named, self.sources)),
            events=None if self.events is None else frozenset(self.events),
            steps=tuple(step.compiled(references) for step in self.steps),
            on_failure=self.on_failure,
        )


class ReferenceDefinition(Model):
    """A table of somebody else, in a topic: a catalogue, attributes that a partner knows."""

    reference: Name
    description: str = Field(default="", max_length=2_000)
    topic: str = Field(min_length=1, max_length=300)
    key: str | None = Field(default=None, min_length=1, max_length=300)
    fields: list[str] = Field(default=[], max_length=1_000)
    provenance: str = Field(default="", max_length=200)
    max_rows: int = Field(default=200_000, ge=1, le=10_000_000)

    def compiled(self) -> Reference:
        """The frozen reference."""
        return Reference(
            name=self.reference,
            topic=self.topic,
            key=_steps(self.key) if self.key else (),
            fields=tuple(self.fields),
            provenance=self.provenance,
            max_rows=self.max_rows,
        )


def compile_cleaning(
    bodies: Mapping[str, dict[str, Any]], references: Mapping[str, dict[str, Any]] | None = None
) -> CleaningPlan:
    """The plan of cleaning by name, with the references it may join.

    Raises:
        DefinitionError: a step joins a reference that is not there.
    """
    known = {name: ReferenceDefinition.model_validate(body).compiled() for name, body in (references or {}).items()}
    return CleaningPlan(
        tuple(CleaningDefinition.model_validate(body).compiled(known) for _, body in sorted(bodies.items()))
    )
