"""Atoms: the tests at the bottom of a rule. Each judges facts at a clock and says until when its answer holds.

`Judge.says` gives (truth, next): with no new event the truth is the same at every instant of [now, next); next 0 means
for ever. `next` may be earlier than the true change, never later.
"""

import hashlib
import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from pipeline.segments import rules
from pipeline.segments.leaves import PathEntries
from pipeline.segments.measures import Value, in_window, sooner
from pipeline.segments.values import (
    PredicateWithTraits,
    compile_comparison,
    compile_judge,
    trait_at,
)
from pipeline.segments.windows import NEVER, RollingWindow, Window

_LAST_DOUBLE = Fraction(sys.float_info.max)
_LOWER = frozenset(("at_least", "more_than", "greater_than"))


class Judge:
    """A test of facts. One object for each of a plan, and no closure: compiled, a call of it boxes nothing."""

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        """(truth, next) at a clock, see above. `leaves` are those of `facts`, the ones asked for awake."""
        raise NotImplementedError


class CountAtLeast(Judge):
    """Over NewestTimes, or TimesOfUnits where the window does not reach to the clock."""

    def __init__(self, leaf_id: str, threshold: int, window: Window) -> None:
        self._leaf_id, self._threshold, self._window = leaf_id, threshold, window
        self._rolling_ms = window.span_ms if isinstance(window, RollingWindow) else 0

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        times: list[int] | None = leaves.get(self._leaf_id)
        threshold = self._threshold
        if times is None or len(times) < threshold:
            return False, 0
        if times[-1] > now_ms or not self._window.suffix:
            return _count_between(times, threshold, self._window, now_ms)
        decisive_ms = times[-threshold]
        if self._rolling_ms:
            leaves_ms = decisive_ms + self._rolling_ms
            return (True, leaves_ms) if leaves_ms > now_ms else (False, 0)
        if decisive_ms < self._window.bounds(now_ms)[0]:
            return False, 0
        leaves_ms = self._window.leaves(decisive_ms)
        return True, leaves_ms if leaves_ms < NEVER else 0


def _count_between(times: list[int], threshold: int, window: Window, now_ms: int) -> tuple[bool, int]:
    start, end = window.bounds(now_ms)
    low, high = bisect_left(times, start), bisect_left(times, end)
    next_ms = window.enters(times[high]) if high < len(times) else 0
    if low < high:
        next_ms = sooner(next_ms, min(window.leaves(times[low]), NEVER))
    return high - low >= threshold, next_ms


class CounterAtLeast(Judge):
    """Over a Counter."""

    def __init__(self, leaf_id: str, threshold: int) -> None:
        self._leaf_id, self._threshold = leaf_id, threshold

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        return leaves.get(self._leaf_id, 0) >= self._threshold, 0


class Compare(Judge):
    """A measure against a comparison. `falls`: with no event, and no number below 0, the value can only become less;
    then what is too little stays so, and nobody need be woken for it."""

    def __init__(self, leaf_id: str, value_of: Value, comparison: rules.Comparison, falls: bool) -> None:
        self._leaf_id, self._value_of = leaf_id, value_of
        self._judge_value = compile_judge(comparison)
        self._may_stay_false = falls and all(test.operator in _LOWER for test in comparison.tests)

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        state = leaves.get(self._leaf_id)
        value, next_ms = self._value_of(state, now_ms)
        truth, flips_ms = self._judge_value(value, facts.traits, now_ms)
        if next_ms and self._may_stay_false and not truth and _only_falls(state, now_ms):
            next_ms = 0
        return truth, sooner(next_ms, flips_ms)


def _only_falls(state: Any, now_ms: int) -> bool:
    entries = state[0]
    return not state[3] and (not entries or entries[-1][0] <= now_ms)


class CompareAgainstTrait(Judge):
    """How many entries pass a condition on the profile's present traits, compared."""

    def __init__(
        self, leaf_id: str, leaf: PathEntries, passes: PredicateWithTraits, comparison: rules.Comparison, window: Window
    ) -> None:
        self._leaf_id, self._leaf, self._passes, self._window = leaf_id, leaf, passes, window
        self._judge_value = compile_comparison(comparison)

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        state = leaves.get(self._leaf_id)
        if state is None:
            return self._judge_value(0), 0
        low, high, next_ms = in_window(state[0], self._window, now_ms)
        passes, values = self._passes, self._leaf.values
        # A person's events say the same few things again and again.
        verdicts: dict[str, bool] = {}
        count = 0
        for entry in state[0][low:high]:
            kept: str = entry[1]
            verdict = verdicts.get(kept)
            if verdict is None:
                verdict = verdicts[kept] = bool(passes(values(kept), facts.traits))
            count += verdict
        return self._judge_value(count), next_ms


