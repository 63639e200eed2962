"""Destinations as people write them:

    destination: trial_mails
    kind: webhook
    segments: [trial_started]        # names, or "*" for all; if nothing at all is chosen: all
    changes: [entered]               # default: both
    traits: [email, plan]            # sent along; also limits profile changes
    profiles: true                   # profile changes too, or the list of sections
    events: [Order Completed]        # events passed on, or "*"
    alerts: [warm_account]           # alerts about accounts, or "*"
    url: https://example.com/hooks   # and the other options of the kind
    secret: {env: TRIAL_MAILS_SECRET}

`mode` is `trigger` (acts on a moment) or `audience` (mirrors a membership); the kind has a default.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from connectors import Connector, Options, UnknownKindError, connector_kind
from connectors.registry import is_built_in, mode_of
from pipeline.activation import HOUR_MS, PROFILE_SECTIONS, ConsentPolicy, Destination
from pipeline.definitions.durations import DurationMs
from pipeline.definitions.keys import a_name, instead, source_named
from pipeline.errors import DefinitionError

_MAX_ATTEMPTS = 1_000
_SECTIONS = ("identifiers", "traits", "properties", "context")


class DeliveryDefinition(BaseModel):
    """How a destination is served. What is left out is the kind's, or the usual.

    `attempts`: then the delivery goes to the dead letters. `first_retry` doubles up to `longest_retry`.
    `per_second` limits the rate of requests of one process.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    concurrency: int | None = Field(default=None, ge=1, le=256)
    batch: int | None = Field(default=None, ge=1, le=10_000)
    per_second: float | None = Field(default=None, gt=0)
    attempts: int = Field(default=16, ge=1, le=_MAX_ATTEMPTS)
    first_retry: DurationMs = Field(default=1_000, ge=1)
    longest_retry: DurationMs = Field(default=6 * HOUR_MS, ge=1)


# It was valid when it was applied. What its connector needs is installed where it is delivered from, and perhaps
# nowhere else.
_APPLIED = object()


class DestinationDefinition(BaseModel):
    """One destination. Keys that are not of this model are options of the kind."""

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    destination: Annotated[str, BeforeValidator(a_name)]
    kind: str
    description: str = Field(default="", max_length=2_000)
    mode: Literal["audience", "trigger"] | None = None
    entity: Literal["person", "account"] | None = None
    segments: Literal["*"] | list[str] | None = None
    changes: list[Literal["entered", "exited"]] = Field(default=["entered", "exited"], min_length=1)
    traits: list[str] | None = None
    profiles: bool | list[str] = False
    events: Literal["*"] | list[str] = []
    alerts: Literal["*"] | list[str] = []
    max_age: DurationMs = HOUR_MS
    purposes: list[str] = []
    channel: Annotated[str, BeforeValidator(a_name)] | None = None
    labels: list[str] = Field(default=[], max_length=50)
    fields: dict[str, Literal["sha256", "mask", "drop"]] = Field(default={}, max_length=1_000)
    outcomes: bool = False
    dry_run: str | None = Field(default=None, min_length=1, max_length=1_000)
    own_sources: list[str] = Field(default=[], max_length=50)
    delivery: DeliveryDefinition = DeliveryDefinition()
    _options: Options = PrivateAttr()

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if isinstance(self.profiles, list):
            unknown = sorted({*self.profiles} - PROFILE_SECTIONS)
            if unknown or not self.profiles:
                raise _at("profiles", f"name sections among {', '.join(sorted(PROFILE_SECTIONS))}, or write true")
        for address in self.fields:
            section, _, path = address.partition(".")
            if section not in _SECTIONS or not all(path.split(".")):
                sections = ", ".join(_SECTIONS)
                raise _at("fields", f"{address!r} is no field; write a section ({sections}), a dot, and its name there")
        if info.context is _APPLIED:
            return self
        try:
            kind = connector_kind(self.kind)
        except UnknownKindError as error:
            raise _at("kind", str(error)) from None
        object.__setattr__(self, "_options", _options(kind, self.__pydantic_extra__ or {}))
        return self

    @property
    def options(self) -> Options:
        """The options of the kind, validated."""
        return self._options

    @property
    def connector(self) -> type[Connector]:
        """The connector class of the kind."""
        return connector_kind(self.kind)

    def compiled(self, paused: bool = False) -> Destination:
        """The frozen plan of this destination."""
        chosen = self.segments
        if chosen is None and not self.profiles and not self.events and not self.alerts:
            chosen = "*"
        sections: frozenset[str] | None = None
        if self.profiles:
            sections = PROFILE_SECTIONS if self.profiles is True else frozenset(self.profiles)
        return Destination(
            name=self.destination,
            kind=self.kind,
            mode=self.mode or mode_of(self.kind),
            entity=self.entity,
            segments=None if chosen == "*" else frozenset(chosen or ()),
            changes=frozenset(self.changes),
            traits=None if self.traits is None else tuple(self.traits),
            profile_sections=sections,
            events=("*",) if self.events == "*" else tuple(self.events),
            alerts=("*",) if self.alerts == "*" else tuple(self.alerts),
            max_age_ms=self.max_age,
            paused=paused,
            purposes=tuple(self.purposes),
            channel=self.channel,
            labels=frozenset(self.labels),
            transforms=tuple(sorted(self.fields.items())),
            own_sources=frozenset(map(source_named, self.own_sources)),
        )


