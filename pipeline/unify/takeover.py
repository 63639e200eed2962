"""Subscribers who come over from another workspace: what they were told goes on, and what is different is told.

A switch sends, for each profile of which the two do not agree, what the old workspace had told of it. The holder takes
that for what it had told itself: the sequence goes on where subscribers know it, and where it finds otherwise it says
so, with cause `backfill`. What was told of a profile that is not one here (merged into another, or parted) is left.
After it, who knew what the old workspace said knows what this one says.
"""

from pipeline.accounts import NAMESPACE
from pipeline.identifiers import split_identifier
from pipeline.records import Takeover
from pipeline.segments import HIDDEN
from pipeline.unify import account, holder, memberships, publish
from pipeline.unify.actor import Pair
from pipeline.unify.forms import pairs_of
from pipeline.unify.publish import Moment
from pipeline.unify.task import Profile, Task


def on_takeover(task: Task, message: Takeover) -> None:
    """Go on where another workspace stopped."""
    if split_identifier(message.identifier)[0] == NAMESPACE:
        account.on_takeover(task, message)
        return
    key = task.actor_key(message.identifier)
    actor = task.actor(key, message.identifier)
    profile = task.profile(key, actor)
    holder.settle(task, profile)
    moment = Moment("backfill", task.clock)
    told = {segment: Pair(*one) for segment, one in message.told.items()}
    if profile.profile_id != message.profile_id:
        # Erased in one of the two: that id is nobody's here, and whoever it was is somebody new.
        for segment, before in sorted(told.items()):
            if before.member:
                publish.leave_elsewhere(task, profile, message.profile_id, segment, before, moment)
        told = {}
    kept = _go_on(profile, told)
    for segment in kept:
        memberships.write_row(task, publish.PERSON, profile.profile_id, segment, pairs_of(actor)[segment])
    if actor.published:
        changed = holder.compare(task, profile, moment)
        holder.say_memberships(task, profile, [*changed, *kept], moment)
    else:
        into = task.profile_id(actor.name, actor.name_erased) if actor.name not in ("", actor.identifier) else None
        members = (segment for segment, pair in pairs_of(actor).items() if pair.member and segment[0] != HIDDEN)
        for segment in sorted(members):
            publish.segment_change(task, profile, segment, False, moment, moved_to=into)
    actor.settled = task.clock
    task.set_deadline(profile)
    task.put(key, actor)


def _go_on(profile: Profile, told: dict[str, Pair]) -> list[str]:
    """Take what was told elsewhere for what was told here. Gives the segments of which it is a member as before, whose
    rows are to be written anew."""
    pairs, left_alone = pairs_of(profile.actor), holder.not_compared(profile)
    kept = []
    for segment in sorted(told.keys() | {one for one in pairs if one[0] != HIDDEN}):
        before = told.get(segment) or Pair(False, 0, 0, 0)
        pair = pairs.setdefault(segment, Pair(False, 0, 0, before.version))
        if pair.member is before.member and pair.sequence >= before.sequence:
            continue
        # What is paused keeps the members it had: nothing is compared there.
        if before.member and (pair.member or segment in left_alone) and profile.actor.published:
            kept.append(segment)
        pair.member = before.member
        pair.sequence, pair.at = max(pair.sequence, before.sequence), max(pair.at, before.at)
    return kept
