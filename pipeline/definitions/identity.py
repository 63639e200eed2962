"""`identity.yaml`: what people write about identifiers, validated and compiled to the frozen identity rules.

    identity:
      preset: strict                # begin with these rules instead of the built-in ones
      default_region: DE            # for phone numbers in national form
      quarantine_after: 10          # an identifier with more people than this is nobody's
      pseudonymous_for: 90d         # who is known by devices and browsers only is forgotten after so long in silence
      namespaces:
        email: {limit: 5, strip_plus_tag: true, blocked: ['@example\\.com$']}
        device_id: {quarantine_after: 3}
        loyalty_card: {priority: 15, unique: true, normaliser: digits}

A namespace keeps what is not said about it: what is built in, or what the preset says. The order of priorities also
decides where events are routed, and is fixed when a workspace is created.
"""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import phonenumbers
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.definitions.durations import duration_ms
from pipeline.errors import DefinitionError
from pipeline.identifiers import ACCOUNT
from pipeline.identity import (
    BUILT_IN,
    STRICT,
    IdentityRules,
    Namespace,
    compile_pattern,
    is_namespace,
    undeclared_priority,
)

KEY = "identity"
# A room sees a mistake last; these say it first, in the words of the file.
_PRESETS: dict[str | None, tuple[Namespace, ...]] = {None: BUILT_IN, "strict": STRICT}
_LEAST_MS = 60_000
_NAMESPACE_FORM = "a namespace is 1 to 64 letters, digits, '_', '-' or '.'; a colon parts it from the value"


def _pattern(text: str) -> str:
    compile_pattern(text)
    return text


def _length(text: str) -> str:
    # Kept as it was written: a version in the topic is what people said.
    if duration_ms(text) < _LEAST_MS:
        raise ValueError(f"{text} is too short; it is at least a minute, like 30m or 90d")
    return text


def _namespace(name: str) -> str:
    if name == ACCOUNT:
        raise ValueError(f"{name!r} names accounts and cannot be a namespace of people: take another name")
    if not is_namespace(name):
        raise ValueError(f"{name!r} cannot name a namespace: {_NAMESPACE_FORM}")
    return name


