"""The plan of one generation of segments: folding events into leaves, and judging the rules above them.

Rules are a graph of nodes, each there once however many rules use it: atoms judge facts, gates count how many of their
children are true. A node knows its truth for an empty profile; a `Standing` holds only what differs from that. So an
event costs what it touches: the leaves of its name, the atoms on them, the gates above those that flipped.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pipeline.at_rest import awake, awakened
from pipeline.segments.atoms import Judge
from pipeline.segments.kept import kept_leaves
from pipeline.segments.leaves import Leaf
from pipeline.segments.measures import Value, sooner
from pipeline.segments.nodes import Atom, Computed, Flip, Gate, LeafSpec, Rule
from pipeline.segments.standing import FINGERPRINT_BYTES, Standing, is_set, toggled
from pipeline.segments.values import Getter, Predicate, scalar_key

_Adders = tuple[tuple[str, Leaf], ...]
_Group = tuple[Predicate | None, _Adders]


class _EventIndex(NamedTuple):
    groups: tuple[_Group, ...]
    tables: tuple[tuple[Getter, dict[Any, tuple[_Group, ...]]], ...]


@dataclass(frozen=True, slots=True)
class SegmentsPlan:
    """One generation of segments and computed traits, compiled. Made by `pipeline.segments.compile_plan`.

    `facts` everywhere is anything with `.leaves` (awake or at rest: pipeline/at_rest.py), `.traits` {name: (time,
    value)}, `.consents` {purpose: (time, granted)} and `.profile_id` (a text; only read where a rule has a bucket).
    `paused` segments are judged like all others, for rules may ask for them; whoever keeps memberships leaves theirs as
    they are.

    A plan of people has that of the accounts beside it: `accounts`, or None if no rule knows them. Its leaves are
    folded here too, into the fragments of people. `watched` are the hidden segments whose members accounts count;
    `told_traits` and `told_segments` are what people's rules ask of their accounts. `questions` says since which
    generation each question has been asked without a break, `answered_since` of each segment that asks something the
    first generation whose accounts answer all of it. `kept`: the leaves that are cut by deadline, and how long each
    keeps what is in it.
    """

    generation: int
    segments: Mapping[str, Rule]
    default_members: frozenset[str]
    leaves: Mapping[str, LeafSpec]
    computed_traits: Mapping[str, Computed]
    nodes: tuple[Atom | Gate, ...]
    node_of: Mapping[bytes, int]
    sources: Mapping[str, Any]
    measures: Mapping[bytes, tuple[str, Value]]
    paused: frozenset[str] = frozenset()
    accounts: "SegmentsPlan | None" = None
    watched: frozenset[str] = frozenset()
    told_traits: frozenset[str] = frozenset()
    told_segments: frozenset[str] = frozenset()
    questions: Mapping[str, int] = field(default_factory=dict)
    answered_since: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, int] = field(default_factory=dict)
    fingerprint: bytes = b""
    _judges: tuple[Judge | None, ...] = ()
    _leaf_of: tuple[str, ...] = ()
    _defaults: tuple[bool, ...] = ()
    _parents: tuple[tuple[int, ...], ...] = ()
    _roots: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    _by_leaf: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _by_trait: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _by_purpose: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    _always: tuple[int, ...] = ()
    _index: Mapping[str, _EventIndex] = field(default_factory=dict)

    @property
    def births(self) -> dict[str, int]:
        """Since which generation each leaf has been there, by the hash in its id, and each question to accounts has
        been asked: what the next `compile_plan` is given."""
        return {leaf_id.rpartition(".")[0]: spec.birth for leaf_id, spec in self.leaves.items()} | dict(self.questions)

    @property
    def names(self) -> list[str]:
        """The segments that people wrote, of people and of accounts, sorted."""
        own = (name for name in self.segments if name not in self.watched)
        return sorted((*own, *(self.accounts.segments if self.accounts is not None else ())))

    def of_segment(self, name: str) -> "SegmentsPlan":
        """The plan in which a segment stands: this one, or that of the accounts beside it."""
        return self.accounts if self.accounts is not None and name in self.accounts.segments else self

    def with_paused(self, names: frozenset[str]) -> "SegmentsPlan":
        """This plan, and that of the accounts beside it, with these segments paused."""
        accounts = self.accounts
        return replace(self, paused=names, accounts=None if accounts is None else replace(accounts, paused=names))

    # ------------------------------------------------------------------------------------------------------ folding

    def fold(self, leaves: dict[str, Any], event: Any) -> tuple[str, ...]:
        """Fold an event into leaf states in place; returns the ids of the leaves that changed, which are then awake.
        Once per event."""
        index = self._index.get(event.event) or self._index.get("*")
        if index is None:
            return ()
        time_ms = min(event.time, event.received)
        touched: list[str] = []
        for passes, group in index.groups:
            if passes is None or passes(event):
                _add(leaves, group, time_ms, event, touched)
        for get, table in index.tables:
            key = scalar_key(get(event))
            if key is None:
                continue
            for passes, group in table.get(key, ()):
                if passes is None or passes(event):
                    _add(leaves, group, time_ms, event, touched)
        return tuple(touched)

    def join(self, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
        """The leaf states of two disjoint histories together. Changes and shares neither; drops leaves of no rule."""
        joined: dict[str, Any] = {}
        specs = self.leaves
        for leaf_id, state in a.items():
            spec = specs.get(leaf_id)
            if spec is not None:
                other = b.get(leaf_id)
                joined[leaf_id] = (
                    _copy(spec.leaf, state) if other is None else spec.leaf.join(awakened(state), awakened(other))
                )
        for leaf_id, state in b.items():
            if leaf_id not in a:
                spec = specs.get(leaf_id)
                if spec is not None:
                    joined[leaf_id] = _copy(spec.leaf, state)
        return joined

    def prune(self, leaves: dict[str, Any]) -> bool:
        """Take out, in place, the leaf states of no rule of this plan; whether there were any."""
        gone = [leaf_id for leaf_id in leaves if leaf_id not in self.leaves]
        for leaf_id in gone:
            del leaves[leaf_id]
        return bool(gone)

    def with_leaves_of(self, other: "SegmentsPlan", only: Iterable[str] | None = None) -> "SegmentsPlan":
        """This plan, folding and joining the leaves of `other` too (of those, only the ones in `only`): for the time
        between a marker and its ready. Rules are judged as here; a leaf both have is folded once."""
        wanted = other.leaves if only is None else {one: other.leaves[one] for one in only}
        return self._folding({**wanted, **self.leaves})

    def restricted(self, leaf_ids: Iterable[str]) -> "SegmentsPlan":
        """This plan folding and joining only the leaves given: for a backfill of what is new."""
        return self._folding({one: self.leaves[one] for one in leaf_ids})

    def _folding(self, leaves: Mapping[str, LeafSpec]) -> "SegmentsPlan":
        return replace(self, leaves=leaves, kept=kept_leaves(leaves), _index=index_leaves(leaves))

    # ------------------------------------------------------------------------------------------------------ judging

    def begin(self, facts: Any, now_ms: int) -> Standing:
        """Judge a profile from scratch; the cost follows its leaves that are not empty."""
        standing = Standing(self, self.fingerprint, now_ms, 0)
        standing._scheduled = {}
        self._move(standing, facts, now_ms, self._atoms_of(facts))
        return standing

    def resume(self, kept: bytes, now_ms: int, first_ms: int) -> Standing | None:
        """The standing of which this was kept when it had been settled up to `now_ms`; None if it is that of another
        plan. Time alone changes nothing before `first_ms` (0: ever)."""
        if kept[:FINGERPRINT_BYTES] != self.fingerprint:
            return None
        return Standing(self, kept, now_ms, first_ms)

    def update(
        self,
        standing: Standing,
        facts: Any,
        now_ms: int,
        leaf_ids: Iterable[str],
        trait_names: Sequence[str] = (),
        purposes: Sequence[str] = (),
    ) -> list[Flip]:
        """Judge again what rests on the leaves, traits and consents that changed; those leaves are awake. The standing
        must have been settled up to `now_ms`. Returns the flips in an order that depends on the plan alone."""
        by_leaf = self._by_leaf
        atoms: list[int] = []
        for leaf_id in leaf_ids:
            found = by_leaf.get(leaf_id)
            if found is not None:
                atoms.extend(found)
        if trait_names or purposes:
            others: list[int] = []
            for name in trait_names:
                others += self._by_trait.get(name, ())
            for purpose in purposes:
                others += self._by_purpose.get(purpose, ())
            self._wake(facts.leaves, others)
            atoms += others
        standing.now = now_ms
        if not atoms:
            return []
        return self._move(standing, facts, now_ms, atoms)

    def settle(self, standing: Standing, facts: Any, until_ms: int) -> list[tuple[int, list[Flip]]]:
        """Let time pass up to `until_ms`: the flips by time alone, in order, each with its exact instant."""
        passed: list[tuple[int, list[Flip]]] = []
        scheduled = self._schedule(standing, facts) if 0 < standing._first <= until_ms else {}
        while 0 < standing._first <= until_ms:
            at_ms = standing._first
            if at_ms < standing.now:
                raise AssertionError(f"a deadline at {at_ms} lies behind the clock {standing.now}")
            due = sorted(atom for atom, scheduled_ms in scheduled.items() if scheduled_ms == at_ms)
            for atom in due:
                del scheduled[atom]
            standing._first = min(scheduled.values(), default=0)
            standing.now = at_ms
            self._wake(facts.leaves, due)
            flips = self._move(standing, facts, at_ms, due)
            if flips:
                passed.append((at_ms, flips))
            if standing._first == at_ms:
                raise AssertionError(f"a leaf asks again for the instant {at_ms} at which it was judged")
        standing.now = max(standing.now, until_ms)
        return passed

    def tighten(self, standing: Standing, facts: Any, now_ms: int) -> None:
        """Make the standing's deadline what judging anew would say, wherever the standing was until now: it must have
        been settled up to `now_ms`, before its deadline."""
        standing.now = now_ms
        scheduled = standing._scheduled
        if scheduled is None:
            self._schedule(standing, facts)
            return
        first_ms = 0
        for at_ms, atom in sorted((at_ms, atom) for atom, at_ms in scheduled.items()):
            if first_ms and first_ms <= at_ms:
                break
            awake(facts.leaves, self._leaf_of[atom])
            next_ms = self._next(facts, atom, now_ms)
            if next_ms:
                scheduled[atom] = next_ms
                first_ms = min(first_ms or next_ms, next_ms)
            else:
                del scheduled[atom]
        standing._first = first_ms

    def _schedule(self, standing: Standing, facts: Any) -> dict[int, int]:
        """When each atom that time alone may change is to be judged again: then, or later."""
        scheduled = standing._scheduled
        if scheduled is None:
            scheduled = standing._scheduled = {}
            for atom in self._atoms_of(facts):
                next_ms = self._next(facts, atom, standing.now)
                if next_ms:
                    scheduled[atom] = next_ms
            standing._first = min(scheduled.values(), default=0)
        return scheduled

    def _next(self, facts: Any, atom: int, now_ms: int) -> int:
        judge = self._judges[atom]
        assert judge is not None
        return judge.says(facts.leaves, facts, now_ms)[1]

    def _atoms_of(self, facts: Any) -> list[int]:
        """The atoms that may not be as for an empty profile, in order; what they rest on is awake."""
        atoms = set(self._always)
        for leaf_id in facts.leaves:
            atoms.update(self._by_leaf.get(leaf_id, ()))
        names, by_trait = facts.traits, self._by_trait
        for name in names if len(names) < len(by_trait) else by_trait:
            if name in names and name in by_trait:
                atoms.update(by_trait[name])
        for purpose in facts.consents:
            atoms.update(self._by_purpose.get(purpose, ()))
        in_order = sorted(atoms)
        self._wake(facts.leaves, in_order)
        return in_order

    def _move(self, standing: Standing, facts: Any, now_ms: int, atoms: Iterable[int]) -> list[Flip]:
        kept, defaults, judges, scheduled = standing.kept, self._defaults, self._judges, standing._scheduled
        leaves = facts.leaves
        flipped: list[int] | None = None
        for atom in atoms:
            judge = judges[atom]
            assert judge is not None
            truth, next_ms = judge.says(leaves, facts, now_ms)
            if next_ms:
                if next_ms < standing._first or not standing._first:
                    standing._first = next_ms
                if scheduled is not None:
                    scheduled_ms = scheduled.get(atom)
                    if scheduled_ms is None or next_ms < scheduled_ms:
                        scheduled[atom] = next_ms
            if truth is not (defaults[atom] is not is_set(kept, atom)):
                if flipped is None:
                    flipped = [atom]
                elif atom not in flipped:
                    flipped.append(atom)
        return self._rise(standing, facts, now_ms, flipped) if flipped else []

    def _wake(self, leaves: dict[str, Any], atoms: Iterable[int]) -> None:
        leaf_of = self._leaf_of
        for atom in atoms:
            awake(leaves, leaf_of[atom])

    def _rise(self, standing: Standing, facts: Any, now_ms: int, atoms: list[int]) -> list[Flip]:
        """Carry flipped atoms upwards. Children have lower numbers than their parents, so taking the lowest first
        judges every gate once, after all of its children."""
        kept, defaults = standing.kept, self._defaults
        flips: list[Flip] = []
        changed = sorted(atoms)
        flipped = set(changed)
        waiting: list[int] = []
        pending: set[int] = set()
        position = 0
        while position < len(changed) or waiting:
            if position < len(changed) and (not waiting or changed[position] < waiting[0]):
                node = changed[position]
                position += 1
                truth = defaults[node] is is_set(kept, node)
            else:
                node = heapq.heappop(waiting)
                truth = self._passes(kept, flipped, node)
                if truth is not (defaults[node] is is_set(kept, node)):
                    continue
                flipped.add(node)
            for parent in self._parents[node]:
                if parent not in pending:
                    pending.add(parent)
                    heapq.heappush(waiting, parent)
            for name in self._roots.get(node, ()):
                flips.append(Flip(name, truth, self.approximate(name, facts, now_ms)))
        standing.kept = toggled(kept, flipped)
        return flips

    def _passes(self, kept: bytes, flipped: set[int], node: int) -> bool:
        """The truth of a gate, by those of its children, of which these have flipped."""
        gate = self.nodes[node]
        assert isinstance(gate, Gate)
        count = 0
        for child in gate.children:
            if (self._defaults[child] is is_set(kept, child)) is (child in flipped):
                count += 1
        return gate.low <= count <= gate.high

    def members(self, standing: Standing) -> set[str]:
        """The segments true at the standing's clock."""
        members = set(self.default_members)
        for at, byte in enumerate(standing.kept[FINGERPRINT_BYTES:]):
            for bit in range(8) if byte else ():
                node = 8 * at + bit
                names = self._roots.get(node)
                if names is not None and byte >> bit & 1:
                    if self._defaults[node]:
                        members.difference_update(names)
                    else:
                        members.update(names)
        return members

    def approximate(self, segment: str, facts: Any, now_ms: int) -> bool:
        """Whether a leaf below a segment is past its cap, so that its answer may be slightly off."""
        for leaf_id in self.segments[segment].inexact:
            state = awake(facts.leaves, leaf_id)
            if state is not None:
                spec = self.leaves.get(leaf_id)
                if spec is not None and spec.leaf.approximate(state, spec.window.bounds(now_ms)[0]):
                    return True
        return False

    def truth(self, standing: Standing, node: int) -> bool:
        """The truth of a node of the graph at the standing's clock."""
        return self._defaults[node] is not is_set(standing.kept, node)

    # ------------------------------------------------------------------------------------------------ computed traits

    def computed(self, facts: Any, now_ms: int) -> dict[str, Any]:
        """The values of the computed traits at a clock; those that are missing are left out."""
        values: dict[str, Any] = {}
        for name, one in self.computed_traits.items():
            value = one.value(awake(facts.leaves, one.leaf), now_ms)[0]
            if value is not None:
                values[name] = value
        return values

    def computed_deadline(self, facts: Any, now_ms: int) -> int:
        """The earliest instant at which time alone may change a computed trait; 0 for never."""
        next_ms = 0
        for one in self.computed_traits.values():
            state = awake(facts.leaves, one.leaf)
            if state is not None:
                next_ms = sooner(next_ms, one.value(state, now_ms)[1])
        return next_ms


