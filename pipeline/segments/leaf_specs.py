"""The leaves of a plan: what is kept of events, each under an id that its meaning and its birth decide, so that rules
which ask for the same share one."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from pipeline.segments import measures, rules
from pipeline.segments.kept import Keeps, read_by
from pipeline.segments.leaves import (
    Counter,
    DistinctValues,
    FirstAndLast,
    Frequencies,
    HashEntries,
    Leaf,
    NumberEntries,
    RecentValues,
    Statistics,
    StepEntries,
    TextEntries,
    TimeEntries,
    ValueAt,
    WeightEntries,
)
from pipeline.segments.nodes import LeafSpec
from pipeline.segments.predictions import LatestScore, valid_score
from pipeline.segments.selection import event_predicate, split_equality
from pipeline.segments.values import Getter, Predicate, compile_condition, event_getter
from pipeline.segments.windows import compile_window

_STATISTICS = frozenset(("sum", "average", "min", "max"))


def leaf_hash(canonical: bytes) -> str:
    """The part of a leaf's id that its meaning decides."""
    return urlsafe_b64encode(hashlib.blake2b(canonical, digest_size=9).digest()).decode()


class LeafSpecs:
    """The leaves of one generation, as rules ask for them: `leaves` by id; `measures` by their canonical form, with the
    leaf and how its state is read; `zones`: the time zones by whose calendars they count. `births`: see
    `compile_plan`."""

    def __init__(self, generation: int, births: Mapping[str, int], keeps: Keeps) -> None:
        self._generation, self._births, self._keeps = generation, births, keeps
        self._conditions: dict[bytes, Predicate] = {}
        self.leaves: dict[str, LeafSpec] = {}
        self.measures: dict[bytes, tuple[str, measures.Value]] = {}
        self.zones: set[str] = set()

    def measure(self, measure: rules.Measure) -> tuple[str, measures.Value]:
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
            leaf, value, kind = LatestScore(), valid_score(span_ms), ("score",)
        else:
            raise TypeError(f"no measure: {function!r}")
        found = self.leaf(kind, leaf, measure), value
        self.measures[rules.canonical(measure)] = found
        return found

    def leaf(self, kind: tuple[Any, ...], leaf: Leaf, measure: rules.Measure) -> str:
        """The id of the leaf that keeps, as `kind` says, what a measure selects."""
        selection, window = measure.selection, measure.window
        canonical = rules.as_written(("leaf", kind, selection, window))
        leaf_id, birth = self._identify(canonical)
        if leaf_id not in self.leaves:
            table, rest = split_equality(selection.where)
            dates = window.window if isinstance(window, rules.Kept) else window
            between = dates if isinstance(dates, rules.Between) else None
            if isinstance(dates, rules.Calendar):
                self.zones.add(dates.time_zone)
            key = rules.canonical((rest, between))
            predicate = self._conditions.get(key)
            if predicate is None and (rest is not None or between is not None):
                predicate = self._conditions[key] = event_predicate(rest, between)
            compiled = compile_window(window)
            limited = self._keeps.of(selection, *read_by(measure)) is not None
            kept_ms = compiled.span_ms if limited else 0
            self.leaves[leaf_id] = LeafSpec(
                leaf, selection.events, predicate, key, table, compiled, birth, canonical.decode(), kept_ms
            )
        return leaf_id

    def _identify(self, canonical: bytes) -> tuple[str, int]:
        hashed = leaf_hash(canonical)
        birth = self._births.get(hashed, self._generation)
        return f"{hashed}.{birth}", birth

    def sequence(self, rule: rules.Sequence) -> str:
        """The id of the leaf that keeps what may match the steps; their limits in time are the judge's."""
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
            limited = any(self._keeps.of(one.selection, *([one.by] if one.by else [])) for one in steps)
            self.leaves[leaf_id] = _whole(leaf, lines, rule.within_ms, birth, canonical, limited)
        return leaf_id

    def score(self, rule: rules.Score) -> str:
        """The id of the leaf that keeps what a score adds up."""
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
            limited = any(self._keeps.of(one.selection) for one in rule.weights)
            self.leaves[leaf_id] = _whole(leaf, lines, rule.within_ms, birth, canonical, limited)
        return leaf_id


def _whole(
    leaf: Leaf, lines: Mapping[str, Any], within_ms: int, birth: int, canonical: bytes, limited: bool
) -> LeafSpec:
    """A leaf that does its own selecting."""
    window = compile_window(rules.Within(within_ms) if within_ms else rules.Ever())
    kept_ms = window.span_ms if limited else 0
    return LeafSpec(leaf, tuple(sorted(lines)), None, b"", None, window, birth, canonical.decode(), kept_ms)