class NamespaceDefinition(BaseModel):
    """What is said about one namespace."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: int | None = Field(
        default=None, ge=1, le=1_000_000, description="1 is the strongest; without one, after all others, by name"
    )
    unique: bool | None = Field(default=None, description="a profile holds at most one value")
    limit: int | None = Field(default=None, ge=1, description="how many values one profile may hold")
    normaliser: Literal["none", "lower", "email", "phone", "digits"] | None = Field(
        default=None, description="how values are brought to one spelling"
    )
    blocked: list[Annotated[str, AfterValidator(_pattern)]] | None = Field(
        default=None,
        description="regular expressions (RE2) in any case; what they are found in is no identifier",
    )
    on_conflict: Literal["first", "latest"] | None = Field(
        default=None, description="which evidence wins where a limit lets only one: the earliest, or the newest"
    )
    quarantine_after: int | None = Field(
        default=None, ge=1, description="as for all, for the values of this namespace: 1 for devices nobody shares"
    )
    person: bool | None = Field(
        default=None, description="a value of this namespace counts as a person for quarantines, as a unique one does"
    )
    strip_plus_tag: bool | None = Field(default=None, description="ann+news@x.io is ann@x.io; for e-mail only")

    @model_validator(mode="after")
    def _unique_is_a_limit_of_one(self) -> "NamespaceDefinition":
        if self.unique and self.limit not in (None, 1):
            raise ValueError(f"unique means a limit of 1, not {self.limit}; leave one of the two out")
        return self


class IdentityDefinition(BaseModel):
    """The identity rules as people write them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["strict"] | None = Field(
        default=None,
        description="the rules to begin with: `strict` for whom a wrong merge is worse than a lost visit",
    )
    default_region: str | None = Field(default=None, description="country of national phone numbers, like DE or US")
    quarantine_after: int | None = Field(
        default=None, ge=1, description="follow no identifier that touches more people than this"
    )
    pseudonymous_for: Annotated[str, AfterValidator(_length)] | None = Field(
        default=None, description="profiles of devices and browsers only end so long after their last event: 90d"
    )
    namespaces: dict[Annotated[str, AfterValidator(_namespace)], NamespaceDefinition] = {}

    @field_validator("default_region")
    @classmethod
    def _region_is_known(cls, value: str | None) -> str | None:
        if value is not None and value not in phonenumbers.SUPPORTED_REGIONS:
            raise ValueError(f"{value!r} is not a country in two capital letters, like DE or US")
        return value

    @model_validator(mode="after")
    def _namespaces_fit_together(self) -> "IdentityDefinition":
        taken: dict[int, str] = {}
        for name, namespace in self._namespaces().items():
            other = taken.setdefault(namespace.priority, name)
            if other != name and namespace.priority <= 1_000_000:
                raise ValueError(f"{other} and {name} share the priority {namespace.priority}; one must be stronger")
            if namespace.strip_plus_tag and namespace.normaliser != "email":
                raise ValueError(f"namespaces.{name}: strip_plus_tag needs the normaliser email")
        return self

    def _namespaces(self) -> dict[str, Namespace]:
        merged = {namespace.name: namespace for namespace in _PRESETS[self.preset]}
        for name, said in self.namespaces.items():
            base = merged.get(name) or Namespace(name, undeclared_priority(name))
            changes = said.model_dump(exclude_none=True, exclude={"blocked"})
            # Somebody who gives a limit to a unique namespace, or the other way round, means what is written now.
            if said.limit is not None and said.unique is None:
                changes["unique"] = said.limit == 1
            if said.blocked is not None:
                changes["blocked"] = tuple(said.blocked)
            merged[name] = replace(base, **changes)
        return merged

    def to_rules(self) -> IdentityRules:
        """The frozen rules the rooms work with."""
        rules = IdentityRules(
            self._namespaces(),
            default_region=self.default_region,
            expire_after_ms=None if self.pseudonymous_for is None else duration_ms(self.pseudonymous_for),
        )
        return rules if self.quarantine_after is None else replace(rules, quarantine_after=self.quarantine_after)

    def to_body(self) -> dict[str, Any]:
        """The form in which a version is kept in the topic `definitions`: what was said, nothing that is a default."""
        return self.model_dump(mode="json", exclude_unset=True)


def parse_identity(document: Any, where: str = "identity.yaml") -> IdentityDefinition:
    """Validate a document: the whole file with its key `identity`, or the body below it.

    Raises:
        DefinitionError: says every mistake, each with the path of its field.
    """
    body = document[KEY] if isinstance(document, Mapping) and set(document) == {KEY} else document
    if body is None:
        body = {}
    if not isinstance(body, Mapping):
        kind = type(body).__name__
        raise DefinitionError(f"`identity` must be a mapping, not a {kind}", where, "see `identity` in the docs")
    try:
        return IdentityDefinition.model_validate(body)
    except ValidationError as error:
        mistakes = [_spoken(one) for one in error.errors(include_url=False)]
        what_to_do = "Correct the fields named above, and apply again."
        raise DefinitionError(
            "The identity rules are not valid:\n  " + "\n  ".join(mistakes), where, what_to_do
        ) from error


def identity_rules(body: Mapping[str, Any]) -> IdentityRules:
    """The rules of a version kept in the topic `definitions`."""
    return parse_identity(body, "definitions").to_rules()


def _spoken(mistake: Any) -> str:
    path = ".".join(str(part) for part in mistake["loc"] if part != "[key]")
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        inside = "namespaces" in mistake["loc"]
        known = list((NamespaceDefinition if inside else IdentityDefinition).model_fields)
        near = get_close_matches(str(mistake["loc"][-1]), known, 1)
        message = f"there is no such field; did you mean {near[0]}?" if near else f"fields are {', '.join(known)}"
    return f"{path}: {message}" if path else message
