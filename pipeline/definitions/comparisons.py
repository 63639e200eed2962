"""Comparisons, conditions on events and windows, as people write them in segments and computed traits."""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

import re2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.definitions.durations import duration_ms
from pipeline.definitions.keys import NAME, a_name
from pipeline.segments import rules
from pipeline.segments.values import is_relative, parse_instant
from pipeline.segments.windows import local_instant
from pipeline.segments.zones import zone_of

LONGEST_MS = 100 * 365 * 86_400_000
_DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d|w|y))+$", "examples": ["30s", "15m", "2h", "7d"]}
_RELATIVE = re.compile(r"now(?:([+-])([0-9a-z]+))?")
_ZONED = re.compile(r".*(?:Z|[+-]\d{2}:?\d{2})")
_MAX_PATTERN = 1_000


class Model(BaseModel):
    """Strict: a key that isn't known is a mistake, a text is no number."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, populate_by_name=True, hide_input_in_errors=True
    )


def wrong_at(places: Mapping[str, str]) -> ValidationError:
    """What is wrong, each at the key that it is about: what stands around a key has many lines."""
    return ValidationError.from_exception_data(
        "definition",
        [
            InitErrorDetails(type=PydanticCustomError("value_error", "{what}", {"what": what}), loc=(key,), input=None)
            for key, what in places.items()
        ],
    )


def _limited(value: Any, least_ms: int) -> int:
    ms = duration_ms(value)
    if not least_ms <= ms <= LONGEST_MS:
        raise ValueError(f"{value} is outside of what is possible: {'1s' if least_ms > 1 else '1ms'} to 100y")
    return ms


def _zone(value: str) -> str:
    if value not in _zones():
        raise ValueError(f"there is no time zone {value!r}; write an IANA name, like Europe/Berlin")
    return value


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def instant_ms(text: Any, time_zone: str = "UTC") -> int:
    """A written instant as ms; without an offset in `time_zone`. Raises ValueError."""
    ms = parse_instant(text) if isinstance(text, str) else None
    if ms is None:
        raise ValueError(f"{text!r} is no instant; write a date like 2026-03-01, or 2026-03-01T09:30:00+01:00")
    if time_zone == "UTC" or (len(text) > 10 and _ZONED.fullmatch(text)):
        return ms
    seconds, rest = divmod(ms, 1_000)
    local = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    try:
        return local_instant(local, zone_of(time_zone).info) + rest
    except OverflowError:
        raise ValueError(f"{text!r} in {time_zone} is before the year 1 or after 9999; leave it out") from None


def _moment(value: Any) -> rules.Instant:
    if isinstance(value, str):
        found = _RELATIVE.fullmatch(value)
        if found:
            sign, length = found.groups()
            ms = _limited(length, 1) if length else 0
            return rules.Instant(-ms if sign == "-" else ms, relative=True)
    try:
        return rules.Instant(instant_ms(value))
    except ValueError as error:
        raise ValueError(f"{error}, or now, now-30d, now+1h") from error


def _pattern(value: str) -> str:
    if len(value) > _MAX_PATTERN:
        raise ValueError(f"the pattern is longer than {_MAX_PATTERN:,} characters")
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(value, options)
    except re2.error as error:
        detail = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error.args[0])
        raise ValueError(f"the pattern isn't one RE2 knows: {detail}") from error
    return value


def _trait_path(value: str) -> str:
    if not value or len(value) > 300 or not all(value.split(".")):
        raise ValueError("write the name of a trait, or a path into it like address.city")
    return value


def _event_path(value: str) -> str:
    root, _, rest = value.partition(".")
    if root not in ("properties", "traits", "context") or not rest or not all(rest.split(".")) or len(value) > 300:
        raise ValueError(f"{value!r} is no path; write properties.total, traits.plan or context.page.url")
    return value


Name = Annotated[str, BeforeValidator(a_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
LongDuration = Annotated[int, BeforeValidator(lambda v: _limited(v, 1_000)), WithJsonSchema(_DURATION)]
Duration = Annotated[int, BeforeValidator(lambda v: _limited(v, 1)), WithJsonSchema(_DURATION)]
TimeZone = Annotated[str, AfterValidator(_zone)]
Moment = Annotated[
    Any, BeforeValidator(_moment), WithJsonSchema({"type": "string", "examples": ["2026-03-01", "now-30d"]})
]
Pattern = Annotated[str, AfterValidator(_pattern)]
TraitPath = Annotated[str, AfterValidator(_trait_path)]
EventPath = Annotated[str, AfterValidator(_event_path)]
Text = Annotated[StrictStr, Field(max_length=10_000)]
Number = StrictInt | StrictFloat
_PAIR = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)


def _ascending(pair: tuple[Any, Any]) -> tuple[Any, Any]:
    if pair[0] > pair[1]:
        raise ValueError(f"between {pair[0]!r} and {pair[1]!r} there is nothing: write the smaller one first")
    return pair


_ASCENDING = AfterValidator(_ascending)
Scalar = StrictBool | StrictInt | StrictFloat | Text


class TraitOperand(Model):
    """The profile's value of a trait, in place of a fixed operand."""

    trait: TraitPath


