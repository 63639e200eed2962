"""What contracts allow to be kept no longer goes by deadline, at the millisecond, from every fragment of a profile.

What rules count is kept for their windows, and an event in the history for as long as its key.
"""

import msgspec

from pipeline.contracts import ContractsPlan
from pipeline.profile import take_out, to_go
from pipeline.records import Event
from pipeline.unify.actor import live
from pipeline.unify.task import Profile, Task


def in_time(event: Event, contracts: ContractsPlan, now_ms: int) -> Event:
    """The event without the traits that it states too late to be kept at all."""
    keeps = contracts.keeps_traits
    late = [name for name in event.traits if name in keeps and event.time + keeps[name] <= now_ms]
    if not late:
        return event
    return msgspec.structs.replace(event, traits={name: v for name, v in event.traits.items() if name not in late})


def let_go(task: Task, profile: Profile, at: int) -> tuple[list[str], list[str]]:
    """Take out of a profile, and of each of its fragments, what is to be gone at `at`. Gives the traits and the events.
    The actor must be put afterwards."""
    contracts, joined, actor = profile.plan.contracts, profile.joined, profile.actor
    traits, events = to_go(joined, contracts.keeps_traits, contracts.keeps_events, at)
    for name in events:
        task.count("expired", joined.totals[name][0])
    # The newest of each is to go, so all are.
    for name in live(profile.group, actor) if profile.group is not None else (actor.identifier,):
        part = task.part(profile.key, actor, name)
        if part is not None and part is not joined and take_out(part, traits, events):
            task.put_part(profile.key, actor, name, part)
    take_out(joined, traits, events)
    return traits, events
