"""What rules count, for no longer than contracts allow it to be kept.

A rule over an event that is kept for R looks R back and no further: a window without an end becomes (now - R, now], a
longer one is cut to R. So the contribution of an event ends for every rule at the same millisecond, with the
memberships that rest on it; and from the states it goes at that instant too, not with the next event (`oldest`, `cut`).

    several events in one rule      the shortest of them
    a part of an event              its own retention, where that is shorter
    any event, "*"                  the times of events are kept for the rule's window; where it keeps values of them,
                                    or looks into them, the shortest that is said of any event
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipeline.at_rest import awake
from pipeline.segments import rules
from pipeline.segments.accounts import parts_of
from pipeline.segments.leaves import Entries, Leaf, NewestTimes, StepEntries
from pipeline.segments.predictions import UNTIL, VALUE, LatestScore

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keeps:
    """How long, in ms: `events` by name, `parts` by (event, path with its section first)."""

    events: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[tuple[str, Path], int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.events or self.parts)

    def of(self, selection: rules.Selection, *paths: Path) -> int | None:
        """How long what a rule selects, and reads at these paths, may be kept; None: as long as it wants."""
        looked_at = [*paths, *(check.path for check in _checks(selection.where))]
        return min(self._of(selection.events, looked_at), default=None)

    def _of(self, events: tuple[str, ...], paths: list[Path]) -> Iterator[int]:
        anything = "*" in events
        if anything and paths:
            yield from self.events.values()
        for event in events:
            if event in self.events:
                yield self.events[event]
        for (event, said), ms in self.parts.items():
            if (anything or event in events) and any(_touch(said, path) for path in paths):
                yield ms


NOTHING_SAID = Keeps()


def _checks(where: Any) -> Iterator[rules.Check]:
    if where is not None:
        yield from (part for part in parts_of(where) if isinstance(part, rules.Check))


def _touch(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same, or one into the other."""
    length = min(len(one), len(other))
    return one[:length] == other[:length]


# ------------------------------------------------------------------------------------------------------------- rules


def kept(rule: Any, keeps: Keeps) -> Any:
    """A rule that looks no further back than contracts allow."""
    if not keeps:
        return rule
    if isinstance(rule, rules.AllOf | rules.AnyOf):
        return msgspec.structs.replace(rule, parts=tuple(kept(part, keeps) for part in rule.parts))
    if isinstance(rule, rules.NotOf):
        return rules.NotOf(kept(rule.part, keeps))
    if isinstance(rule, rules.Members):
        return msgspec.structs.replace(rule, match=kept(rule.match, keeps))
    if isinstance(rule, rules.Performed):
        return msgspec.structs.replace(rule, measure=kept_measure(rule.measure, keeps))
    if isinstance(rule, rules.Sequence):
        longest = _shortest(keeps.of(step.selection, *([step.by] if step.by else [])) for step in rule.steps)
        return msgspec.structs.replace(rule, within_ms=_within(rule.within_ms, longest))
    if isinstance(rule, rules.Score):
        longest = _shortest(keeps.of(weight.selection) for weight in rule.weights)
        return msgspec.structs.replace(rule, within_ms=_within(rule.within_ms, longest))
    return rule


def kept_measure(measure: rules.Measure, keeps: Keeps) -> rules.Measure:
    """The same of what is computed over events."""
    longest = keeps.of(measure.selection, *read_by(measure))
    if longest is None:
        return measure
    window = measure.window
    if isinstance(window, rules.Ever):
        window = rules.Within(longest)
    elif isinstance(window, rules.Within):
        window = rules.Within(min(window.window_ms, longest))
    elif isinstance(window, rules.Between | rules.Calendar):
        window = rules.Kept(window, longest)
    return msgspec.structs.replace(measure, window=window)


def read_by(measure: rules.Measure) -> Sequence[Path]:
    """The paths at which a measure reads, besides those by which it selects."""
    if measure.function == "prediction":
        return VALUE, UNTIL
    return (measure.of,) if measure.of else ()


def _shortest(found: Iterator[int | None]) -> int | None:
    return min((one for one in found if one is not None), default=None)


def _within(within_ms: int, longest: int | None) -> int:
    """A time limit of which 0 is none, cut."""
    if longest is None:
        return within_ms
    return min(within_ms, longest) if within_ms else longest


# ------------------------------------------------------------------------------------------------------------ states


def oldest(leaf: Leaf, state: Any) -> int | None:
    """The time of the oldest event that a state still has something of; None if it does not say."""
    if isinstance(leaf, NewestTimes | LatestScore):
        return int(state[0])
    if isinstance(leaf, StepEntries):
        return min((chain[0][0] for chain in state[0].values()), default=None)
    if isinstance(leaf, Entries):
        times = [state[0][0][0]] if state[0] else []
        # A tile stands for what lies in it: it goes whole, when the last of it may be there no more.
        times += [(number + 1) * leaf.tile_ms - 1 for number in state[2]]
        return min(times, default=None)
    return None


def cut(leaf: Leaf, state: Any, floor_ms: int) -> Any:
    """A state without what happened at `floor_ms` or before; None if nothing is left. The state itself stays."""
    if isinstance(leaf, NewestTimes):
        return [time_ms for time_ms in state if time_ms > floor_ms] or None
    if isinstance(leaf, LatestScore):
        return state if state[0] > floor_ms else None
    if isinstance(leaf, StepEntries):
        chains = {one: [e[:] for e in chain if e[0] > floor_ms] for one, chain in state[0].items()}
        chains = {one: chain for one, chain in chains.items() if chain}
        return [chains, state[1]] if chains else None
    if isinstance(leaf, Entries):
        left = leaf.copy(state)
        leaf.take_out(left, sum(entry[0] <= floor_ms for entry in left[0]))
        for number in [one for one in left[2] if (one + 1) * leaf.tile_ms - 1 <= floor_ms]:
            del left[2][number]
        return left if left[0] or left[2] else None
    return state


def kept_leaves(specs: Mapping[str, Any]) -> dict[str, int]:
    """The leaves (specs of a plan, by id) whose states are cut, and how long each keeps what is in it."""
    return {leaf_id: spec.kept_ms for leaf_id, spec in specs.items() if spec.kept_ms}


def goes_at(plan: Any, states: dict[str, Any]) -> int | None:
    """When the first of what is in these states is to go; None if nothing is. `plan` is a SegmentsPlan."""
    first: int | None = None
    for leaf_id, ms in plan.kept.items():
        state = awake(states, leaf_id)
        since = None if state is None else oldest(plan.leaves[leaf_id].leaf, state)
        if since is not None and (first is None or since + ms < first):
            first = since + ms
    return first


def let_go(plan: Any, states: dict[str, Any], at: int) -> tuple[str, ...]:
    """Take what is to be gone at `at` out of states, in place. The leaves that changed; they are awake."""
    changed = []
    for leaf_id, ms in plan.kept.items():
        state = awake(states, leaf_id)
        leaf = plan.leaves[leaf_id].leaf
        since = None if state is None else oldest(leaf, state)
        if since is not None and since + ms <= at:
            left = cut(leaf, state, at - ms)
            changed.append(leaf_id)
            if left is None:
                del states[leaf_id]
            else:
                states[leaf_id] = left
    return tuple(changed)
