"""What rules about accounts, and rules that ask people about their accounts, have beside those of segments."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator

from pipeline.definitions.comparisons import Comparison, Model, Number
from pipeline.segments import rules
from pipeline.segments.accounts import parts_of
from pipeline.segments.values import trait_names

_WORDS = ("any", "none", "all")
_OPERATORS = ("at_least", "at_most", "more_than", "less_than", "exactly")
_MOST = 10_000


class HowMany(Model):
    """For how many people: a word, or operators for a count; nothing means any."""

    any: Literal[True] | None = None
    none: Literal[True] | None = None
    all: Literal[True] | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    more_than: Number | None = None
    less_than: Number | None = None
    exactly: Number | None = None
    between: tuple[Number, Number] | None = None

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("between"), list):
            return {**value, "between": tuple(value["between"])}
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        words = [word for word in _WORDS if getattr(self, word)]
        tests = self._tests()
        if len(words) + bool(tests) > 1:
            raise ValueError(f"say for how many people in one way: {' or '.join(words)}, or a comparison")
        for test in tests:
            if not isinstance(test.operand, int) or not 0 <= test.operand <= _MOST:
                raise ValueError(f"a number of people is whole, from 0 to {_MOST:,}, not {test.operand}")
        return self

    def _tests(self) -> list[rules.Test]:
        tests = [rules.Test(name, operand) for name in _OPERATORS if (operand := getattr(self, name)) is not None]
        if self.between is not None:
            tests += [rules.Test("at_least", self.between[0]), rules.Test("at_most", self.between[1])]
        return tests

    def comparison(self) -> rules.Comparison:
        """The comparison of the count; unused where all people are meant."""
        if self.none:
            return rules.Comparison((rules.Test("exactly", 0),))
        tests = self._tests() or [rules.Test("at_least", 1)]
        return rules.Comparison(tuple(sorted(tests, key=lambda test: (test.operator, test.operand))))


def asked_of_account(traits: Mapping[str, Comparison] | None, segment: str | None) -> rules.AccountIs:
    """What `account` asks, as the room takes it. Raises ValueError."""
    if not traits and segment is None:
        raise ValueError("say what the account has: trait, in_segment, or both")
    tests = [rules.TraitIs(tuple(name.split(".")), one.compiled()) for name, one in sorted((traits or {}).items())]
    for test in tests:
        if trait_names(test.comparison):
            raise ValueError("account: a trait of an account is not compared with another trait")
    return rules.AccountIs(tuple(tests), segment or "")


def fits_entity(when: Any, entity: str) -> None:
    """Whether a compiled rule may stand in a segment of this entity. Raises ValueError."""
    if entity == "account":
        refuse_inside(when, "a segment of accounts", rules.ConsentIs, rules.ComputedIs, rules.AccountIs)
    else:
        refuse_inside(when, "a segment of people", rules.Members)


_WRITTEN: dict[Any, str] = {
    rules.ConsentIs: "consent",
    rules.ComputedIs: "computed",
    rules.AccountIs: "account",
    rules.Members: "members",
}


def refuse_inside(rule: Any, where: str, *kinds: Any) -> None:
    """Raise ValueError if a rule of one of these kinds stands in a compiled rule."""
    for part in parts_of(rule):
        if isinstance(part, kinds):
            about = "accounts: write `entity: account`" if isinstance(part, rules.Members) else "people"
            raise ValueError(f"`{_WRITTEN[type(part)]}` does not go in {where}; it is about {about}")
