"""What a rule looks at: the data that membership tells something about."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pipeline.segments import rules
from pipeline.segments.accounts import parts_of


class Input(NamedTuple):
    """One thing a rule looks at. `kind`: event (its name), part (an event, and the path in it), trait (the path),
    account (a trait of accounts, the path), computed or segment (the name). The event `*` is any."""

    kind: str
    name: str = ""
    path: tuple[str, ...] = ()


def inputs_of(rule: Any, entity: str = "person") -> Iterator[Input]:
    """Everything a rule of a segment looks at, in the order in which it stands there, some of it perhaps twice. In a
    segment of accounts traits are the account's, but for what stands in a `match`."""
    for one in _inputs_of(rule):
        yield one._replace(kind="account") if one.kind == "trait" and entity == "account" else _of_person(one)


def _of_person(one: Input) -> Input:
    return one._replace(kind="trait") if one.kind == "trait of people" else one


def _inputs_of(rule: Any) -> Iterator[Input]:
    for part in parts_of(rule):
        if isinstance(part, rules.Performed):
            yield from inputs_of_measure(part.measure)
            yield from _operands(part.comparison)
        elif isinstance(part, rules.TraitIs):
            yield Input("trait", path=part.path)
            yield from _operands(part.comparison)
        elif isinstance(part, rules.ComputedIs):
            yield Input("computed", part.name)
            yield from _operands(part.comparison)
        elif isinstance(part, rules.InSegment):
            yield Input("segment", part.segment)
        elif isinstance(part, rules.Sequence):
            for step in part.steps:
                yield from _selected(step.selection, step.by)
        elif isinstance(part, rules.Score):
            for weight in part.weights:
                yield from _selected(weight.selection)
        elif isinstance(part, rules.Members):
            for one in inputs_of(part.match):
                yield one._replace(kind="trait of people") if one.kind == "trait" else one
        elif isinstance(part, rules.AccountIs):
            for trait in part.traits:
                yield Input("account", path=trait.path)
            if part.segment:
                yield Input("segment", part.segment)
        elif not isinstance(part, _LOOKS_AT_NOTHING):
            raise TypeError(f"{type(part).__name__} is a rule that nobody has said here what it looks at")


_LOOKS_AT_NOTHING = (rules.AllOf, rules.AnyOf, rules.NotOf, rules.ConsentIs, rules.Bucket)


def inputs_of_measure(measure: rules.Measure) -> Iterator[Input]:
    """The same of what a computed trait is computed from."""
    yield from _selected(measure.selection, measure.of)


def _selected(selection: rules.Selection, path: tuple[str, ...] = ()) -> Iterator[Input]:
    for event in selection.events:
        yield Input("event", event)
        if path:
            yield Input("part", event, path)
        for check in _checks(selection.where):
            yield Input("part", event, check.path)
    for check in _checks(selection.where):
        yield from _operands(check.comparison)


def _checks(where: Any) -> Iterator[rules.Check]:
    if where is not None:
        yield from (part for part in parts_of(where) if isinstance(part, rules.Check))


def _operands(comparison: rules.Comparison) -> Iterator[Input]:
    for test in comparison.tests:
        operands = test.operand if isinstance(test.operand, tuple) else (test.operand,)
        yield from (Input("trait", path=one.path) for one in operands if isinstance(one, rules.TraitValue))
