"""How a profile stands with segments: what is the same of people and of accounts when one is entered or left."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.records import Membership, SegmentMember, encode
from pipeline.segments import HIDDEN, Rule
from pipeline.unify.actor import Pair

if TYPE_CHECKING:
    from pipeline.unify.publish import Moment
    from pipeline.unify.task import Task

Pairs = dict[str, Pair]


def turn(pairs: Pairs, segment: str, entered: bool, moment: "Moment", rule: Rule | None) -> tuple[Pair, bool] | None:
    """Enter or leave a segment, unless that is how it is already. Gives the pair, and whether what caused it is late:
    it happened before the pair was what it was until now."""
    pair = pairs.get(segment)
    if pair is None:
        pair = pairs[segment] = Pair(False, 0, 0, 0)
    if pair.member is entered:
        return None
    late = moment.cause == "event" and moment.at < pair.at
    pair.member = entered
    pair.at = max(moment.at, pair.at)
    pair.sequence += 1
    if rule is not None:
        pair.version = rule.version
    return pair, late


def go_on(pairs: Pairs, told: Mapping[str, Pair]) -> dict[str, int]:
    """Take what was told elsewhere for what was told here: also when, for nothing happens before that any more. Gives
    the segments of which tables say something else now, with the sequence from which each goes on."""
    taken_over = {}
    for segment in sorted(told.keys() | {one for one in pairs if one[0] != HIDDEN}):
        before = told.get(segment) or Pair(False, 0, 0, 0)
        pair = pairs.setdefault(segment, Pair(False, 0, 0, before.version))
        if pair.member is before.member and pair.sequence >= before.sequence and pair.at >= before.at:
            continue
        was, pair.member = pair.member, before.member
        pair.sequence, pair.at = max(pair.sequence, before.sequence), max(pair.at, before.at)
        if was or pair.member:
            taken_over[segment] = pair.sequence
    return taken_over


def untold(pairs: Pairs, taken_over: Mapping[str, int]) -> list[str]:
    """Those of which nothing has been said since: their rows are still to be written."""
    return [segment for segment, sequence in taken_over.items() if pairs[segment].sequence == sequence]


def write_row(task: "Task", entity: str, profile_id: str, segment: str, pair: Pair) -> None:
    """Write the present membership, or that there is none."""
    member = SegmentMember(segment, profile_id, entity, pair.version, pair.at, pair.sequence)
    key = f"{segment}/{profile_id}".encode()
    task.out.upsert("segment-members", key, encode(member) if pair.member else None, profile_id.encode())


def shown(pairs: Pairs) -> dict[str, Membership]:
    """The memberships that a document shows."""
    return {
        segment: Membership(pair.at, pair.sequence, pair.version)
        for segment, pair in pairs.items()
        if pair.member and segment[0] != HIDDEN
    }


def changed(pairs: Pairs, segments: Iterable[str], added: dict[str, Any], removed: dict[str, list[str]]) -> None:
    """Put the present state of these memberships into a profile change."""
    entered: dict[str, Membership] = {}
    left: list[str] = []
    for segment in segments:
        pair = pairs[segment]
        if pair.member:
            entered[segment] = Membership(pair.at, pair.sequence, pair.version)
        else:
            left.append(segment)
    if entered:
        added["segments"] = entered
    if left:
        removed["segments"] = left


def traits_changed(
    traits: Mapping[str, tuple[int, Any]], names: Iterable[str], added: dict[str, Any], removed: dict[str, list[str]]
) -> None:
    """Put the present values of these traits into a profile change; one that is null is gone."""
    values = {name: traits[name][1] for name in names}
    written = {name: value for name, value in values.items() if value is not None}
    if written:
        added["traits"] = written
    if len(written) < len(values):
        removed["traits"] = sorted(name for name, value in values.items() if value is None)