class Comparison(Model):
    """Operators and their operands; all must hold. A text, number or boolean alone means `equals`."""

    equals: Scalar | TraitOperand | None = None
    not_equals: Scalar | TraitOperand | None = None
    in_: list[Scalar] | None = Field(default=None, alias="in", max_length=10_000)
    not_in: list[Scalar] | None = Field(default=None, max_length=10_000)
    contains: Scalar | None = None
    not_contains: Scalar | None = None
    starts_with: Text | None = None
    ends_with: Text | None = None
    regex: Pattern | None = None
    regex_full: Pattern | None = None
    greater_than: Number | Text | TraitOperand | None = None
    at_least: Number | Text | TraitOperand | None = None
    less_than: Number | Text | TraitOperand | None = None
    at_most: Number | Text | TraitOperand | None = None
    between: Annotated[tuple[Number, Number] | tuple[Text, Text], _PAIR, _ASCENDING] | None = None
    exists: StrictBool | None = None
    before: Moment | None = None
    after: Moment | None = None
    within_last: Duration | None = None
    within_next: Duration | None = None
    as_: Literal["number", "text"] | None = Field(default=None, alias="as")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"equals": value} if isinstance(value, str | int | float | bool) else value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        blank = sorted(name.rstrip("_") for name in self.model_fields_set if getattr(self, name) is None)
        if blank:
            advice = "has no value; to ask for a missing value write exists: false"
            raise wrong_at({name: f"{name} {advice}" for name in blank})
        if not self.compiled().tests:
            raise ValueError("a comparison has at least one operator, like equals, greater_than or exists")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> Any:
        schema = handler.resolve_ref_schema(handler(core_schema))
        mapping = dict(schema)
        schema.clear()
        schema.update({"anyOf": [{"type": ["string", "number", "boolean"]}, mapping], "title": "Comparison"})
        return schema

    def compiled(self) -> rules.Comparison:
        """The comparison as the room takes it."""
        tests = []
        for name, operand in self:
            if operand is None or name == "as_":
                continue
            if isinstance(operand, TraitOperand):
                operand = rules.TraitValue(tuple(operand.trait.split(".")))
            if name == "between":
                tests += [rules.Test("at_least", operand[0]), rules.Test("at_most", operand[1])]
            else:
                tests.append(rules.Test(name.rstrip("_"), tuple(operand) if isinstance(operand, list) else operand))
        return rules.Comparison(_sorted(tests), self.as_ or "")


class NumberComparison(Model):
    """Operators for a number; all must hold."""

    at_least: Number | None = None
    at_most: Number | None = None
    more_than: Number | None = None
    less_than: Number | None = None
    exactly: Number | None = None
    between: Annotated[tuple[Number, Number], _PAIR, _ASCENDING] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.tests().tests:
            raise ValueError("compare with at_least, at_most, more_than, less_than, exactly or between")
        return self

    def tests(self) -> rules.Comparison:
        """The comparison as the room takes it."""
        tests = []
        for name in ("at_least", "at_most", "more_than", "less_than", "exactly"):
            operand = getattr(self, name)
            if operand is not None:
                tests.append(rules.Test(name, operand))
        if self.between is not None:
            tests += [rules.Test("at_least", self.between[0]), rules.Test("at_most", self.between[1])]
        return rules.Comparison(_sorted(tests))


class CountComparison(NumberComparison):
    """Operators for a count: whole numbers from 0 to 10,000."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for test in self.tests().tests:
            if not isinstance(test.operand, int) or not 0 <= test.operand <= 10_000:
                raise ValueError(f"a count is a whole number from 0 to 10,000, not {test.operand}")
        return self


class TimeComparison(Model):
    """Operators for the time of an event; all must hold."""

    before: Moment | None = None
    after: Moment | None = None
    within_last: Duration | None = None
    within_next: Duration | None = None
    exists: StrictBool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.compiled().tests:
            raise ValueError("compare with before, after, within_last, within_next or exists")
        return self

    def compiled(self) -> rules.Comparison:
        """The comparison as the room takes it."""
        return rules.Comparison(_sorted([rules.Test(name, value) for name, value in self if value is not None]))


def _sorted(tests: list[rules.Test]) -> tuple[rules.Test, ...]:
    return tuple(sorted(tests, key=lambda test: (test.operator, rules.canonical(test.operand))))


# ------------------------------------------------------------------------------------------------ events, conditions


class Where(BaseModel):
    """Paths of an event and their comparisons, all of which hold; beside them `all`, `any` and `not` of the same."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True, hide_input_in_errors=True)
    __pydantic_extra__: dict[str, Comparison]

    all: "list[Where] | None" = Field(default=None, max_length=100)
    any: "list[Where] | None" = Field(default=None, max_length=100)
    not_: "Where | None" = Field(default=None, alias="not")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wrong = {
            path: what
            for path, comparison in self.__pydantic_extra__.items()
            if (what := _wrong_in_where(path, comparison))
        }
        if wrong:
            raise wrong_at(wrong)
        return self

    def compiled(self) -> Any:
        """The condition as the room takes it."""
        parts: list[Any] = [
            rules.Check(tuple(path.split(".")), comparison.compiled())
            for path, comparison in sorted(self.__pydantic_extra__.items())
        ]
        if self.all is not None:
            parts += [part.compiled() for part in self.all]
        if self.any is not None:
            parts.append(rules.AnyOf(tuple(part.compiled() for part in self.any)))
        if self.not_ is not None:
            parts.append(rules.NotOf(self.not_.compiled()))
        return parts[0] if len(parts) == 1 else rules.AllOf(tuple(parts))


