"""The holder: it keeps the profile named after its identifier, and is the only one who says anything about it.

A record first settles what time alone has changed (settling.py), then changes the facts (an event: folding.py), then
evaluates at the clock. Here is how a profile begins and ends, and enters and leaves segments. A change of membership
may have to wait:

    the profile's own fragment is on its way back       FROZEN     nothing changes until it is here
    its identifier belongs to another profile by now    ELSEWHERE  nothing is entered: the rest will be called away too
    a part is known to be on its way                    ARRIVING   nothing is entered: the part may be what forbids it
    an account has not told yet what a rule asks        news.unanswered   nothing of this segment changes until it has

Only entries that rest on an absence would have to wait for a part. All of them do, for the milliseconds that it takes:
then nobody has to know which rules, counts and averages could be wrong about a part of a person.
"""

from collections.abc import Sequence, Set
from typing import Any

from pipeline.identifiers import BURIED
from pipeline.profile import difference, is_empty
from pipeline.records import LivesAgain, ProfileDocument, encode
from pipeline.segments import HIDDEN, Flip, segment_of
from pipeline.unify import keeping, news, publish
from pipeline.unify.forms import belongs_elsewhere, live, pairs_of
from pipeline.unify.profile import Profile
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

FREE, ARRIVING, ELSEWHERE, FROZEN = 0, 1, 2, 3


def holdback(profile: Profile, clock: int) -> int:
    """What has to wait at this profile."""
    actor, group = profile.actor, profile.group
    if belongs_elsewhere(actor):
        return ELSEWHERE
    if group is not None:
        own = group.present.get(actor.identifier)
        if own is None or not own[0]:
            return FROZEN
        if profile.awaiting:
            return ARRIVING
    return ARRIVING if actor.expecting and clock < actor.hold_until else FREE


def consent_turned(task: Task, profile: Profile, moment: Moment, refused: Sequence[str] = ()) -> None:
    """What the person allows may have changed, and memberships have not yet. What has to wait is looked at again with
    them."""
    level = holdback(profile, task.clock)
    if level != FROZEN and publish.turned(task, profile, moment, not level, refused if level else ()):
        profile.actor.held = True


# --------------------------------------------------------------------------------------------------- the profile's life


def begin(task: Task, profile: Profile, moment: Moment, change: str = "created", origin: str | None = None) -> bool:
    """Publish the profile, if it is one: its own identifier names it, is here, and something is known of it."""
    actor = profile.actor
    if is_empty(profile.joined) or holdback(profile, task.clock) >= ELSEWHERE:
        return False
    actor.published = True
    profile.ended, profile.moved_to = False, ""
    actor.left = []
    actor.generation = task.generation
    profile.plan = task.plan
    news.touched(task, profile, moment, whole=True)
    task.judge(profile, task.clock)
    publish.turned(task, profile, moment, holdback(profile, task.clock) == FREE, silently=True)
    compare(task, profile, moment)
    publish.begin(task, profile, change, moment, origin)
    if actor.retired:
        publish.no_pointer(task, profile.profile_id)
        actor.retired = False
    _lead_here(task, profile)
    return True


def _lead_here(task: Task, profile: Profile) -> None:
    """Whatever begins a profile, all of its identifiers lead to it: its own, of which there may have been no event, and
    the others, from which nothing led anywhere if it had expired."""
    actor, group = profile.actor, profile.group
    if not actor.announced:
        actor.announced = True
        publish.pointer(task, actor.identifier, profile.profile_id, actor.epoch)
    if group is not None and actor.expired:
        for name in live(group, actor):
            if name != actor.identifier:
                message = LivesAgain(identifier=name, epoch=group.present[name][1], clock=task.clock)
                task.out.log("links", task.keys.actor(name), encode(message))


def end(task: Task, profile: Profile, change: str, moment: Moment, into: str | None = None) -> None:
    """The profile is no more: it leaves its segments, and only its counters stay."""
    actor = profile.actor
    members = sorted(segment for segment, pair in pairs_of(actor).items() if pair.member)
    news.touched(task, profile, moment)
    profile.ended, profile.moved_to = True, into or ""
    for segment in members:
        publish.segment_change(task, profile, segment, False, moment, moved_to=into)
    publish.profile_change(task, profile, change, moment, {}, {}, into=into)
    publish.unpublish(task, profile)
    actor.left = [segment for segment in members if segment[0] != HIDDEN]
    actor.published = actor.held = False
    profile.standing = None
    if change != "merged":
        actor.told = None
    if into is not None:
        actor.retired = True
        publish.pointer(task, profile.profile_id, into, actor.epoch, retired=True)