def _at(field: str, what: str) -> ValidationError:
    return _errors([((field,), what)])


def _errors(found: list[tuple[tuple[int | str, ...], str]]) -> ValidationError:
    # The text of an error is data, not a template: braces in it (`{env: NAME}`) must come through as they are.
    details = [
        InitErrorDetails(type=PydanticCustomError("definition", "{what}", {"what": what}), loc=location, input=None)
        for location, what in found
    ]
    return ValidationError.from_exception_data("destination", details)


def _options(kind: type[Connector], extra: dict[str, Any]) -> Options:
    try:
        return kind.options_model.model_validate(extra)
    except ValidationError as error:
        found = []
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            what = detail["msg"].removeprefix("Value error, ")
            if detail["type"] == "extra_forbidden":
                advice = instead(detail["loc"], DestinationDefinition, kind.options_model)
                what = f"there is no key `{detail['loc'][-1]}` for the kind {kind.kind}{advice}"
            elif detail["type"] == "missing":
                what = f"the kind {kind.kind} needs the key `{detail['loc'][-1]}`"
            found.append((detail["loc"], what))
        raise _errors(found) from None


def compile_destinations(bodies: dict[str, dict[str, Any]], paused: frozenset[str]) -> tuple[Destination, ...]:
    """The plans of destinations by name. `paused` holds the names of those that are.

    Raises:
        DefinitionError: a kind of others is not installed here, and its definition says no mode.
    """
    plans = []
    for name, body in sorted(bodies.items()):
        definition = DestinationDefinition.model_validate(body, context=_APPLIED)
        try:
            plans.append(definition.compiled(name in paused))
        except UnknownKindError as error:
            advice = "apply it again where its package is installed, which writes its `mode`"
            raise DefinitionError(f"Its mode is not known: {error}.", f"destination/{name}", advice) from None
    return tuple(plans)


def with_mode(body: dict[str, Any]) -> dict[str, Any]:
    """A valid definition with its mode, where only the package that brings its kind knows it."""
    if body.get("mode") is not None or is_built_in(body["kind"]):
        return body
    return {**body, "mode": mode_of(body["kind"])}


def purposes_known(kind: str, purposes: Mapping[str, Iterable[str]], policy: ConsentPolicy) -> None:
    """Whether every purpose of the definitions of a kind (by name) is among those of the workspace, where it lists
    them.

    Raises:
        DefinitionError: one is not.
    """
    for name, said in purposes.items() if policy.bases else ():
        unknown = sorted(set(said) - policy.bases.keys())
        if unknown:
            raise DefinitionError(
                f"The {kind} {name} has the purpose {unknown[0]}, which is none.",
                f"{kind}/{name}",
                f"write one of {', '.join(sorted(policy.bases))}, or add it to `purposes` of the definition `consent`",
            )
