"""Rules between people and accounts: what a person's rule asks of an account, and an account's rule of its people.

`members: {match: RULE}` becomes a segment of people that nobody sees: people are judged by it as by any other, and tell
their accounts when they enter and leave. So an account only counts, and needs no event, window or timer of a person.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from pipeline.segments import rules
from pipeline.segments.atoms import Judge
from pipeline.segments.describe import describe
from pipeline.segments.measures import sooner
from pipeline.segments.values import compile_comparison, compile_judge, trait_at

HIDDEN = "~"
"""Begins the names of segments that exist for a `match` only; no name that people write begins so."""

PEOPLE = "~people"
"""The name under which the number of an account's people is a trait that atoms depend on."""

ACCOUNTS = "~accounts"
"""The name under which what a person's accounts say of themselves is a trait that atoms depend on."""


class AccountFacts(NamedTuple):
    """What an account tells its people: traits {name: (time, value)} and the segments it is a member of."""

    traits: Mapping[str, tuple[int, Any]]
    segments: frozenset[str]


def parts_of(rule: Any) -> Iterable[Any]:
    """A rule and every rule inside it, but for what stands in a `match`."""
    yield rule
    if isinstance(rule, rules.AllOf | rules.AnyOf):
        for part in rule.parts:
            yield from parts_of(part)
    elif isinstance(rule, rules.NotOf):
        yield from parts_of(rule.part)


def members_in(segments: Iterable[rules.Segment]) -> list[rules.Members]:
    """Every `members` rule in these segments of accounts."""
    return [part for one in segments for part in parts_of(one.when) if isinstance(part, rules.Members)]


def asked_of_people(segment: rules.Segment) -> list[tuple[str, str]]:
    """Of each `members` rule in a segment of accounts: what it says, and the hidden segment that stands for it."""
    return [(describe(rule), hidden_name(rule.match)) for rule in members_in((segment,))]


def asked_of_accounts(segments: Iterable[rules.Segment]) -> list[rules.AccountIs]:
    """Every `account` rule in these segments of people."""
    return [part for one in segments for part in parts_of(one.when) if isinstance(part, rules.AccountIs)]


class MembersPass(Judge):
    """How many of the account's people are in a segment, compared. `facts.people` counts them by segment, and all of
    them under PEOPLE."""

    def __init__(self, name: str, rule: rules.Members) -> None:
        self._name, self._every = name, rule.every
        self._passes = compile_comparison(rule.comparison)

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        people = facts.people
        number = people.get(self._name, 0)
        return number == people.get(PEOPLE, 0) if self._every else self._passes(number), 0


class AccountIs(Judge):
    """Whether one of the person's accounts passes everything. `facts.accounts` maps each to its AccountFacts."""

    def __init__(self, rule: rules.AccountIs) -> None:
        self._tests = [(one.path, compile_judge(one.comparison)) for one in rule.traits]
        self._segment = rule.segment

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        segment = self._segment
        found, next_ms = False, 0
        for told in facts.accounts.values():
            truth = not segment or segment in told.segments
            for path, judge_value in self._tests:
                passed, changes_ms = judge_value(trait_at(told.traits, path), told.traits, now_ms)
                truth = truth and passed
                next_ms = sooner(next_ms, changes_ms)
            found = found or truth
        return found, next_ms


def hidden_name(match: Any) -> str:
    """The name of the segment that stands for a `match`."""
    return HIDDEN + blake2b(rules.as_written(("match", match)), digest_size=9).hexdigest()


def hidden_segments(segments: Iterable[rules.Segment]) -> dict[str, rules.Segment]:
    """The segments of people that the `members` rules of these segments of accounts ask about, by name."""
    found = {}
    for rule in members_in(segments):
        name = hidden_name(rule.match)
        found[name] = rules.Segment(name, rule.match)
    return found


def circle(segments: Iterable[rules.Segment]) -> tuple[str, ...]:
    """Segments that refer to each other in a circle, through people and accounts; empty if there are none."""
    refers = {one.name: sorted(_referred(one.when)) for one in segments}
    done: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done or name not in refers:
            return ()
        for other in refers[name]:
            found = follow(other, (*path, name))
            if found:
                return found
        done.add(name)
        return ()

    for name in refers:
        found = follow(name, ())
        if found:
            return found
    return ()


def questions(segments: Iterable[rules.Segment]) -> dict[str, frozenset[str]]:
    """What each segment of people asks of accounts, itself or through segments it asks for: names of segments to
    questions, each a text that is the same as long as its answer is. Segments that ask nothing are left out."""
    by_name = {one.name: one for one in segments}
    found: dict[str, frozenset[str]] = {}
    for one in by_name.values():
        if one.entity != "person":
            continue
        asked: set[str] = set()
        for part in (part for name in _reached(one.name, by_name) for part in parts_of(by_name[name].when)):
            if isinstance(part, rules.AccountIs):
                asked.update(f"trait {test.path[0]}" for test in part.traits)
                if part.segment:
                    reached = [by_name[name] for name in sorted(_reached(part.segment, by_name, into_accounts=True))]
                    meaning = tuple((each.name, each.when, each.valid) for each in reached)
                    asked.add(f"segment {blake2b(rules.as_written(meaning), digest_size=9).hexdigest()}")
        if asked:
            found[one.name] = frozenset(asked)
    return found


def _reached(name: str, by_name: Mapping[str, rules.Segment], into_accounts: bool = False) -> set[str]:
    """A segment, and those it asks for in turn: among people, and from there into accounts if wanted."""
    reached: set[str] = set()
    left = [name]
    while left:
        one = left.pop()
        if one in reached or one not in by_name or not (into_accounts or by_name[one].entity == "person"):
            continue
        reached.add(one)
        left += _referred(by_name[one].when)
    return reached


def _referred(rule: Any) -> set[str]:
    found: set[str] = set()
    for part in parts_of(rule):
        if isinstance(part, rules.InSegment) or (isinstance(part, rules.AccountIs) and part.segment):
            found.add(part.segment)
        elif isinstance(part, rules.Members):
            found |= _referred(part.match)
    return found