def end_if_elsewhere(task: Task, profile: Profile, moment: Moment) -> None:
    """A published profile whose own identifier has gone to another ends as a part of that one."""
    actor = profile.actor
    if actor.published and actor.name and actor.name != actor.identifier and not _own_is_here(profile):
        end(task, profile, "merged", moment, task.profile_id(actor.name, actor.name_erased))


def say_change(
    task: Task,
    profile: Profile,
    before: ProfileDocument,
    moment: Moment,
    origin: str = "",
    refused: Sequence[str] = (),
) -> None:
    """Fragments of a published profile came or went, and were judged anew: say what is different. If nothing is known
    of it any more, and nothing is on its way, it ends as a part of whoever got the last fragment. `refused`: the
    destinations that may not have the profile that a fragment came from."""
    if is_empty(profile.joined) and holdback(profile, 0) not in (FROZEN, ELSEWHERE) and not profile.awaiting:
        group = profile.group
        given = group.given.values() if group is not None else ()
        heirs = [(epoch, to, erased) for to, epoch, erased in given if to and to[:1] != BURIED]
        if heirs:
            _, to, erased = max(heirs)
            end(task, profile, "merged", moment, task.profile_id(to, erased))
            # Not by a decision about this profile: nobody is told to say that they have what it brought to accounts.
            profile.moved_to = ""
        else:
            end(task, profile, "erased", moment)
        return
    news.touched(task, profile, moment)
    compare(task, profile, moment, refused=refused)
    say_difference(task, profile, before, moment, origin)


def _own_is_here(profile: Profile) -> bool:
    return profile.group is None or profile.actor.identifier in profile.group.present


def rejoin(task: Task, profile: Profile, moment: Moment) -> None:
    """Fragments came or went: join them anew, and judge them at the clock."""
    task.rejoin(profile)
    keeping.let_go_of_late(task, profile)
    if profile.actor.published:
        task.judge(profile, task.clock)
        news.touched(task, profile, moment, whole=True)


def say_difference(task: Task, profile: Profile, before: ProfileDocument, moment: Moment, origin: str = "") -> None:
    """Say what has changed of a profile since `before`, its memberships included."""
    added, removed = difference(before, publish.document(profile))
    if added or removed:
        publish.profile_change(task, profile, "updated", moment, added, removed, origin=origin or None)
        publish.publish(task, profile)


# ---------------------------------------------------------------------------------------------------------- segments


def flip(task: Task, profile: Profile, flips: Sequence[Flip], moment: Moment, now: int) -> list[str]:
    """Make these changes of membership, but those that have to wait. Gives the segments that changed."""
    actor = profile.actor
    level = holdback(profile, now)
    left_alone = not_compared(profile)
    if len(flips) > 1:
        flips = sorted(flips, key=segment_of)
    done = []
    for one in flips:
        if one.segment in left_alone:
            continue
        if level and (one.entered or level == FROZEN):
            actor.held = True
        elif publish.segment_change(task, profile, one.segment, one.entered, moment, one.approximate):
            done.append(one.segment)
    return done


def compare(
    task: Task, profile: Profile, moment: Moment, among: Set[str] | None = None, refused: Sequence[str] = ()
) -> list[str]:
    """Enter and leave until the memberships (of the segments `among`, if given) are those of the standing, but for what
    has to wait or is paused. Gives the segments that changed."""
    actor = profile.actor
    level = holdback(profile, task.clock)
    actor.held = False
    consent_turned(task, profile, moment, refused)
    assert profile.standing is not None
    standing = profile.standing.members
    members = {segment for segment, pair in pairs_of(actor).items() if pair.member}
    done = []
    different = (standing ^ members) - not_compared(profile)
    for segment in sorted(different if among is None else different & among):
        entered = segment in standing
        if level and (entered or level == FROZEN):
            actor.held = True
        elif publish.segment_change(task, profile, segment, entered, moment):
            done.append(segment)
    return done


def say_memberships(task: Task, profile: Profile, segments: Sequence[str], moment: Moment) -> None:
    """Say which memberships have just changed, if any."""
    if segments:
        added: dict[str, Any] = {}
        removed: dict[str, list[str]] = {}
        publish.memberships_changed(profile, segments, added, removed)
        publish.profile_change(task, profile, "updated", moment, added, removed)
        publish.publish(task, profile)


def not_compared(profile: Profile) -> Set[str]:
    """The segments whose memberships stay as they are whatever the standing says: paused ones, and those for which an
    account has to be heard first."""
    plan = profile.plan.segments
    return plan.paused | news.unanswered(profile) if plan.answered_since else plan.paused
