"""From rules to a plan: equal parts of rules become one node, over the leaves that `leaf_specs` makes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from pipeline.segments import atoms, rules
from pipeline.segments.accounts import (
    ACCOUNTS,
    PEOPLE,
    AccountIs,
    MembersPass,
    asked_of_accounts,
    circle,
    hidden_name,
    hidden_segments,
    parts_of,
    questions,
)
from pipeline.segments.kept import NOTHING_SAID, Keeps, kept, kept_leaves, kept_measure
from pipeline.segments.leaf_specs import LeafSpecs
from pipeline.segments.leaves import (
    Counter,
    Exact,
    NewestTimes,
    PathEntries,
    TimesOfUnits,
)
from pipeline.segments.nodes import Atom, Computed, Gate, Rule
from pipeline.segments.plan import SegmentsPlan, index_leaves
from pipeline.segments.selection import thresholds
from pipeline.segments.standing import fingerprint_of
from pipeline.segments.values import (
    Getter,
    compile_condition_with_traits,
    event_getter,
    has_trait_values,
    is_relative,
    paths_of,
    trait_names,
)
from pipeline.segments.windows import Window, compile_window
from pipeline.segments.zones import digests_of


class RuleError(ValueError):
    """A set of definitions that can't be compiled: what is wrong, in which definition; and the name that is not there,
    if that is it. `others`: what else is not there. `circle`: segments of which each asks for the next, and the
    last for the first, if that is it."""

    def __init__(
        self,
        name: str,
        problem: str,
        missing: str = "",
        others: "tuple[RuleError, ...]" = (),
        circle: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem
        self.missing = missing
        self.others = others
        self.circle = tuple(circle)

    @property
    def all(self) -> "tuple[RuleError, ...]":
        """It and the others."""
        return (self, *self.others)


@dataclass(frozen=True, slots=True)
class NoFacts:
    """A profile with nothing in it."""

    leaves: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    consents: Mapping[str, Any] = field(default_factory=dict)
    profile_id: str = ""


def compile_plan(
    segments: Iterable[rules.Segment],
    computed: Iterable[rules.ComputedTrait] = (),
    generation: int = 0,
    births: Mapping[str, int] | None = None,
    keeps: Keeps = NOTHING_SAID,
) -> SegmentsPlan:
    """Compile a whole set of definitions. `keeps`: how long contracts allow what they count to be kept.

    `births` says since which generation each leaf has been there without a break, by the hash in its id
    (`SegmentsPlan.births` of the generation before); a leaf it doesn't know is born in `generation`.
    Raises RuleError for references to what isn't there, and for cycles.
    """
    everything = tuple(msgspec.structs.replace(one, when=kept(one.when, keeps)) for one in segments)
    computed = [msgspec.structs.replace(one, measure=kept_measure(one.measure, keeps)) for one in computed]
    people = [one for one in everything if one.entity == "person"]
    accounts = [one for one in everything if one.entity != "person"]
    known = births or {}
    if not accounts and not asked_of_accounts(people):
        return _Compiler(people, computed, generation, known, keeps=keeps).plan()
    entities = {one.name: one.entity for one in everything}
    found = circle(everything)
    if found:
        what = "segments lead back to themselves: " + " → ".join(found)
        raise RuleError(found[0], what, circle=found[:-1])
    for one in people:
        for asks in asked_of_accounts((one,)):
            if asks.segment and entities.get(asks.segment) != "account":
                what = f"account: in_segment: there is no segment {asks.segment!r} of accounts"
                raise RuleError(one.name, f"{what}; define it, or correct the name", asks.segment)
    hidden = hidden_segments(accounts)
    try:
        plan = _Compiler([*people, *hidden.values()], computed, generation, known, entities, keeps).plan()
    except RuleError as error:
        raise _all_of([_asked_for(one, accounts, hidden) for one in error.all]) from error
    of_accounts = _Compiler(accounts, (), generation, known, entities, keeps).plan()
    asked_all = asked_of_accounts(people)
    asked = questions([*everything, *hidden.values()])
    asked_since = {one: known.get(one, generation) for one in frozenset[str]().union(*asked.values())}
    return replace(
        plan.with_leaves_of(of_accounts),
        accounts=of_accounts,
        watched=frozenset(hidden),
        told_traits=frozenset(test.path[0] for asks in asked_all for test in asks.traits),
        told_segments=frozenset(asks.segment for asks in asked_all if asks.segment),
        questions=asked_since,
        answered_since={name: max(asked_since[one] for one in its) for name, its in asked.items()},
    )


def _all_of(errors: list[RuleError]) -> RuleError:
    first, *others = errors
    return RuleError(first.name, first.problem, first.missing, tuple(others), first.circle)


def _asked_for(error: RuleError, accounts: Iterable[rules.Segment], hidden: Mapping[str, rules.Segment]) -> RuleError:
    """The error of the segment of accounts for which a hidden one stands."""
    if error.name not in hidden:
        return error
    asking = next(one.name for one in accounts if error.name in hidden_segments((one,)))
    return RuleError(asking, f"members: {error.problem}", error.missing)


class _Compiler:
    def __init__(
        self,
        segments: Iterable[rules.Segment],
        computed: Iterable[rules.ComputedTrait],
        generation: int,
        births: Mapping[str, int],
        entities: Mapping[str, str] | None = None,
        keeps: Keeps = NOTHING_SAID,
    ) -> None:
        self.entities = entities or {}
        self.segments = {one.name: one for one in segments}
        self.computed = {one.name: one for one in computed}
        self.generation = generation
        self.made = LeafSpecs(generation, births, keeps)
        self.nodes: list[Atom | Gate] = []
        self.node_of: dict[bytes, int] = {}
        self.leaves_below: list[frozenset[str]] = []
        self.roots: dict[str, int] = {}
        self.path: list[str] = []

    def plan(self) -> SegmentsPlan:
        wrong = [one for name in sorted(self.segments) for one in self._missing(self.segments[name])]
        if wrong:
            raise _all_of(wrong)
        traits = {}
        for name in sorted(self.computed):
            leaf_id, value = self.made.measure(self.computed[name].measure)
            traits[name] = Computed(name, self.computed[name].version, leaf_id, value)
        for name in sorted(self.segments):
            self._root(name)
        defaults, parents = self._defaults()
        roots: dict[int, tuple[str, ...]] = {}
        for name in sorted(self.roots):
            roots[self.roots[name]] = (*roots.get(self.roots[name], ()), name)
        by_leaf: dict[str, tuple[int, ...]] = {}
        by_trait: dict[str, tuple[int, ...]] = {}
        by_purpose: dict[str, tuple[int, ...]] = {}
        always = []
        for number, node in enumerate(self.nodes):
            if isinstance(node, Atom):
                if node.leaf:
                    by_leaf[node.leaf] = (*by_leaf.get(node.leaf, ()), number)
                for trait in node.traits:
                    by_trait[trait] = (*by_trait.get(trait, ()), number)
                if node.purpose:
                    by_purpose[node.purpose] = (*by_purpose.get(node.purpose, ()), number)
                if node.always:
                    always.append(number)
        return SegmentsPlan(
            generation=self.generation,
            segments={
                name: Rule(
                    name,
                    one.version,
                    one.entity,
                    self.roots[name],
                    tuple(sorted(self.leaves_below[self.roots[name]])),
                    tuple(
                        leaf_id
                        for leaf_id in sorted(self.leaves_below[self.roots[name]])
                        if not isinstance(self.made.leaves[leaf_id].leaf, Exact)
                    ),
                    tuple(sorted(referred(one.when))),
                )
                for name, one in sorted(self.segments.items())
            },
            default_members=frozenset(name for name, node in self.roots.items() if defaults[node]),
            leaves=self.made.leaves,
            kept=kept_leaves(self.made.leaves),
            computed_traits=traits,
            nodes=tuple(self.nodes),
            node_of=self.node_of,
            sources=self.segments,
            measures=self.made.measures,
            fingerprint=fingerprint_of(self.node_of, digests_of(self.made.zones)),
            _judges=tuple(node.judge if isinstance(node, Atom) else None for node in self.nodes),
            _leaf_of=tuple(node.leaf if isinstance(node, Atom) else "" for node in self.nodes),
            _defaults=defaults,
            _parents=parents,
            _roots=roots,
            _by_leaf=by_leaf,
            _by_trait=by_trait,
            _by_purpose=by_purpose,
            _always=tuple(always),
            _index=index_leaves(self.made.leaves),
        )

    def _missing(self, segment: rules.Segment) -> Iterator[RuleError]:
        """What a segment asks for and is not there."""
        for part in parts_of(segment.when):
            if isinstance(part, rules.InSegment) and part.segment not in self.segments:
                if part.segment in self.entities:
                    whose = f"{self.entities[part.segment]}s"
                    what = f"in_segment: {part.segment!r} is a segment of {whose}; see `account`"
                else:
                    what = f"in_segment: there is no segment {part.segment!r}; define it, or correct the name"
                yield RuleError(segment.name, what, part.segment)
            elif isinstance(part, rules.ComputedIs) and part.name not in self.computed:
                what = f"computed: there is no computed trait {part.name!r}; define it, or correct the name"
                yield RuleError(segment.name, what, part.name)

    def _defaults(self) -> tuple[tuple[bool, ...], tuple[tuple[int, ...], ...]]:
        nothing = NoFacts()
        defaults: list[bool] = []
        parents: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            if isinstance(node, Atom):
                # What depends on the clock or the profile's id is judged for every profile: it has no default.
                defaults.append(False if node.always else node.judge.says({}, nothing, 0)[0])
                continue
            count = sum(defaults[child] for child in node.children)
            defaults.append(node.low <= count <= node.high)
            for child in node.children:
                parents[child].append(number)
        return tuple(defaults), tuple(tuple(one) for one in parents)

    # -------------------------------------------------------------------------------------------------------- nodes

    def _root(self, name: str) -> int:
        if name in self.roots:
            return self.roots[name]
        if name in self.path:
            what = "in_segment leads back to itself: " + " → ".join((*self.path, name))
            raise RuleError(name, what, circle=self.path[self.path.index(name) :])
        segment = self.segments[name]
        self.path.append(name)
        node = self._node(segment.when, name)
        if segment.valid is not None:
            node = self._all((node, self._node(segment.valid, name)))
        self.path.pop()
        self.roots[name] = node
        return node

    def _add(self, key: bytes, node: Atom | Gate) -> int:
        number = self.node_of.get(key)
        if number is None:
            number = self.node_of[key] = len(self.nodes)
            self.nodes.append(node)
            if isinstance(node, Atom):
                below = frozenset((node.leaf,)) if node.leaf else frozenset()
            else:
                below = frozenset().union(*(self.leaves_below[child] for child in node.children))
            self.leaves_below.append(below)
        return number

    def _all(self, children: tuple[int, ...]) -> int:
        children = tuple(sorted(set(children)))
        if len(children) == 1:
            return children[0]
        return self._add(repr(("all", children)).encode(), Gate(children, len(children), len(children)))

    def _any(self, children: tuple[int, ...]) -> int:
        children = tuple(sorted(set(children)))
        if len(children) == 1:
            return children[0]
        return self._add(repr(("any", children)).encode(), Gate(children, 1, max(1, len(children))))

    def _not(self, child: int) -> int:
        return self._add(repr(("not", child)).encode(), Gate((child,), 0, 0))

    def _node(self, rule: Any, name: str) -> int:
        key = rules.canonical(rule)
        known = self.node_of.get(key)
        if known is not None:
            return known
        number = self._compile(rule, name)
        self.node_of.setdefault(key, number)
        return number

    def _compile(self, rule: Any, name: str) -> int:
        if isinstance(rule, rules.AllOf):
            return self._all(tuple(self._node(part, name) for part in rule.parts))
        if isinstance(rule, rules.AnyOf):
            return self._any(tuple(self._node(part, name) for part in rule.parts))
        if isinstance(rule, rules.NotOf):
            return self._not(self._node(rule.part, name))
        if isinstance(rule, rules.InSegment):
            return self._root(rule.segment)
        if isinstance(rule, rules.Performed):
            return self._performed(rule)
        key = rules.canonical(rule)
        if isinstance(rule, rules.TraitIs):
            traits = {rule.path[0], *trait_names(rule.comparison)}
            return self._add(key, Atom(atoms.TraitIs(rule), traits=tuple(sorted(traits))))
        if isinstance(rule, rules.ComputedIs):
            return self._computed(rule)
        if isinstance(rule, rules.ConsentIs):
            return self._add(key, Atom(atoms.ConsentIs(rule), purpose=rule.purpose))
        if isinstance(rule, rules.Members):
            match = hidden_name(rule.match)
            depends = (match, PEOPLE) if rule.every else (match,)
            return self._add(key, Atom(MembersPass(match, rule), traits=depends, always=True))
        if isinstance(rule, rules.AccountIs):
            return self._add(key, Atom(AccountIs(rule), traits=(ACCOUNTS,), always=True))
        if isinstance(rule, rules.Bucket):
            return self._add(key, Atom(atoms.InBucket(rule), always=True))
        if isinstance(rule, rules.Period):
            return self._add(key, Atom(atoms.InPeriod(rule), always=True))
        if isinstance(rule, rules.Sequence):
            leaf_id = self.made.sequence(rule)
            return self._add(key, Atom(atoms.SequenceMatches(leaf_id, rule), leaf=leaf_id))
        if isinstance(rule, rules.Score):
            leaf_id = self.made.score(rule)
            return self._add(key, Atom(atoms.ScorePasses(leaf_id, rule), leaf=leaf_id))
        raise TypeError(f"no rule: {rule!r}")

    def _performed(self, rule: rules.Performed) -> int:
        measure, key = rule.measure, rules.canonical(rule)
        if has_trait_values(measure.selection.where):
            return self._against_trait(rule, key)
        window = compile_window(measure.window)
        if measure.function == "count":
            return self._count(rule, window)
        leaf_id, value = self.made.measure(measure)
        falls = window.suffix and measure.function in ("sum", "distinct")
        traits = tuple(sorted(trait_names(rule.comparison)))
        return self._add(key, Atom(atoms.Compare(leaf_id, value, rule.comparison, falls), leaf=leaf_id, traits=traits))

    def _computed(self, rule: rules.ComputedIs) -> int:
        trait = self.computed[rule.name]
        leaf_id, value = self.made.measure(trait.measure)
        traits = tuple(sorted(trait_names(rule.comparison)))
        key = rules.canonical((rule.comparison, trait.measure))
        judge = atoms.Compare(leaf_id, value, rule.comparison, False)
        # A sum of nothing is 0, an instant like any other: against the clock it may pass now and not later.
        timely = any(is_relative(test) for test in rule.comparison.tests) and judge.says({}, NoFacts(), 0)[1] > 0
        return self._add(key, Atom(judge, leaf=leaf_id, traits=traits, always=timely))

    def _count(self, rule: rules.Performed, window: Window) -> int:
        """A count is a gate over `at least k`: k + 1 newest times answer `at most k` too."""
        bounds = [thresholds(test) for test in rule.comparison.tests]
        keep = max((k for pair in bounds for k in pair if k is not None and k > 0), default=1)
        if isinstance(rule.measure.window, rules.Ever | rules.Between):
            leaf_id = self.made.leaf(("count",), Counter(), rule.measure)
        else:
            kind, leaf = ("newest", NewestTimes(keep)) if window.suffix else ("units", TimesOfUnits(keep, window))
            leaf_id = self.made.leaf((kind, keep), leaf, rule.measure)
        children = []
        for low, high in bounds:
            if low is not None:
                children.append(self._count_at_least(leaf_id, low, rule.measure, window))
            if high is not None:
                children.append(self._not(self._count_at_least(leaf_id, high, rule.measure, window)))
        return self._all(tuple(children))

    def _count_at_least(self, leaf_id: str, threshold: int, measure: rules.Measure, window: Window) -> int:
        if threshold <= 0:
            return self._all(())
        key = f"{leaf_id} at least {threshold}".encode()
        if isinstance(measure.window, rules.Ever | rules.Between):
            return self._add(key, Atom(atoms.CounterAtLeast(leaf_id, threshold), leaf=leaf_id))
        return self._add(key, Atom(atoms.CountAtLeast(leaf_id, threshold, window), leaf=leaf_id))

    def _against_trait(self, rule: rules.Performed, key: bytes) -> int:
        measure = rule.measure
        where = measure.selection.where
        parts = where.parts if isinstance(where, rules.AllOf) else (where,)
        fixed = tuple(part for part in parts if not has_trait_values(part))
        moving = rules.AllOf(tuple(part for part in parts if has_trait_values(part)))
        paths = sorted(paths_of(moving))
        places = {path: number for number, path in enumerate(paths)}
        window = compile_window(measure.window)
        leaf = PathEntries(window.span_ms, tuple(event_getter(path) for path in paths))
        selection = rules.Selection(measure.selection.events, rules.AllOf(fixed) if fixed else None)
        leaf_id = self.made.leaf(("paths", paths), leaf, rules.Measure(selection, measure.window))

        def getter_of(path: tuple[str, ...]) -> Getter:
            place = places[path]
            return lambda values: values[place]

        passes = compile_condition_with_traits(moving, getter_of)
        judge = atoms.CompareAgainstTrait(leaf_id, leaf, passes, rule.comparison, window)
        return self._add(key, Atom(judge, leaf=leaf_id, traits=tuple(sorted(trait_names(where)))))


def referred(rule: Any) -> set[str]:
    """The segments a rule asks for by in_segment."""
    if isinstance(rule, rules.InSegment):
        return {rule.segment}
    if isinstance(rule, rules.NotOf):
        return referred(rule.part)
    if isinstance(rule, rules.AllOf | rules.AnyOf):
        return set().union(*(referred(part) for part in rule.parts))
    return set()