def _wrong_in_where(path: str, comparison: Comparison) -> str:
    try:
        _event_path(path)
    except ValueError as error:
        return str(error)
    if any(is_relative(test) for test in comparison.compiled().tests):
        return f"{path}: a `where` can't depend on the clock; use a window, or compare a trait"
    return ""


EventName = Annotated[str, Field(min_length=1, max_length=200)]


class Selected(Model):
    """Events by name, and a condition on them."""

    event: EventName | list[EventName]
    where: Where | None = None

    @field_validator("event")
    @classmethod
    def _named(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and (not value or "*" in value or len(value) > 100):
            raise ValueError('name 1 to 100 events, or write "*" alone for any event')
        return value

    def selection(self) -> rules.Selection:
        """The events as the room takes them."""
        names = (self.event,) if isinstance(self.event, str) else tuple(sorted(set(self.event)))
        where = None if self.where is None else self.where.compiled()
        return rules.Selection(names, None if where == rules.AllOf(()) else where)


# ---------------------------------------------------------------------------------------------------------- windows


class BetweenDates(Model):
    """from <= time < to."""

    from_: str | None = Field(default=None, alias="from")
    to: str | None = None
    time_zone: TimeZone = "UTC"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        wrong = {}
        for key, text in (("from", self.from_), ("to", self.to)):
            try:
                instant_ms("1970-01-01" if text is None else text, self.time_zone)
            except ValueError as error:
                wrong[key] = str(error)
        if wrong:
            raise wrong_at(wrong)
        window = self.window()
        if window.start is None and window.end is None:
            raise ValueError("write from, to, or both")
        if window.start is not None and window.end is not None and window.start >= window.end:
            raise ValueError("from must be before to")
        return self

    def window(self) -> rules.Between:
        """The window as the room takes it."""
        start, end = (None if one is None else instant_ms(one, self.time_zone) for one in (self.from_, self.to))
        written = None if self.time_zone == "UTC" else (self.from_ or "", self.to or "", self.time_zone)
        return rules.Between(start, end, written)


class CalendarUnits(Model):
    """Whole units of the calendar."""

    unit: Literal["day", "week", "month", "quarter", "year"]
    last: Annotated[int, Field(ge=1, le=1_000)] = 1
    current: StrictBool = True
    time_zone: TimeZone = "UTC"


class Windowed(Selected):
    """Selected events in at most one window."""

    within: LongDuration | None = None
    between: BetweenDates | None = None
    calendar: CalendarUnits | None = None

    @model_validator(mode="after")
    def _one_window(self) -> Self:
        if sum(one is not None for one in (self.within, self.between, self.calendar)) > 1:
            raise ValueError("write only one of within, between and calendar")
        return self

    def window(self, grace_ms: int = 0) -> rules.Window:
        """The window as the room takes it."""
        if self.within is not None:
            return rules.Within(self.within + grace_ms)
        if self.between is not None:
            return self.between.window()
        if self.calendar is not None:
            units = self.calendar
            return rules.Calendar(units.unit, units.last, units.current, units.time_zone)
        return rules.Ever()


def without_traits(where: Any, what: str) -> None:
    """Refuse a condition that compares with a trait, where only fixed operands are possible."""
    for check in checks_in(where):
        if any(isinstance(test.operand, rules.TraitValue) for test in check.comparison.tests):
            raise ValueError(
                f"{'.'.join(check.path)}: {what} can't compare with a trait; only performed with count can"
            )


def checks_in(where: Any) -> Iterator[rules.Check]:
    """Every check of a condition."""
    if isinstance(where, rules.Check):
        yield where
    elif isinstance(where, rules.NotOf):
        yield from checks_in(where.part)
    elif where is not None:
        for part in where.parts:
            yield from checks_in(part)
