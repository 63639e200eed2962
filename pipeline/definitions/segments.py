"""Segments as people write them: docs/segments.md has the language, this the models that read it.

Every rule is a mapping with one key. Models say what is wrong and where; `compiled()` gives the frozen rules of
pipeline.segments.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    StrictFloat,
    StrictInt,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.definitions.account_rules import HowMany, asked_of_account, fits_entity, refuse_inside
from pipeline.definitions.catalog import Catalog, contracts_plan
from pipeline.definitions.comparisons import (
    Comparison,
    Model,
    Name,
    TraitPath,
    instant_ms,
    wrong_at,
)
from pipeline.definitions.contracts import Words
from pipeline.definitions.event_rules import PerformedRule, ScoreRule, SequenceRule
from pipeline.definitions.traits import computed_trait
from pipeline.errors import DefinitionError
from pipeline.records import Generation
from pipeline.segments import NOTHING_SAID, Keeps, RuleError, SegmentsPlan, compile_plan, rules

_MAX_DEPTH = 20
_MAX_RULES = 500
_MOST_TOLD = 20
_KEYS = (
    "all",
    "any",
    "not",
    "performed",
    "sequence",
    "score",
    "trait",
    "computed",
    "consent",
    "in_segment",
    "bucket",
    "members",
    "account",
)


class AllRule(Model):
    """Every rule is true; the empty list: everyone."""

    all: "list[Rule]"

    def compiled(self) -> Any:
        return rules.AllOf(tuple(one.compiled() for one in self.all))


class AnyRule(Model):
    """At least one rule is true; the empty list: no one."""

    any: "list[Rule]"

    def compiled(self) -> Any:
        return rules.AnyOf(tuple(one.compiled() for one in self.any))


class NotRule(Model):
    """The rule is false."""

    not_: "Rule" = Field(alias="not")

    def compiled(self) -> Any:
        return rules.NotOf(self.not_.compiled())


class TraitRule(Model):
    """Traits that pass."""

    trait: dict[TraitPath, Comparison] = Field(min_length=1)

    def compiled(self) -> Any:
        parts = [rules.TraitIs(tuple(name.split(".")), one.compiled()) for name, one in sorted(self.trait.items())]
        return parts[0] if len(parts) == 1 else rules.AllOf(tuple(parts))


class ComputedRule(Model):
    """Computed traits that pass."""

    computed: dict[Name, Comparison] = Field(min_length=1)

    def compiled(self) -> Any:
        parts = [rules.ComputedIs(name, one.compiled()) for name, one in sorted(self.computed.items())]
        return parts[0] if len(parts) == 1 else rules.AllOf(tuple(parts))


Purpose = Annotated[str, Field(min_length=1, max_length=100)]


class Consent(Model):
    """A consent."""

    purpose: Purpose
    is_: Literal["granted", "denied", "unknown"] = Field(default="granted", alias="is")


class ConsentRule(Model):
    """A consent is given, refused, or not known."""

    consent: Consent | Purpose

    @field_validator("consent", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"purpose": value} if isinstance(value, str) else value

    def compiled(self) -> Any:
        if isinstance(self.consent, str):
            return rules.ConsentIs(self.consent)
        return rules.ConsentIs(self.consent.purpose, self.consent.is_)


class InSegmentRule(Model):
    """A member of another segment at the same instant."""

    in_segment: Name

    def compiled(self) -> Any:
        return rules.InSegment(self.in_segment)


class Bucket(Model):
    """A share of all profiles, chosen by a salted hash."""

    salt: Annotated[str, Field(min_length=1, max_length=200)]
    from_: StrictInt | StrictFloat = Field(alias="from", default=0)
    to: StrictInt | StrictFloat

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.from_ < self.to <= 100:
            raise ValueError("from and to are percentages: 0 <= from < to <= 100")
        return self


class BucketRule(Model):
    """A share of all profiles."""

    bucket: Bucket

    def compiled(self) -> Any:
        return rules.Bucket(self.bucket.salt, float(self.bucket.from_), float(self.bucket.to))


class Members(HowMany):
    """A rule about people, and for how many of an account's it is true."""

    match: "Rule"

    @field_validator("match")
    @classmethod
    def _of_people(cls, value: Any) -> Any:
        refuse_inside(value.compiled(), "a match", rules.Members, rules.AccountIs)
        return value

    def rule(self) -> rules.Members:
        """The rule as the room takes it."""
        return rules.Members(self.match.compiled(), self.comparison(), bool(self.all))


class MembersRule(Model):
    """People of an account."""

    members: Members

    def compiled(self) -> Any:
        return self.members.rule()


class AskedOfAccount(Model):
    """Tests that one account of the person's passes."""

    trait: dict[TraitPath, Comparison] | None = Field(default=None, min_length=1)
    in_segment: Name | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        asked_of_account(self.trait, self.in_segment)
        return self


class AccountRule(Model):
    """An account of the person's."""

    account: AskedOfAccount

    def compiled(self) -> Any:
        return asked_of_account(self.account.trait, self.account.in_segment)


def _known(value: Any) -> Any:
    """Refuse what is no rule, in words that name the mistake."""
    if isinstance(value, Model):
        return value
    if not isinstance(value, dict) or not value:
        raise PydanticCustomError("rule", "a rule is a mapping with one key: {keys}", {"keys": ", ".join(_KEYS)})
    unknown = {key: _no_rule(str(key)) for key in value if key not in _KEYS}
    if unknown:
        raise wrong_at(unknown)
    first, *more = value
    if more:
        keys = ", ".join((first, *more))
        raise wrong_at({more[0]: f"a rule has one key; here stand {keys}: put them under `all` or `any`"})
    return value