def _add(leaves: dict[str, Any], group: _Adders, time_ms: int, event: Any, touched: list[str]) -> None:
    for leaf_id, leaf in group:
        state = leaves.get(leaf_id)
        if state.__class__ is bytes:
            state = awakened(state)
        state = leaf.add(state, time_ms, event)
        if state is not None:
            leaves[leaf_id] = state
            touched.append(leaf_id)


def _copy(leaf: Leaf, state: Any) -> Any:
    return state if state.__class__ is bytes else leaf.copy(state)


def index_leaves(leaves: Mapping[str, LeafSpec]) -> dict[str, _EventIndex]:
    """From an event's name, and the values of properties that rules ask for by equality, to the leaves it can touch."""
    names = {name for spec in leaves.values() for name in spec.events}
    index: dict[str, _EventIndex] = {}
    for name in names:
        groups: dict[bytes, tuple[Predicate | None, list[Any]]] = {}
        tables: dict[tuple[str, ...], tuple[Getter, dict[Any, dict[bytes, tuple[Predicate | None, list[Any]]]]]] = {}
        for leaf_id in sorted(leaves):
            spec = leaves[leaf_id]
            if name not in spec.events and "*" not in spec.events:
                continue
            entry = (leaf_id, spec.leaf)
            if spec.table is None:
                groups.setdefault(spec.predicate_key, (spec.predicate, []))[1].append(entry)
                continue
            path, get, keys = spec.table
            by_value = tables.setdefault(path, (get, {}))[1]
            for key in keys:
                by_value.setdefault(key, {}).setdefault(spec.predicate_key, (spec.predicate, []))[1].append(entry)
        index[name] = _EventIndex(
            tuple((passes, tuple(entries)) for passes, entries in groups.values()),
            tuple(
                (get, {key: tuple((p, tuple(es)) for p, es in found.values()) for key, found in by_value.items()})
                for get, by_value in tables.values()
            ),
        )
    return index
