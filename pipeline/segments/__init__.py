"""Segments and computed traits: rules over the events, traits and consents of one profile, exact to the millisecond.

`compile_plan` makes a `SegmentsPlan` of rules (`pipeline.segments.rules`); the language is described in
docs/segments.md.
"""

from pipeline.segments.accounts import ACCOUNTS, HIDDEN, PEOPLE, AccountFacts, asked_of_people
from pipeline.segments.compile import RuleError, compile_plan
from pipeline.segments.describe import shown
from pipeline.segments.explain import Explained, explain
from pipeline.segments.fixture import FixtureResult, Turns, people_of, run_fixture
from pipeline.segments.kept import NOTHING_SAID, Keeps, goes_at, let_go
from pipeline.segments.nodes import Flip, Rule, segment_of
from pipeline.segments.plan import SegmentsPlan
from pipeline.segments.standing import Standing

NO_SEGMENTS = compile_plan(())
"""The plan of generation 0: nothing is defined."""

__all__ = [
    "ACCOUNTS",
    "HIDDEN",
    "NOTHING_SAID",
    "NO_SEGMENTS",
    "PEOPLE",
    "AccountFacts",
    "Explained",
    "FixtureResult",
    "Flip",
    "Keeps",
    "Rule",
    "RuleError",
    "SegmentsPlan",
    "Standing",
    "Turns",
    "asked_of_people",
    "compile_plan",
    "explain",
    "goes_at",
    "let_go",
    "people_of",
    "run_fixture",
    "segment_of",
    "shown",
]