def _no_rule(key: str) -> str:
    near = get_close_matches(key, _KEYS, 1)
    return f"there is no rule `{key}`; " + (f"did you mean `{near[0]}`?" if near else "rules are " + ", ".join(_KEYS))


def _rule_kind(value: Any) -> str:
    key = next(iter(type(value).model_fields)).rstrip("_") if isinstance(value, Model) else next(iter(value))
    return f"<{key}>"


Rule = Annotated[
    Annotated[AllRule, Tag("<all>")]
    | Annotated[AnyRule, Tag("<any>")]
    | Annotated[NotRule, Tag("<not>")]
    | Annotated[PerformedRule, Tag("<performed>")]
    | Annotated[SequenceRule, Tag("<sequence>")]
    | Annotated[ScoreRule, Tag("<score>")]
    | Annotated[TraitRule, Tag("<trait>")]
    | Annotated[ComputedRule, Tag("<computed>")]
    | Annotated[ConsentRule, Tag("<consent>")]
    | Annotated[InSegmentRule, Tag("<in_segment>")]
    | Annotated[BucketRule, Tag("<bucket>")]
    | Annotated[MembersRule, Tag("<members>")]
    | Annotated[AccountRule, Tag("<account>")],
    Discriminator(_rule_kind),
    BeforeValidator(_known),
]


class SegmentDefinition(Model):
    """A segment: a named question about one person, true or false at every instant."""

    segment: Name
    description: str = Field(default="", max_length=2_000)
    tags: list[str] = Field(default=[], max_length=100)
    purposes: Words = []
    entity: Literal["person", "account"] = "person"
    valid_from: str | None = None
    valid_until: str | None = None
    when: Rule

    @field_validator("valid_from", "valid_until")
    @classmethod
    def _instant(cls, value: str | None) -> str | None:
        if value is not None:
            instant_ms(value)
        return value

    @field_validator("when", mode="before")
    @classmethod
    def _bounded(cls, value: Any) -> Any:
        count, depth = _size(value, 1)
        if depth > _MAX_DEPTH:
            raise ValueError(f"rules stand {depth} deep in each other; {_MAX_DEPTH} is the limit: use in_segment")
        if count > _MAX_RULES:
            raise ValueError(f"there are {count} rules; {_MAX_RULES} is the limit: use in_segment")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        fits_entity(self.when.compiled(), self.entity)
        period = self.valid()
        if period and period.start is not None and period.end is not None and period.start >= period.end:
            raise ValueError("valid_from must be before valid_until")
        return self

    def valid(self) -> rules.Period | None:
        """When anybody can be a member."""
        if self.valid_from is None and self.valid_until is None:
            return None
        start, end = (None if one is None else instant_ms(one) for one in (self.valid_from, self.valid_until))
        return rules.Period(start, end)

    def compiled(self, version: int = 1) -> rules.Segment:
        """The definition as the room takes it."""
        return rules.Segment(self.segment, self.when.compiled(), version, self.entity, self.valid())


def _size(value: Any, depth: int) -> tuple[int, int]:
    if not isinstance(value, dict):
        return 1, depth
    inner: list[Any] = []
    for key in ("all", "any"):
        inner += value[key] if isinstance(value.get(key), list) else []
    if "not" in value:
        inner.append(value["not"])
    if isinstance(value.get("members"), dict):
        inner.append(value["members"].get("match"))
    if depth > 50:
        return 1, depth
    sizes = [_size(one, depth + 1) for one in inner]
    return 1 + sum(count for count, _ in sizes), max((deep for _, deep in sizes), default=depth)


def segment(body: dict[str, Any], version: int = 1) -> rules.Segment:
    """A valid definition as the room takes it."""
    return SegmentDefinition.model_validate(body).compiled(version)


def compile_definitions(
    segments: Iterable[tuple[dict[str, Any], int]],
    computed: Iterable[tuple[dict[str, Any], int]] = (),
    generation: int = 0,
    births: dict[str, int] | None = None,
    keeps: Keeps = NOTHING_SAID,
) -> SegmentsPlan:
    """The plan of (body, version) pairs, for what contracts allow to be kept. Raises DefinitionError for references to
    what isn't there, and for cycles."""
    try:
        return compile_plan(
            [segment(*one) for one in segments], [computed_trait(*one) for one in computed], generation, births, keeps
        )
    except RuleError as error:
        wrong = error.all[:_MOST_TOLD]
        raise DefinitionError(
            " ".join(f"The segment {one.name} can't be used: {one.problem}." for one in wrong),
            ", ".join(dict.fromkeys(f"segment {one.name}" for one in wrong)),
            "correct it, and apply again",
        ) from error


def segments_plan(catalog: Catalog, generation: Generation) -> SegmentsPlan:
    """The segments and computed traits of a generation, compiled. Raises DefinitionError."""
    contracts = contracts_plan(catalog, generation)
    plan = compile_definitions(
        [(each.body, each.version) for each in catalog.of_kind(generation, "segment")],
        [(each.body, each.version) for each in catalog.of_kind(generation, "trait")],
        generation.number,
        generation.leaves,
        Keeps(contracts.keeps_events, contracts.keeps_parts),
    )
    return plan.with_paused(catalog.paused(generation, "segment"))


def leaves_of(catalog: Catalog, generation: Generation) -> Iterable[str]:
    """The leaves of a generation, by the hashes that `Generation.leaves` goes by. Raises DefinitionError."""
    return segments_plan(catalog, generation).births
