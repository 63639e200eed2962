"""From rules to a plan: equal parts of rules become one node, equal states one leaf with a stable id."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from pipeline.segments import atoms, measures, rules
from pipeline.segments.accounts import (
    ACCOUNTS,
    PEOPLE,
    account_is,
    asked_of_accounts,
    circle,
    hidden_name,
    hidden_segments,
    members_pass,
    questions,
)
from pipeline.segments.kept import NOTHING_SAID, Keeps, kept, kept_leaves, kept_measure
from pipeline.segments.leaves import (
    Counter,
    DistinctValues,
    Exact,
    FirstAndLast,
    Frequencies,
    HashEntries,
    Leaf,
    NewestTimes,
    NumberEntries,
    PathEntries,
    RecentValues,
    Statistics,
    StepEntries,
    TextEntries,
    TimeEntries,
    ValueAt,
    WeightEntries,
)
from pipeline.segments.plan import Atom, Computed, Gate, LeafSpec, Rule, SegmentsPlan, index_leaves
from pipeline.segments.predictions import LatestScore, valid_score
from pipeline.segments.selection import event_predicate, split_equality, thresholds
from pipeline.segments.values import (
    Getter,
    Predicate,
    compile_condition,
    compile_condition_with_traits,
    event_getter,
    has_trait_values,
    is_relative,
    paths_of,
    trait_names,
)
from pipeline.segments.windows import Window, compile_window

_STATISTICS = frozenset(("sum", "average", "min", "max"))


class RuleError(ValueError):
    """A set of definitions that can't be compiled: what is wrong, in which definition; and the name that is not there,
    if that is it."""

    def __init__(self, name: str, problem: str, missing: str = "") -> None:
        super().__init__(f"{name}: {problem}")
        self.name = name
        self.problem = problem
        self.missing = missing


@dataclass(frozen=True, slots=True)
class NoFacts:
    """A profile with nothing in it."""

    leaves: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, Any] = field(default_factory=dict)
    consents: Mapping[str, Any] = field(default_factory=dict)
    profile_id: str = ""


def leaf_hash(canonical: bytes) -> str:
    """The part of a leaf's id that its meaning decides."""
    return urlsafe_b64encode(hashlib.blake2b(canonical, digest_size=9).digest()).decode()


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
        raise RuleError(found[0], "segments lead back to themselves: " + " → ".join(found))
    for one in people:
        for asks in asked_of_accounts((one,)):
            if asks.segment and entities.get(asks.segment) != "account":
                what = f"account: in_segment: there is no segment {asks.segment!r} of accounts"
                raise RuleError(one.name, f"{what}; define it, or correct the name", asks.segment)
    hidden = hidden_segments(accounts)
    plan = _Compiler([*people, *hidden.values()], computed, generation, known, entities, keeps).plan()
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
        self.keeps = keeps
        self.entities = entities or {}
        self.segments = {one.name: one for one in segments}
        self.computed = {one.name: one for one in computed}
        self.generation, self.births = generation, births
        self.nodes: list[Atom | Gate] = []
        self.node_of: dict[bytes, int] = {}
        self.leaves: dict[str, LeafSpec] = {}
        self.leaves_below: list[frozenset[str]] = []
        self.roots: dict[str, int] = {}
        self.path: list[str] = []
        self.conditions: dict[bytes, Predicate] = {}
        self.measures: dict[bytes, tuple[str, measures.Value]] = {}

    def plan(self) -> SegmentsPlan:
        traits = {}
        for name in sorted(self.computed):
            leaf_id, value = self._measure(self.computed[name].measure)
            traits[name] = Computed(name, self.computed[name].version, leaf_id, value)
        for name in sorted(self.segments):
            self._root(name)
        defaults, counts, parents = self._defaults()
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
                        if not isinstance(self.leaves[leaf_id].leaf, Exact)
                    ),
                    tuple(sorted(referred(one.when))),
                )
                for name, one in sorted(self.segments.items())
            },
            default_members=frozenset(name for name, node in self.roots.items() if defaults[node]),
            leaves=self.leaves,
            kept=kept_leaves(self.leaves),
            computed_traits=traits,
            nodes=tuple(self.nodes),
            node_of=self.node_of,
            sources=self.segments,
            measures=self.measures,
            _judges=tuple(node.judge if isinstance(node, Atom) else None for node in self.nodes),
            _leaf_of=tuple(node.leaf if isinstance(node, Atom) else "" for node in self.nodes),
            _defaults=defaults,
            _default_counts=counts,
            _parents=parents,
            _roots=roots,
            _by_leaf=by_leaf,
            _by_trait=by_trait,
            _by_purpose=by_purpose,
            _always=tuple(always),
            _index=index_leaves(self.leaves),
        )

    def _defaults(self) -> tuple[tuple[bool, ...], tuple[int, ...], tuple[tuple[int, ...], ...]]:
        nothing = NoFacts()
        defaults: list[bool] = []
        counts: list[int] = []
        parents: list[list[int]] = [[] for _ in self.nodes]
        for number, node in enumerate(self.nodes):
            if isinstance(node, Atom):
                # What depends on the clock or the profile's id is judged for every profile: it has no default.
                defaults.append(False if node.always else node.judge(nothing, 0)[0])
                counts.append(0)
                continue
            count = sum(defaults[child] for child in node.children)
            counts.append(count)
            defaults.append(node.low <= count <= node.high)
            for child in node.children:
                parents[child].append(number)
        return tuple(defaults), tuple(counts), tuple(tuple(one) for one in parents)

    # -------------------------------------------------------------------------------------------------------- nodes

    def _root(self, name: str) -> int:
        if name in self.roots:
            return self.roots[name]
        if name in self.path:
            raise RuleError(name, "in_segment leads back to itself: " + " → ".join((*self.path, name)))
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
            if rule.segment not in self.segments:
                if rule.segment in self.entities:
                    whose = f"{self.entities[rule.segment]}s"
                    what = f"in_segment: {rule.segment!r} is a segment of {whose}; see `account`"
                    raise RuleError(name, what, rule.segment)
                what = f"in_segment: there is no segment {rule.segment!r}; define it, or correct the name"
                raise RuleError(name, what, rule.segment)
            return self._root(rule.segment)
        if isinstance(rule, rules.Performed):
            return self._performed(rule)
        key = rules.canonical(rule)
        if isinstance(rule, rules.TraitIs):
            traits = {rule.path[0], *trait_names(rule.comparison)}
            return self._add(key, Atom(atoms.trait_is(rule), traits=tuple(sorted(traits))))
        if isinstance(rule, rules.ComputedIs):
            return self._computed(rule, key, name)
        if isinstance(rule, rules.ConsentIs):
            return self._add(key, Atom(atoms.consent_is(rule), purpose=rule.purpose))
        if isinstance(rule, rules.Members):
            match = hidden_name(rule.match)
            depends = (match, PEOPLE) if rule.every else (match,)
            return self._add(key, Atom(members_pass(match, rule), traits=depends, always=True))
        if isinstance(rule, rules.AccountIs):
            return self._add(key, Atom(account_is(rule), traits=(ACCOUNTS,), always=True))
        if isinstance(rule, rules.Bucket):
            return self._add(key, Atom(atoms.in_bucket(rule), always=True))
        if isinstance(rule, rules.Period):
            return self._add(key, Atom(atoms.in_period(rule), always=True))
        if isinstance(rule, rules.Sequence):
            return self._add(key, Atom(atoms.sequence_matches(self._sequence(rule), rule), leaf=self._sequence(rule)))
        if isinstance(rule, rules.Score):
            leaf_id = self._score(rule)
            return self._add(key, Atom(atoms.score_passes(leaf_id, rule), leaf=leaf_id))
        raise TypeError(f"no rule: {rule!r}")

    def _performed(self, rule: rules.Performed) -> int:
        measure, key = rule.measure, rules.canonical(rule)
        if has_trait_values(measure.selection.where):
            return self._against_trait(rule, key)
        window = compile_window(measure.window)
        if measure.function == "count" and window.suffix:
            return self._count(rule, window)
        leaf_id, value = self._measure(measure)
        falls = window.suffix and measure.function in ("count", "sum", "distinct")
        traits = tuple(sorted(trait_names(rule.comparison)))
        return self._add(key, Atom(atoms.compare(leaf_id, value, rule.comparison, falls), leaf=leaf_id, traits=traits))

    def _computed(self, rule: rules.ComputedIs, key: bytes, name: str) -> int:
        trait = self.computed.get(rule.name)
        if trait is None:
            what = f"computed: there is no computed trait {rule.name!r}; define it, or correct the name"
            raise RuleError(name, what, rule.name)
        leaf_id, value = self._measure(trait.measure)
        traits = tuple(sorted(trait_names(rule.comparison)))
        key = rules.canonical((rule.comparison, trait.measure))
        judge = atoms.compare(leaf_id, value, rule.comparison, False)
        # A sum of nothing is 0, an instant like any other: against the clock it may pass now and not later.
        timely = any(is_relative(test) for test in rule.comparison.tests) and judge(NoFacts(), 0)[1] > 0
        return self._add(key, Atom(judge, leaf=leaf_id, traits=traits, always=timely))

    def _count(self, rule: rules.Performed, window: Window) -> int:
        """A count is a gate over `at least k`: k + 1 newest times answer `at most k` too."""
        bounds = [thresholds(test) for test in rule.comparison.tests]
        keep = max((k for pair in bounds for k in pair if k is not None and k > 0), default=1)
        if isinstance(rule.measure.window, rules.Ever | rules.Between):
            leaf_id = self._leaf(("count",), Counter(), rule.measure)
        else:
            leaf_id = self._leaf(("newest", keep), NewestTimes(keep), rule.measure)
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
            return self._add(key, Atom(atoms.counter_at_least(leaf_id, threshold), leaf=leaf_id))
        return self._add(key, Atom(atoms.count_at_least(leaf_id, threshold, window), leaf=leaf_id))

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
        leaf_id = self._leaf(("paths", paths), leaf, rules.Measure(selection, measure.window))

        def getter_of(path: tuple[str, ...]) -> Getter:
            place = places[path]
            return lambda values: values[place]

        passes = compile_condition_with_traits(moving, getter_of)
        judge = atoms.compare_against_trait(leaf_id, leaf, passes, rule.comparison, window)
        return self._add(key, Atom(judge, leaf=leaf_id, traits=tuple(sorted(trait_names(where)))))

    # ------------------------------------------------------------------------------------------------------- leaves

    def _measure(self, measure: rules.Measure) -> tuple[str, measures.Value]:
        """The leaf of a measure, and how its state is read."""
        window = compile_window(measure.window)
        ever = isinstance(measure.window, rules.Ever | rules.Between)
        function, span_ms = measure.function, window.span_ms
        get = event_getter(measure.of) if measure.of else lambda event: None
        leaf: Leaf
        if function == "count":
            leaf = Counter() if ever else TimeEntries(span_ms)
            tile_ms = 0 if ever else TimeEntries(span_ms).tile_ms
            value = measures.lifetime_count if ever else measures.windowed_statistic("count", window, tile_ms)
            kind: tuple[Any, ...] = ("count",) if ever else ("times",)
        elif function in _STATISTICS:
            numbers = NumberEntries(span_ms, get)
            leaf = Statistics(get) if ever else numbers
            value = (
                measures.lifetime_statistic(function)
                if ever
                else measures.windowed_statistic(function, window, numbers.tile_ms)
            )
            kind = ("numbers", measure.of)
        elif function == "distinct":
            leaf = DistinctValues(get) if ever else HashEntries(span_ms, get)
            value = measures.lifetime_distinct if ever else measures.windowed_distinct(window)
            kind = ("hashes", measure.of)
        elif function in ("first_time", "last_time"):
            leaf = FirstAndLast() if ever else TimeEntries(span_ms)
            value = measures.end_time(function == "last_time", None if ever else window)
            kind = ("ends",) if ever else ("times",)
        elif function in ("first", "last"):
            last = function == "last"
            leaf = ValueAt(get, last) if ever else TextEntries(span_ms, get)
            value = measures.end_value(last, None if ever else window)
            kind = (function, measure.of) if ever else ("texts", measure.of)
        elif function == "most_frequent":
            leaf = Frequencies(get) if ever else TextEntries(span_ms, get)
            value = measures.lifetime_most_frequent if ever else measures.windowed_most_frequent(window)
            kind = ("frequencies", measure.of) if ever else ("texts", measure.of)
        elif function == "unique":
            leaf = RecentValues(get, measure.limit) if ever else TextEntries(span_ms, get)
            value = measures.lifetime_unique(measure.limit) if ever else measures.windowed_unique(window, measure.limit)
            kind = ("recent", measure.of, measure.limit) if ever else ("texts", measure.of)
        elif function == "preferred_hour":
            hour = measures.hour_getter(measure.time_zone)
            leaf = Frequencies(hour) if ever else TextEntries(span_ms, hour)
            value = measures.preferred_hour(window)
            kind = ("hours", measure.time_zone)
        elif function == "prediction":
            leaf, value, kind = LatestScore(), valid_score, ("score",)
        else:
            raise TypeError(f"no measure: {function!r}")
        found = self._leaf(kind, leaf, measure), value
        self.measures[rules.canonical(measure)] = found
        return found

    def _leaf(self, kind: tuple[Any, ...], leaf: Leaf, measure: rules.Measure) -> str:
        selection, window = measure.selection, measure.window
        canonical = rules.canonical(("leaf", kind, selection, window))
        leaf_id, birth = self._identify(canonical)
        if leaf_id not in self.leaves:
            table, rest = split_equality(selection.where)
            dates = window.window if isinstance(window, rules.Kept) else window
            between = dates if isinstance(dates, rules.Between) else None
            key = rules.canonical((rest, between))
            predicate = self.conditions.get(key)
            if predicate is None and (rest is not None or between is not None):
                predicate = self.conditions[key] = event_predicate(rest, between)
            compiled = compile_window(window)
            limited = self.keeps.of(selection, *([measure.of] if measure.of else [])) is not None
            kept_ms = compiled.span_ms if limited else 0
            self.leaves[leaf_id] = LeafSpec(
                leaf, selection.events, predicate, key, table, compiled, birth, canonical.decode(), kept_ms
            )
        return leaf_id

    def _identify(self, canonical: bytes) -> tuple[str, int]:
        hashed = leaf_hash(canonical)
        birth = self.births.get(hashed, self.generation)
        return f"{hashed}.{birth}", birth

    def _sequence(self, rule: rules.Sequence) -> str:
        steps = tuple(rules.Step(step.selection, by=step.by) for step in rule.steps)
        canonical = rules.canonical(("leaf", "steps", steps, rule.within_ms))
        leaf_id, birth = self._identify(canonical)
        if leaf_id not in self.leaves:
            lines: dict[str, list[tuple[Predicate | None, Getter | None, int]]] = {}
            for number, step in enumerate(rule.steps):
                where = step.selection.where
                passes = None if where is None else compile_condition(where)
                get = event_getter(step.by) if step.by else None
                for event in step.selection.events:
                    lines.setdefault(event, []).append((passes, get, 1 << number))
            leaf = StepEntries(rule.within_ms, lines)
            limited = any(self.keeps.of(one.selection, *([one.by] if one.by else [])) for one in steps)
            self.leaves[leaf_id] = _whole(leaf, lines, rule.within_ms, birth, canonical, limited)
        return leaf_id

    def _score(self, rule: rules.Score) -> str:
        canonical = rules.canonical(("leaf", "weights", rule.weights, rule.within_ms))
        leaf_id, birth = self._identify(canonical)
        if leaf_id not in self.leaves:
            lines: dict[str, list[tuple[Predicate | None, float]]] = {}
            for one in rule.weights:
                where = one.selection.where
                passes = None if where is None else compile_condition(where)
                for event in one.selection.events:
                    lines.setdefault(event, []).append((passes, one.weight))
            leaf = WeightEntries(rule.within_ms, lines)
            limited = any(self.keeps.of(one.selection) for one in rule.weights)
            self.leaves[leaf_id] = _whole(leaf, lines, rule.within_ms, birth, canonical, limited)
        return leaf_id


def _whole(
    leaf: Leaf, lines: Mapping[str, Any], within_ms: int, birth: int, canonical: bytes, limited: bool
) -> LeafSpec:
    """A leaf that does its own selecting."""
    window = compile_window(rules.Within(within_ms) if within_ms else rules.Ever())
    kept_ms = window.span_ms if limited else 0
    return LeafSpec(leaf, tuple(sorted(lines)), None, b"", None, window, birth, canonical.decode(), kept_ms)


def referred(rule: Any) -> set[str]:
    """The segments a rule asks for by in_segment."""
    if isinstance(rule, rules.InSegment):
        return {rule.segment}
    if isinstance(rule, rules.NotOf):
        return referred(rule.part)
    if isinstance(rule, rules.AllOf | rules.AnyOf):
        return set().union(*(referred(part) for part in rule.parts))
    return set()
