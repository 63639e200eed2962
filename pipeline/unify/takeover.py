"""Subscribers who come over from another workspace: what they were told goes on, and what is different is told.

A switch sends, for each profile of which the two do not agree, what the old workspace had told of it. The holder takes
that for what it had told itself: the sequence goes on where subscribers know it, and where it finds otherwise it says
so, with cause `backfill`. It does so before it looks at the clock: of what has come due here, and nobody has told yet,
the old workspace may have told already; if not, it comes after what that told. What was told of a profile that is not
one here (merged into another, or parted) is left. After it, who knew what the old workspace said knows what this says.
"""

from pipeline.accounts import NAMESPACE
from pipeline.identifiers import split_identifier
from pipeline.records import Takeover
from pipeline.segments import HIDDEN
from pipeline.unify import account, holder, memberships, publish, settling
from pipeline.unify.actor import Pair
from pipeline.unify.forms import pairs_of
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task


def on_takeover(task: Task, message: Takeover) -> None:
    """Go on where another workspace stopped."""
    if split_identifier(message.identifier)[0] == NAMESPACE:
        account.on_takeover(task, message)
        return
    key = task.actor_key(message.identifier)
    actor = task.actor(key, message.identifier)
    profile = task.profile(key, actor)
    moment = Moment("backfill", task.clock)
    told = {segment: Pair(*one) for segment, one in message.told.items()}
    if profile.profile_id != message.profile_id:
        # Erased in one of the two: that id is nobody's here, and whoever it was is somebody new.
        for segment, before in sorted(told.items()):
            if before.member:
                publish.leave_elsewhere(task, profile, message.profile_id, segment, before, moment)
        told = {}
    taken_over = memberships.go_on(pairs_of(actor), told)
    settling.settle(task, profile)
    if actor.published:
        changed = holder.compare(task, profile, moment)
        pairs = pairs_of(actor)
        kept = memberships.untold(pairs, taken_over)
        for segment in kept:
            memberships.write_row(task, publish.PERSON, profile.profile_id, segment, pairs[segment])
        holder.say_memberships(task, profile, [*changed, *kept], moment)
    else:
        into = task.profile_id(actor.name, actor.name_erased) if actor.name not in ("", actor.identifier) else None
        members = (segment for segment, pair in pairs_of(actor).items() if pair.member and segment[0] != HIDDEN)
        for segment in sorted(members):
            publish.segment_change(task, profile, segment, False, moment, moved_to=into)
    actor.settled = task.clock
    task.set_deadline(profile)
    task.put(key, actor)
