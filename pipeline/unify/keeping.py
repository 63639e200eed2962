"""What contracts allow to be kept no longer goes by deadline, at the millisecond, from every fragment of a profile:
traits, totals with the events that stand among the last ones, and what rules count."""

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from pipeline.contracts import ContractsPlan
from pipeline.profile import Fragment, forget_recent, kept_until, take_out, to_go
from pipeline.records import Event
from pipeline.segments import goes_at
from pipeline.segments import let_go as leaves_let_go
from pipeline.unify.forms import live

if TYPE_CHECKING:
    from pipeline.unify.profile import Profile
    from pipeline.unify.task import Task


def in_time(event: Event, contracts: ContractsPlan, now_ms: int) -> Event:
    """The event without the traits that it states too late to be kept at all."""
    keeps = contracts.keeps_traits
    if not keeps or not event.traits:
        return event
    late = [name for name in event.traits if name in keeps and event.time + keeps[name] <= now_ms]
    if not late:
        return event
    return msgspec.structs.replace(event, traits={name: v for name, v in event.traits.items() if name not in late})


def leave_out_late(piece: Fragment, contracts: ContractsPlan, now_ms: int) -> None:
    """Take out of a fragment that comes the traits of which the time has passed on its way."""
    if contracts.keeps_traits:
        take_out(piece, to_go(piece, contracts.keeps_traits, {}, now_ms)[0], [])


class Gone(NamedTuple):
    """What has been taken out: traits that were shown and events by name, leaves by id."""

    traits: list[str]
    events: list[str]
    leaves: tuple[str, ...]


def first_to_go(profile: "Profile") -> int | None:
    """When the first of what is kept of a person is to go; None if nothing is."""
    contracts, segments = profile.plan.contracts, profile.plan.segments
    if not (contracts.keeps_traits or contracts.keeps_events or segments.kept):
        return None
    found = []
    if contracts.keeps_traits or contracts.keeps_events:
        found.append(kept_until(profile.joined, contracts.keeps_traits, contracts.keeps_events))
    if segments.kept:
        found.append(goes_at(segments, profile.joined.leaves))
    return min((one for one in found if one is not None), default=None)


def let_go(task: "Task", profile: "Profile", at: int) -> Gone:
    """Take out of a profile, and of each of its fragments, what is to be gone at `at`. The actor must be put
    afterwards."""
    contracts, joined, actor = profile.plan.contracts, profile.joined, profile.actor
    traits, events = to_go(joined, contracts.keeps_traits, contracts.keeps_events, at)
    for name in events:
        task.count("expired", joined.totals[name][0])
    spans = [joined.totals[name][1:] for name in events]
    shown = [name for name in traits if joined.traits[name][1] is not None]
    # The newest of each is to go, so all are.
    for name in live(profile.group, actor) if profile.group is not None else (actor.identifier,):
        part = task.part(profile.key, actor, name)
        if part is not None and part is not joined and _take_out(profile, part, traits, events, spans, at):
            task.put_part(profile.key, actor, name, part)
    leaves = leaves_let_go(profile.plan.segments, joined.leaves, at)
    _take_out(profile, joined, traits, events, spans, at)
    return Gone(shown, events, leaves)


def let_go_of_late(task: "Task", profile: "Profile") -> None:
    """Take out of a profile of which fragments came or went what may be kept no longer, before it is shown: what went
    may have been all that kept something of what is left, and what came was kept by what it left."""
    until = first_to_go(profile)
    if until is not None and until <= task.clock:
        let_go(task, profile, task.clock)


def _take_out(
    profile: "Profile", part: Fragment, traits: list[str], events: list[str], spans: list[list[int]], at: int
) -> bool:
    gone = take_out(part, traits, events)
    forgot = forget_recent(part, spans) if spans else False
    return bool(leaves_let_go(profile.plan.segments, part.leaves, at)) or gone or forgot
