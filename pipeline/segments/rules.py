"""What a definition says, as frozen data: the tree that is compiled to a plan.

The doors build these from validated definitions. Two rules that mean the same by construction have the same tree, and
so the same leaves: lists of names and tests are sorted, `between` is `at_least` and `at_most`. Times are ms, UTC.
"""

from typing import Any

import msgspec
from msgspec import Struct


class TraitValue(Struct, frozen=True, tag="trait_value"):
    """An operand: the profile's value of a trait at the clock. `path` starts with the trait's name."""

    path: tuple[str, ...]


class Instant(Struct, frozen=True, tag="instant"):
    """An operand: an instant; `relative` means `ms` after (before, if negative) the clock."""

    ms: int
    relative: bool = False


class Test(Struct, frozen=True, tag="test"):
    """One operator and its operand: a scalar, a tuple of scalars, an `Instant`, a `TraitValue` or a duration in ms."""

    operator: str
    operand: Any


class Comparison(Struct, frozen=True, tag="comparison"):
    """All of `tests` hold for the value, after the cast (`number`, `text` or none)."""

    tests: tuple[Test, ...]
    cast: str = ""


class Check(Struct, frozen=True, tag="check"):
    """The value at `path` of an event (`properties`, `traits` or `context` first) passes."""

    path: tuple[str, ...]
    comparison: Comparison


class AllOf(Struct, frozen=True, tag="all"):
    """Every part is true; with none, true."""

    parts: tuple[Any, ...]


class AnyOf(Struct, frozen=True, tag="any"):
    """At least one part is true; with none, false."""

    parts: tuple[Any, ...]


class NotOf(Struct, frozen=True, tag="not"):
    """The part is false."""

    part: Any


class Selection(Struct, frozen=True, tag="selection"):
    """Events by name (sorted; "*" for any) that pass `where`: a tree of AllOf, AnyOf, NotOf over Check, or None."""

    events: tuple[str, ...]
    where: Any = None


class Ever(Struct, frozen=True, tag="ever"):
    """Any time."""


class Within(Struct, frozen=True, tag="within"):
    """now - window_ms < time <= now."""

    window_ms: int


class Between(Struct, frozen=True, tag="between", omit_defaults=True):
    """start <= time < end; None is open. `written`: from and to as they were written, and their time zone, if there is
    one whose data may change, and the instants with them."""

    start: int | None
    end: int | None
    written: tuple[str, str, str] | None = None


class Calendar(Struct, frozen=True, tag="calendar"):
    """The present unit and the last - 1 before it (`current`), or the `last` whole units before it."""

    unit: str
    last: int
    current: bool
    time_zone: str


class Kept(Struct, frozen=True, tag="kept"):
    """In the window, and not longer ago than `kept_ms`."""

    window: Between | Calendar
    kept_ms: int


Window = Ever | Within | Between | Calendar | Kept


class Measure(Struct, frozen=True, tag="measure"):
    """A value computed over the selected events in the window.

    `function`: count, sum, average, min, max, distinct, first_time, last_time, first, last, most_frequent, unique,
    preferred_hour or prediction. `of` is a path where the function needs one; `limit` is for unique, `time_zone` for
    preferred_hour.
    """

    selection: Selection
    window: Window
    function: str = "count"
    of: tuple[str, ...] = ()
    limit: int = 0
    time_zone: str = ""


class Performed(Struct, frozen=True, tag="performed"):
    """The measure passes the comparison."""

    measure: Measure
    comparison: Comparison


class TraitIs(Struct, frozen=True, tag="trait"):
    """The trait at `path` (its name first) passes."""

    path: tuple[str, ...]
    comparison: Comparison


class ComputedIs(Struct, frozen=True, tag="computed"):
    """The computed trait passes."""

    name: str
    comparison: Comparison


class ConsentIs(Struct, frozen=True, tag="consent"):
    """The consent for a purpose is `granted`, `denied` or `unknown`."""

    purpose: str
    state: str = "granted"


class InSegment(Struct, frozen=True, tag="in_segment"):
    """The profile is a member of another segment at the same instant."""

    segment: str


class Bucket(Struct, frozen=True, tag="bucket"):
    """start <= percentage of hash(salt, profile_id) < end."""

    salt: str
    start: float
    end: float


class Step(Struct, frozen=True, tag="step"):
    """A step of a sequence; `absent` asks for no such event. `within_ms` 0 is no limit; `by` () is no correlation."""

    selection: Selection
    absent: bool = False
    within_ms: int = 0
    by: tuple[str, ...] = ()


class Sequence(Struct, frozen=True, tag="sequence"):
    """Steps in order, the first event within the window (0: ever); an absence is believed `grace_ms` after it began."""

    steps: tuple[Step, ...]
    within_ms: int = 0
    grace_ms: int = 0


class Weight(Struct, frozen=True, tag="weight"):
    """What one selected event adds to a score."""

    selection: Selection
    weight: float


class Score(Struct, frozen=True, tag="score"):
    """The decaying sum of weights passes the comparison."""

    weights: tuple[Weight, ...]
    half_life_ms: int
    within_ms: int
    comparison: Comparison


class Period(Struct, frozen=True, tag="period"):
    """start <= now < end; None is open."""

    start: int | None
    end: int | None


class Members(Struct, frozen=True, tag="members"):
    """How many of an account's people match a rule about a person, compared; with `every`, all of them do."""

    match: Any
    comparison: Comparison = Comparison((Test("at_least", 1),))
    every: bool = False


class AccountIs(Struct, frozen=True, tag="account"):
    """One account of the person's passes every test of its `traits` and is a member of `segment`, if one is named."""

    traits: tuple[TraitIs, ...] = ()
    segment: str = ""


class Segment(Struct, frozen=True, tag="segment"):
    """A named rule."""

    name: str
    when: Any
    version: int = 1
    entity: str = "person"
    valid: Period | None = None


class ComputedTrait(Struct, frozen=True, tag="computed_trait"):
    """A named measure, shown on the profile."""

    name: str
    measure: Measure
    version: int = 1


_encode = msgspec.json.Encoder(order="deterministic").encode


def canonical(tree: Any) -> bytes:
    """The canonical bytes of a tree: equal for rules that are the same."""
    return _encode(tree)


def as_written(tree: Any) -> bytes:
    """The same without what new data of time zones would change: what is kept under it is found again."""
    found = _encode(tree)
    return _encode(_without_instants(msgspec.json.decode(found))) if b'"written":' in found else found


def _without_instants(tree: Any) -> Any:
    if isinstance(tree, list):
        return [_without_instants(one) for one in tree]
    if not isinstance(tree, dict):
        return tree
    if "written" in tree:
        return {**tree, "start": None, "end": None}
    return {name: _without_instants(one) for name, one in tree.items()}
