"""What contracts allow to be kept no longer: it goes by deadline, at the millisecond, and nobody has to ask.

    a trait             so long after the event that stated it; what comes too late is not taken in
    an event's total    so long after the last of them: how often it was done is known no more

What rules count is kept for their windows, and an event in the history for as long as its key.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from pipeline.contracts import ContractsPlan
from pipeline.profile import Fragment
from pipeline.records import Event
from pipeline.unify.actor import FOREVER
from pipeline.unify.task import Profile, Task, live


def until(joined: Fragment, contracts: ContractsPlan) -> int:
    """When the first of what is there is to go; FOREVER if nothing is."""
    at = FOREVER
    if contracts.keeps_traits:
        for name, ms in _both(contracts.keeps_traits, joined.traits):
            time, value = joined.traits[name]
            if value is not None and time + ms < at:
                at = time + ms
    if contracts.keeps_events:
        for name, ms in _both(contracts.keeps_events, joined.totals):
            last = joined.totals[name][2]
            if last + ms < at:
                at = last + ms
    return at


def _both(kept: Mapping[str, int], there: Mapping[str, Any]) -> list[tuple[str, int]]:
    if len(kept) < len(there):
        return [(name, ms) for name, ms in kept.items() if name in there]
    return [(name, kept[name]) for name in there if name in kept]


def in_time(event: Event, contracts: ContractsPlan, now_ms: int) -> Event:
    """The event without the traits that it states too late."""
    keeps = contracts.keeps_traits
    if not keeps or not event.traits:
        return event
    late = [name for name in event.traits if name in keeps and event.time + keeps[name] <= now_ms]
    if not late:
        return event
    return msgspec.structs.replace(event, traits={n: v for n, v in event.traits.items() if n not in late})


def let_go(task: Task, profile: Profile, at: int) -> tuple[list[str], list[str]]:
    """Take out of a profile, and of each of its fragments, what is to be gone at `at`. Gives the traits and the events.
    The actor must be put afterwards."""
    contracts, joined = profile.plan.contracts, profile.joined
    traits = sorted(
        name
        for name, ms in _both(contracts.keeps_traits, joined.traits)
        if joined.traits[name][1] is not None and joined.traits[name][0] + ms <= at
    )
    events = sorted(
        name for name, ms in _both(contracts.keeps_events, joined.totals) if joined.totals[name][2] + ms <= at
    )
    for name in events:
        task.count("expired", joined.totals[name][0])
    actor = profile.actor
    names = live(profile.group, actor) if profile.group is not None else (actor.identifier,)
    parts = [(name, task.part(profile.key, actor, name)) for name in names]
    for name, part in parts:
        # The newest of each is to go, so all are.
        if part is not None and _take_out(part, traits, events) and part is not joined:
            task.put_part(profile.key, actor, name, part)
    _take_out(joined, traits, events)
    return traits, events


def _take_out(part: Fragment, traits: list[str], events: list[str]) -> bool:
    gone = [part.traits.pop(name, None) for name in traits]
    gone += [part.totals.pop(name, None) for name in events]
    return any(one is not None for one in gone)
