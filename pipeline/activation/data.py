"""What data may be used for, and what of it may leave: the labels and purposes of every field, as contracts give them.

A destination may have a field that has no labels but those it takes, if all of its purposes are among those of the
field. Of a field nobody said anything about, it may have everything. What is said of a field in several places counts
together: all labels, and only the purposes that are named everywhere.

    part of an event    what is said of it, else of the part it is in, else of the event; labels of all of these
    trait               the same, in whichever event it is described; one that is described nowhere: as all events that
                        may bring traits they do not describe. In an event: as that, if described, and as part of it
    trait of accounts   as the property of the event `Group`
    identifier          as the trait of the same name, if that is described
    computed trait, membership of a segment      as everything that its rule looks at, together
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Path = tuple[str, ...]
"""Leads to a field, "*" standing for every item of a list."""


class Rule(NamedTuple):
    """What was said about some data. `purposes` None: nothing."""

    labels: frozenset[str] = frozenset()
    purposes: frozenset[str] | None = None

    def joined(self, other: "Rule") -> "Rule":
        """Both together."""
        if self.purposes is None or other.purposes is None:
            purposes = self.purposes if other.purposes is None else other.purposes
        else:
            purposes = self.purposes & other.purposes
        return Rule(self.labels | other.labels, purposes)

    def refusal(self, labels: frozenset[str], purposes: Iterable[str]) -> str:
        """Why a destination that takes these labels, for these purposes, may not have the data; empty if it may."""
        beyond = sorted(self.labels - labels)
        if beyond:
            return f"is labelled {', '.join(beyond)}, which the destination does not take"
        if self.purposes is not None:
            wanted = tuple(purposes)
            only = ", ".join(sorted(self.purposes)) or "nothing"
            if not wanted:
                return f"may be used for {only} only, and the destination names no purpose"
            others = [purpose for purpose in wanted if purpose not in self.purposes]
            if others:
                return f"may be used for {only} only, and the destination's purpose is {others[0]}"
        return ""


FREE = Rule()


def together(rules: Iterable[Rule]) -> Rule:
    """All of these together."""
    found = FREE
    for rule in rules:
        found = found.joined(rule)
    return found


@dataclass(frozen=True, slots=True)
class Fields:
    """A section of an event, or the traits of profiles: `base` is said of all of it, `said` of single fields. `apart`:
    only of those of which nothing is said."""

    base: Rule = FREE
    said: Mapping[Path, Rule] = field(default_factory=dict)
    apart: bool = False

    def outer(self, path: Path) -> Rule:
        """The rule of a field, but for what is said of fields inside it."""
        labels, purposes = FREE if self.apart and path[:1] in self.said else self.base
        for length in range(1, len(path) + 1):
            rule = self.said.get(path[:length])
            if rule is not None:
                labels |= rule.labels
                if rule.purposes is not None:
                    purposes = rule.purposes
        return Rule(labels, purposes)

    def inside(self, path: Path) -> Iterator[Path]:
        """The fields inside a field of which something is said."""
        return (one for one in self.said if len(one) > len(path) and one[: len(path)] == path)

    def whole(self, path: Path) -> Rule:
        """The rule of a field with everything inside it."""
        return together((self.outer(path), *(self.outer(one) for one in self.inside(path))))

    def joined(self, other: "Fields") -> "Fields":
        """What is said in two places."""
        said = {path: self.outer(path).joined(other.outer(path)) for path in (*self.said, *other.said)}
        return Fields(self.base.joined(other.base), said, self.apart)


NO_FIELDS = Fields()


@dataclass(frozen=True, slots=True)
class DataRules:
    """The rules of all data. `events` by name, `unplanned` of events that no contract has; `parts` by (event, section);
    `traits` of profiles; `computed` and `segments` by name."""

    events: Mapping[str, Rule] = field(default_factory=dict)
    unplanned: Rule = FREE
    parts: Mapping[tuple[str, str], Fields] = field(default_factory=dict)
    traits: Fields = NO_FIELDS
    computed: Mapping[str, Rule] = field(default_factory=dict)
    segments: Mapping[str, Rule] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said about any data."""
        return self == NO_RULES

    def event(self, name: str) -> Rule:
        """The rule of an event: that it happened, and what of it nothing else is said of."""
        return self.events.get(name, self.unplanned)

    def fields(self, event: str, section: str) -> Fields:
        """A section of an event."""
        found = self.parts.get((event, section))
        if found is None:
            found = Fields(self.event(event))
            if section == "traits":
                found = found.joined(Fields(FREE, self.traits.said, apart=True))
        return found

    def identifier(self, namespace: str) -> Rule:
        """The rule of an identifier."""
        return self.traits.outer((namespace,)) if (namespace,) in self.traits.said else FREE


NO_RULES = DataRules()


def walked(value: Any, path: Path) -> bool:
    """Whether there is anything at the path."""
    if not path:
        return True
    if path[0] == "*":
        return isinstance(value, list) and any(walked(item, path[1:]) for item in value)
    return isinstance(value, Mapping) and path[0] in value and walked(value[path[0]], path[1:])


def changed_at(value: Any, path: Path, change: Any) -> Any:
    """A copy of the value with `change` made of what is at the path; None takes it away. The value itself stays."""
    if not path:
        return change(value)
    if path[0] == "*":
        if not isinstance(value, list):
            return value
        if len(path) == 1 and change is None:
            return []
        return [changed_at(item, path[1:], change) for item in value]
    if not isinstance(value, Mapping) or path[0] not in value:
        return value
    if len(path) == 1 and change is None:
        return {name: one for name, one in value.items() if name != path[0]}
    return {**value, path[0]: changed_at(value[path[0]], path[1:], change)}
