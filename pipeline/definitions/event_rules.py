"""Rules about what somebody did: events counted or computed over, in an order, or weighed by their age.

They stand on their own; pipeline.definitions.segments puts them together with the rules that hold others.
"""

from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, StrictFloat, StrictInt, Tag, model_validator

from pipeline.definitions.comparisons import (
    CountComparison,
    Duration,
    EventPath,
    LongDuration,
    Model,
    NumberComparison,
    Selected,
    TimeComparison,
    Windowed,
    without_traits,
)
from pipeline.segments import rules

_HALF_LIVES = 40


class Aggregate(NumberComparison):
    """A property of the events, computed and compared."""

    of: EventPath


class Performed(Windowed):
    """Selected events in a window; their number, or what is computed over them, is compared."""

    count: CountComparison | None = None
    sum: Aggregate | None = None
    average: Aggregate | None = None
    min: Aggregate | None = None
    max: Aggregate | None = None
    distinct: Aggregate | None = None
    first: TimeComparison | None = None
    last: TimeComparison | None = None
    grace: Duration | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        results = [name for name in ("count", *_AGGREGATES, "first", "last") if getattr(self, name) is not None]
        if len(results) > 1:
            raise ValueError(f"one result at a time: {' and '.join(results)} stand here; use two rules under `all`")
        if results and results[0] in ("first", "last") and (self.within is not None or self.calendar is not None):
            raise ValueError(
                f"{results[0]} looks at all events or those between two dates; say within_last in it instead"
            )
        if results and results[0] != "count":
            without_traits(self.selection().where, results[0])
        if self.grace is not None and self.within is None:
            raise ValueError("grace goes with within")
        return self

    def rule(self) -> rules.Performed:
        """The rule as the room takes it."""
        selection, window = self.selection(), self.window(self.grace or 0)
        for function in _AGGREGATES:
            aggregate: Aggregate | None = getattr(self, function)
            if aggregate is not None:
                measure = rules.Measure(selection, window, function, tuple(aggregate.of.split(".")))
                return rules.Performed(measure, aggregate.tests())
        for function, times in (("first_time", self.first), ("last_time", self.last)):
            if times is not None:
                return rules.Performed(rules.Measure(selection, window, function), times.compiled())
        tests = self.count.tests() if self.count is not None else rules.Comparison((rules.Test("at_least", 1),))
        return rules.Performed(rules.Measure(selection, window), tests)


_AGGREGATES = ("sum", "average", "min", "max", "distinct")


class PerformedRule(Model):
    """Events that were, or were not, performed."""

    performed: Performed

    def compiled(self) -> Any:
        return self.performed.rule()


class AbsentEvents(Selected):
    """Events that must not come."""

    by: EventPath | None = None


class EventStep(Selected):
    """An event, later than what came before."""

    within: Duration | None = None
    by: EventPath | None = None


class AbsenceStep(Model):
    """No such event."""

    not_: AbsentEvents = Field(alias="not")
    within: Duration | None = None


def _step_kind(value: Any) -> str:
    return "<absence>" if isinstance(value, AbsenceStep) or (isinstance(value, dict) and "not" in value) else "<event>"


Step = Annotated[
    Annotated[EventStep, Tag("<event>")] | Annotated[AbsenceStep, Tag("<absence>")], Discriminator(_step_kind)
]


class SequenceOfSteps(Model):
    """Steps in order."""

    steps: list[Step] = Field(min_length=2, max_length=10)
    by: EventPath | None = None
    within: LongDuration | None = None
    grace: Duration | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        steps = self.rule().steps
        if steps[0].absent or steps[0].within_ms:
            raise ValueError("a sequence begins with an event, without `within`")
        for number, step in enumerate(steps):
            if step.absent and not step.within_ms and (number + 1 == len(steps) or steps[number + 1].absent):
                raise ValueError(f"step {number + 1}: say for how long (within), unless an event comes directly after")
            without_traits(step.selection.where, "a sequence")
        if any(step.by for step in steps) and not all(step.by for step in steps):
            raise ValueError("if one step has a `by`, all have one; or write it once, beside steps")
        return self

    def rule(self) -> rules.Sequence:
        """The rule as the room takes it."""
        steps = []
        for step in self.steps:
            events = step.not_ if isinstance(step, AbsenceStep) else step
            by = events.by or self.by
            path = tuple(by.split(".")) if by else ()
            steps.append(rules.Step(events.selection(), isinstance(step, AbsenceStep), step.within or 0, path))
        return rules.Sequence(tuple(steps), self.within or 0, self.grace or 0)


class SequenceRule(Model):
    """Events in an order, and absences between and after them."""

    sequence: SequenceOfSteps

    def compiled(self) -> Any:
        return self.sequence.rule()


class WeightedEvents(Selected):
    """What each of these events adds."""

    weight: StrictInt | StrictFloat

    @model_validator(mode="after")
    def _fits(self) -> Self:
        without_traits(self.selection().where, "a score")
        return self


class DecayingScore(NumberComparison):
    """Weights that halve in every half-life."""

    events: list[WeightedEvents] = Field(min_length=1, max_length=100)
    half_life: LongDuration
    within: LongDuration | None = None

    def rule(self) -> rules.Score:
        """The rule as the room takes it."""
        weights = tuple(rules.Weight(one.selection(), float(one.weight)) for one in self.events)
        return rules.Score(weights, self.half_life, self.within or _HALF_LIVES * self.half_life, self.tests())


class ScoreRule(Model):
    """A score that decays."""

    score: DecayingScore

    def compiled(self) -> Any:
        return self.score.rule()