class TraitIs(Judge):
    """A trait against a comparison."""

    def __init__(self, rule: rules.TraitIs) -> None:
        self._judge_value, self._path = compile_judge(rule.comparison), rule.path

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        return self._judge_value(trait_at(facts.traits, self._path), facts.traits, now_ms)


class ConsentIs(Judge):
    """A consent."""

    def __init__(self, rule: rules.ConsentIs) -> None:
        self._purpose, self._wanted = rule.purpose, {"granted": True, "denied": False}.get(rule.state)

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        held = facts.consents.get(self._purpose)
        if self._wanted is None:
            return held is None, 0
        return held is not None and bool(held[1]) is self._wanted, 0


def bucket_of(salt: str, profile_id: str) -> float:
    """The bucket of a profile, a percentage in [0, 100)."""
    digest = hashlib.blake2b(f"{salt}:{profile_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 1_000_000 / 10_000


class InBucket(Judge):
    """The profile's bucket."""

    def __init__(self, rule: rules.Bucket) -> None:
        self._rule = rule

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        rule = self._rule
        return rule.start <= bucket_of(rule.salt, facts.profile_id) < rule.end, 0


class InPeriod(Judge):
    """The clock itself."""

    def __init__(self, rule: rules.Period) -> None:
        self._start, self._end = rule.start, rule.end

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        start, end = self._start, self._end
        if start is not None and now_ms < start:
            return False, start
        if end is None:
            return True, 0
        return (True, end) if now_ms < end else (False, 0)


# ------------------------------------------------------------------------------------------------------------ score


def score_at(entries: list[Any], half_life_ms: int, now_ms: int) -> float:
    """The decayed sum of the entries, before rounding. What is beyond all doubles is the last of them."""
    parts = [weight * 2.0 ** ((time_ms - now_ms) / half_life_ms) for time_ms, weight in entries]
    try:
        return math.fsum(parts)
    except OverflowError:
        return float(max(-_LAST_DOUBLE, min(_LAST_DOUBLE, sum(map(Fraction, parts)))))


class ScorePasses(Judge):
    """A score against a comparison: between two exits it only decays, so each test has at most one crossing to find."""

    def __init__(self, leaf_id: str, rule: rules.Score) -> None:
        self._leaf_id, self._half_life_ms = leaf_id, rule.half_life_ms
        self._window = RollingWindow(rule.within_ms)
        self._tests: list[Callable[[Any], bool]] = []
        for test in rule.comparison.tests:
            operators = ("at_least", "at_most") if test.operator == "exactly" else (test.operator,)
            for one in operators:
                self._tests.append(compile_comparison(rules.Comparison((rules.Test(one, test.operand),))))
        positive = all(one.weight >= 0 for one in rule.weights)
        self._stays_false = positive and all(test.operator in _LOWER for test in rule.comparison.tests)

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        state = leaves.get(self._leaf_id)
        entries = state[0] if state is not None else []
        low, high, next_ms = in_window(entries, self._window, now_ms)
        held, half_life_ms = entries[low:high], self._half_life_ms
        raw = score_at(held, half_life_ms, now_ms)
        truth = all(test(round(raw, 9)) for test in self._tests)
        if not held or (self._stays_false and not truth and high == len(entries)):
            return truth, next_ms if not held else 0
        for test in self._tests:
            next_ms = _crossing(test, held, half_life_ms, raw, now_ms, next_ms)
        return truth, next_ms


def _crossing(
    test: Callable[[Any], bool], held: list[Any], half_life_ms: int, raw: float, now_ms: int, until_ms: int
) -> int:
    """The first instant in (now_ms, until_ms) at which a test of the decaying score changes, else until_ms."""

    def decayed(at_ms: int) -> bool:
        return test(round(raw * 2.0 ** ((now_ms - at_ms) / half_life_ms), 9))

    def exact(at_ms: int) -> bool:
        return test(round(score_at(held, half_life_ms, at_ms), 9))

    # What was cut to the last double does not halve with the half-life.
    near = decayed if abs(raw) < sys.float_info.max else exact
    before = exact(now_ms)
    if near(until_ms - 1) == before and exact(until_ms - 1) == before:
        return until_ms
    low, high = now_ms, until_ms - 1
    while high - low > 1:
        middle = (low + high) // 2
        if near(middle) == before:
            low = middle
        else:
            high = middle
    # The scaled sum may differ from the exact one in its last bit: settle the millisecond on the exact one.
    while high > now_ms + 1 and exact(high - 1) != before:
        high -= 1
    while high < until_ms and exact(high) == before:
        high += 1
    return high


# --------------------------------------------------------------------------------------------------------- sequence


class SequenceMatches(Judge):
    """A sequence over StepEntries: whether the chain of any correlation goes through."""

    def __init__(self, leaf_id: str, rule: rules.Sequence) -> None:
        self._leaf_id, self._rule = leaf_id, rule

    def says(self, leaves: dict[str, Any], facts: Any, now_ms: int) -> tuple[bool, int]:
        state = leaves.get(self._leaf_id)
        if state is None:
            return False, 0
        rule = self._rule
        next_ms = 0
        # The one seen last is likely to hold. Whether another holds for longer is asked when its time is over.
        for chain in reversed(state[0].values()):
            start_ms, change_ms = _walk(rule, chain, now_ms)
            if start_ms is not None:
                return True, sooner(start_ms + rule.within_ms if rule.within_ms else 0, _future(state, now_ms))
            next_ms = sooner(next_ms, change_ms)
        return False, next_ms


def _future(state: Any, now_ms: int) -> int:
    """The first time after the clock, 0 for none: entries that do not exist yet may break what holds now."""
    return min(
        (entry[0] for chain in state[0].values() if chain[-1][0] > now_ms for entry in chain if entry[0] > now_ms),
        default=0,
    )


def _walk(rule: rules.Sequence, chain: list[Any], now_ms: int) -> tuple[int | None, int]:
    """(the newest first event of a match, or None; the next instant at which time may complete one).

    Through the steps go pairs (anchor, start), ascending in both: the newest start with which each anchor is reached.
    The newest anchor before an event is always the best one to come from, for its limit and for an absence between
    alike.
    """
    next_ms = 0
    if chain[-1][0] > now_ms:
        cut = bisect_left(chain, [now_ms + 1])
        next_ms = chain[cut][0]
        chain = chain[:cut]
    after_ms = now_ms - rule.within_ms if rule.within_ms else -NEVER
    reached: list[tuple[int, int]] = []
    between: list[int] | None = None
    for number, step in enumerate(rule.steps):
        bit = 1 << number
        times = [entry[0] for entry in chain if entry[1] & bit]
        if number == 0:
            reached = [(time_ms, time_ms) for time_ms in times if time_ms > after_ms]
        elif not step.absent:
            reached = _advance(reached, times, step.within_ms, between)
            between = None
        elif not step.within_ms:
            between = times
        else:
            confirmed = []
            for anchor_ms, start_ms in reached:
                position = bisect_right(times, anchor_ms)
                end_ms = anchor_ms + step.within_ms
                if position < len(times) and times[position] <= end_ms:
                    continue
                if end_ms + rule.grace_ms <= now_ms:
                    confirmed.append((end_ms, start_ms))
                else:
                    next_ms = sooner(next_ms, end_ms + rule.grace_ms)
            reached = confirmed
        if not reached:
            return None, next_ms
    return reached[-1][1], next_ms


def _advance(
    reached: list[tuple[int, int]], times: list[int], within_ms: int, between: list[int] | None
) -> list[tuple[int, int]]:
    """The pairs after an event step: each of its times with the newest anchor strictly before it."""
    advanced: list[tuple[int, int]] = []
    anchors = [anchor_ms for anchor_ms, _ in reached]
    for time_ms in times:
        position = bisect_left(anchors, time_ms) - 1
        if position < 0:
            continue
        anchor_ms, start_ms = reached[position]
        if within_ms and time_ms > anchor_ms + within_ms:
            continue
        if between is not None:
            broken = bisect_right(between, anchor_ms)
            if broken < len(between) and between[broken] < time_ms:
                continue
        if not advanced or advanced[-1][0] != time_ms:
            advanced.append((time_ms, start_ms))
    return advanced
