"""What a plan is made of: rules, the nodes of their graph, the leaves below, and what comes of judging them."""

from typing import Any, NamedTuple

from pipeline.segments.atoms import Judge
from pipeline.segments.leaves import Leaf
from pipeline.segments.measures import Value
from pipeline.segments.values import Getter, Predicate
from pipeline.segments.windows import Window


class Flip:
    """A segment was entered or left; `approximate` if a leaf below it was past its cap.

    No NamedTuple, for one is made of every change: compiled rooms make those by calling Python.
    """

    __slots__ = ("approximate", "entered", "segment")

    def __init__(self, segment: str, entered: bool, approximate: bool) -> None:
        self.segment = segment
        self.entered = entered
        self.approximate = approximate


def segment_of(flip: Flip) -> str:
    """What changes of one moment are sorted by."""
    return flip.segment


class Rule(NamedTuple):
    """A segment of the plan. `node` is its root, `leaves` what it rests on, `inexact` those of them that have a cap,
    `refers` the segments it asks for."""

    name: str
    version: int
    entity: str
    node: int
    leaves: tuple[str, ...]
    inexact: tuple[str, ...]
    refers: tuple[str, ...]


class Gate(NamedTuple):
    """True if between `low` and `high` of its children are: all (n, n), any (1, n), not (0, 0)."""

    children: tuple[int, ...]
    low: int
    high: int


class Atom(NamedTuple):
    """A test of facts, and what it depends on: at most one leaf, traits, a consent; `always` if on nothing but the
    clock or the profile's id."""

    judge: Judge
    leaf: str = ""
    traits: tuple[str, ...] = ()
    purpose: str = ""
    always: bool = False


class LeafSpec(NamedTuple):
    """A leaf in the plan: its state's kind, which events it takes, since which generation it has been there.

    `selected` are (event names, key test, remaining predicate): `key` is a path and the keys of values that pass.
    `kept_ms`: what is older goes from the state by deadline (kept.py); 0: with the next event that needs its place.
    """

    leaf: Leaf
    events: tuple[str, ...]
    predicate: Predicate | None
    predicate_key: bytes
    table: tuple[tuple[str, ...], Getter, tuple[Any, ...]] | None
    window: Window
    birth: int
    canonical: str
    kept_ms: int = 0


class Computed(NamedTuple):
    """A computed trait: the value of a leaf's state at a clock."""

    name: str
    version: int
    leaf: str
    value: Value
