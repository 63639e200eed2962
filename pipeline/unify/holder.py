"""The holder: it keeps the profile named after its identifier, and is the only one who says anything about it.

A record first settles what time alone has changed, then changes the facts, then evaluates at the clock. A change of
membership may have to wait:

    the profile's own fragment is on its way back       FROZEN     nothing changes until it is here
    its identifier belongs to another profile by now    ELSEWHERE  nothing is entered: the rest will be called away too
    a part is known to be on its way                    ARRIVING   nothing is entered: the part may be what forbids it
    an account has not told yet what a rule asks        news.unanswered   nothing of this segment changes until it has

Only entries that rest on an absence would have to wait for a part. All of them do, for the milliseconds that it takes:
then nobody has to know which rules, counts and averages could be wrong about a part of a person.
"""

from collections.abc import Sequence, Set
from hashlib import blake2b
from typing import Any

from pipeline.accounts import stated
from pipeline.identifiers import BURIED
from pipeline.profile import Fragment, difference, events_in, fold, is_empty, same_value, tie
from pipeline.records import Cause, Event, Expired, LivesAgain, ProfileDocument, Total, encode
from pipeline.segments import HIDDEN, Flip
from pipeline.unify import keeping, memberships, news, publish
from pipeline.unify.actor import FOREVER, Actor
from pipeline.unify.forms import belongs_elsewhere, live, pairs_of, waits
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


# ----------------------------------------------------------------------------------------------------------- an event


def take_event(
    task: Task,
    key: bytes,
    actor: Actor,
    fragment: str,
    event: Event,
    message_hash: bytes,
    position: tuple[int, int],
    generation: int,
    epoch: int,
) -> None:
    """Fold an event into a fragment held here, and say what it changed. Puts the actor."""
    profile = task.profile(key, actor)
    if task.may_be_due(actor) or actor.generation != task.generation:
        settle(task, profile)
    place = position[0].to_bytes(4, "big") + position[1].to_bytes(8, "big")
    joined = profile.joined
    if profile.group is None and fragment == actor.identifier:
        actor.own = part = joined
    else:
        part = part_of_several(task, profile, fragment, epoch)
        joined = profile.joined
        assert profile.group is not None
        if actor.erased and profile.group.present[fragment][1] < actor.erased:
            # It came here before the erasure, and only waits to be called back.
            fold(part, event, message_hash, place)
            statement = stated(event)
            if statement is not None:
                tie(part, statement[0], event.time, statement[1])
            task.fold_leaves(part.leaves, event, generation)
            task.put_part(key, actor, fragment, part)
            task.put(key, actor)
            return
    first_seen, last_seen = joined.first_seen, joined.last_seen
    whole, event = event, keeping.in_time(event, profile.plan.contracts, task.clock)
    changed = fold(joined, event, message_hash, place)
    statement = stated(event) if event.group_id is not None else None
    accounts: list[str] | None = None
    if statement is not None:
        accounts = news.accounts_of(profile)
        if tie(joined, statement[0], event.time, statement[1]):
            profile.belongs = None
    leaf_ids = task.fold_leaves(joined.leaves, event, generation)
    if part is not joined:
        fold(part, event, message_hash, place)
        if statement is not None:
            tie(part, statement[0], event.time, statement[1])
        task.fold_leaves(part.leaves, event, generation)
        task.put_part(key, actor, fragment, part)

    moment = Moment("event", event.time, Cause(event.message_id, position[0], position[1]), event.source, whole)
    if not actor.published:
        begin(task, profile, moment)
    else:
        standing = profile.standing
        assert standing is not None
        if changed is not None and (changed[1] or not profile.plan.activation.reads.isdisjoint(changed[0])):
            consent_turned(task, profile, moment)
        flips: Sequence[Flip] = ()
        if changed is not None:
            flips = profile.plan.segments.update(standing, profile, task.clock, leaf_ids, changed[0], changed[1])
        elif leaf_ids:
            flips = profile.plan.segments.update(standing, profile, task.clock, leaf_ids)
        name = event.event
        total = joined.totals[name]
        added: dict[str, Any] = {"totals": {name: Total(total[0], total[1], total[2])}}
        removed: dict[str, list[str]] = {}
        if joined.last_seen != last_seen:
            added["last_seen"] = joined.last_seen
        if joined.first_seen != first_seen:
            added["first_seen"] = joined.first_seen
        if changed is not None:
            _values_changed(joined, changed, added, removed)
        if accounts is not None:
            _ties_changed(task, profile, accounts, moment, added)
        if task.computed_leaves and not task.computed_leaves.isdisjoint(leaf_ids):
            compute(task, profile, task.clock, added, removed)
        if flips:
            publish.memberships_changed(profile, flip(task, profile, flips, moment, task.clock), added, removed)
        if actor.belonging is not None and not task.account_leaves(actor.generation).isdisjoint(leaf_ids):
            news.acted(task, profile, moment, event, generation)
        publish.profile_change(task, profile, "updated", moment, added, removed)
        task.dirty[key] = profile
    activation = profile.plan.activation
    if actor.published and activation.wants_event(event.event):
        publish.deliver_event(task, profile, whole)
    if not profile.unfollowed:
        # Once looked for, not again for every event.
        actor.unfollowed = False
    actor.settled = task.clock
    task.set_deadline(profile)
    task.state.put(key, actor, actor.wake)


def consent_turned(task: Task, profile: Profile, moment: Moment, refused: Sequence[str] = ()) -> None:
    """What the person allows may have changed, and memberships have not yet. What has to wait is looked at again with
    them."""
    level = holdback(profile, task.clock)
    if level != FROZEN and publish.turned(task, profile, moment, not level, refused if level else ()):
        profile.actor.held = True


def part_of_several(task: Task, profile: Profile, fragment: str, epoch: int) -> Fragment:
    """The fragment that an event, or history, goes into, at a holder of several."""
    key, actor = profile.key, profile.actor
    group = profile.group
    there = group.present.get(fragment) if group is not None else None
    if there is None or there[1] < epoch:
        # Its route says that it belongs here: what it held before is on its way.
        before = publish.document(profile) if actor.published else None
        group = task.group_to_change(key, actor)
        group.present[fragment] = (there[0] if there is not None else False, epoch)
        task.put_group(key, actor, group)
        profile.group = group
        if there is None or (actor.erased and there[1] < actor.erased):
            moment = Moment("merge", task.clock)
            rejoin(task, profile, moment)
            if before is not None:
                compare(task, profile, moment)
                say_difference(task, profile, before, moment)
    part = task.part(key, actor, fragment)
    return part if part is not None else Fragment()


def _ties_changed(task: Task, profile: Profile, before: list[str], moment: Moment, added: dict[str, Any]) -> None:
    after = news.accounts_of(profile)
    if after != before:
        added["accounts"] = after
        news.touched(task, profile, moment)


def _values_changed(
    joined: Fragment, changed: tuple[list[str], list[str]], added: dict[str, Any], removed: dict[str, list[str]]
) -> None:
    traits, consents = changed
    if traits:
        memberships.traits_changed(joined.traits, traits, added, removed)
    if consents:
        added["consents"] = {purpose: joined.consents[purpose][1] for purpose in consents}


def hash_of(message_id: str) -> bytes:
    """Eight bytes that stand for a message id."""
    return blake2b(message_id.encode(), digest_size=8).digest()


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
        flips = sorted(flips, key=_segment_of)
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


def not_compared(profile: Profile) -> Set[str]:
    """The segments whose memberships stay as they are whatever the standing says: paused ones, and those for which an
    account has to be heard first."""
    plan = profile.plan.segments
    return plan.paused | news.unanswered(profile) if plan.answered_since else plan.paused


def _segment_of(one: Flip) -> str:
    return one.segment


# -------------------------------------------------------------------------------------------------------------- time


def settle(task: Task, profile: Profile) -> None:
    """Bring a profile up to the clock: what time alone has changed, in order. The actor must be put afterwards."""
    actor = profile.actor
    by_other_rules = actor.generation != task.generation
    if by_other_rules:
        _change_generation(task, profile)
    differs, profile.differs = profile.differs, False
    if not actor.published or not (task.is_due(profile) or differs):
        actor.settled = task.clock
        return
    # It lived when it was last looked at: by rules that have changed since, or with what it was parted from. Whom it is
    # to be with instead may be told in the same instant, and is on its way then.
    lives_until = actor.settled if by_other_rules else actor.settled + 1
    expires = max(task.expires(profile), lives_until) if profile.pseudonymous else FOREVER
    held = actor.hold_until if waits(actor) and actor.hold_until > actor.settled else FOREVER
    if held <= task.clock and held < expires:
        _timers(task, profile, held)
        moment = Moment("merge", held)
        clock, task.clock = task.clock, held
        say_memberships(task, profile, compare(task, profile, moment), moment)
        task.clock = clock
        news.touched(task, profile, moment)
    if expires <= task.clock:
        _timers(task, profile, expires)
        _expire(task, profile, expires)
    else:
        _timers(task, profile, task.clock)
        if differs:
            moment = Moment("definition", task.clock)
            say_memberships(task, profile, compare(task, profile, moment), moment)
    actor.settled = task.clock
    task.set_deadline(profile)


def _timers(task: Task, profile: Profile, until: int) -> None:
    standing = profile.standing
    assert standing is not None
    contracts = profile.plan.contracts
    keeps = contracts.keeps_traits or contracts.keeps_events or profile.plan.segments.kept
    while True:
        computed_at = profile.computed_deadline or FOREVER
        goes_at = FOREVER
        if keeps:
            until_ms = keeping.first_to_go(profile)
            # Never before the clock was last there: what was taken in since may be to go at once.
            if until_ms is not None:
                goes_at = max(until_ms, profile.actor.settled)
        at = min(standing.deadline or FOREVER, computed_at, goes_at)
        if at > until:
            return
        moment = Moment("timer", at)
        added: dict[str, Any] = {}
        removed: dict[str, list[str]] = {}
        if computed_at == at:
            compute(task, profile, at, added, removed)
        for _, flips in profile.plan.segments.settle(standing, profile, at):
            publish.memberships_changed(profile, flip(task, profile, flips, moment, at), added, removed)
        if goes_at == at:
            _let_go(task, profile, moment, added, removed)
        if added or removed:
            publish.profile_change(task, profile, "updated", moment, added, removed)
            publish.publish(task, profile)


def _let_go(task: Task, profile: Profile, moment: Moment, added: dict[str, Any], removed: dict[str, list[str]]) -> None:
    """Contracts allow some of it to be kept no longer."""
    traits, events, leaves = keeping.let_go(task, profile, moment.at)
    if events:
        removed["totals"] = events
    if traits:
        removed["traits"] = traits
        if not profile.plan.activation.reads.isdisjoint(traits):
            consent_turned(task, profile, moment)
    if traits or leaves:
        assert profile.standing is not None
        there = tuple(one for one in leaves if one in profile.joined.leaves)
        flips = profile.plan.segments.update(profile.standing, profile, moment.at, there, traits)
        if flips:
            publish.memberships_changed(profile, flip(task, profile, flips, moment, moment.at), added, removed)
    if leaves:
        # Of what is gone no computed trait waits for anything.
        compute(task, profile, moment.at, added, removed)
    actor = profile.actor
    if actor.belonging is not None and not task.account_leaves(actor.generation).isdisjoint(leaves):
        news.touched(task, profile, moment, whole=True)


def compute(task: Task, profile: Profile, now: int, added: dict[str, Any], removed: dict[str, list[str]]) -> None:
    """Compute the computed traits as of `now`, and put what changed of them into a profile change, over what that says
    of them already."""
    before = profile.computed
    task.compute(profile, now)
    after = profile.computed
    changed = added.pop("computed", {}) | {
        name: value for name, value in after.items() if name not in before or not same_value(before[name], value)
    }
    changed = {name: value for name, value in changed.items() if name in after}
    if changed:
        added["computed"] = changed
    gone = sorted(({*removed.pop("computed", ()), *before}) - after.keys())
    if gone:
        removed["computed"] = gone


def say_memberships(task: Task, profile: Profile, segments: Sequence[str], moment: Moment) -> None:
    """Say which memberships have just changed, if any."""
    if segments:
        added: dict[str, Any] = {}
        removed: dict[str, list[str]] = {}
        publish.memberships_changed(profile, segments, added, removed)
        publish.profile_change(task, profile, "updated", moment, added, removed)
        publish.publish(task, profile)


def _expire(task: Task, profile: Profile, at: int) -> None:
    """Nothing was received for long of somebody who is known by pseudonyms only: forget it, but for the counters."""
    actor = profile.actor
    end(task, profile, "expired", Moment("expired", at))
    actor.left = []
    if not actor.name or actor.name == actor.identifier:
        publish.no_pointer(task, actor.identifier)
        actor.announced = False
    names = live(profile.group, actor) if profile.group is not None else (actor.identifier,)
    received = profile.joined.last_received
    actor.expired = max(actor.expired, received)
    present = profile.group.present.values() if profile.group is not None else ()
    actor.expired_epoch = max(actor.expired_epoch, actor.epoch, *(epoch for _, epoch in present))
    for name in names:
        if name != actor.identifier:
            assert profile.group is not None
            since = profile.group.present[name][1]
            gone = Expired(identifier=name, received=received, clock=task.clock, epoch=since)
            task.out.log("links", task.keys.actor(name), encode(gone))
        task.count("expired", events_in(task.part(profile.key, actor, name)))
        task.put_part(profile.key, actor, name, None)
    task.rejoin(profile)


def _change_generation(task: Task, profile: Profile) -> None:
    """The definitions have changed since this profile was evaluated: settle under the old, then take the difference.
    All of it as of the change, however late a sweep gets here: what has come due since then has its own instant."""
    clock, task.clock = task.clock, max(task.meta.switched, profile.actor.settled)
    _take_difference(task, profile)
    task.clock = clock


def _take_difference(task: Task, profile: Profile) -> None:
    actor = profile.actor
    if actor.published:
        switched = task.meta.switched
        if actor.wake and actor.wake <= switched:
            _timers(task, profile, switched)
        before = publish.document(profile)
    resumed = profile.plan.segments.paused - task.plan.segments.paused
    former = profile.plan.activation
    actor.generation = task.generation
    profile.plan = task.plan
    _drop_old_leaves(task, profile)
    task.rejoin(profile)
    if not actor.published:
        return
    news.touched(task, profile, Moment("backfill", task.clock), whole=True)
    task.judge(profile, task.clock)
    if former is not profile.plan.activation:
        level = holdback(profile, task.clock)
        publish.turned(task, profile, Moment("definition", task.clock), level == FREE, before=former)
    known = profile.plan.segments.segments
    for segment in sorted(segment for segment, pair in pairs_of(actor).items() if pair.member and segment not in known):
        publish.segment_change(task, profile, segment, False, Moment("definition", task.clock))
    if resumed:
        compare(task, profile, Moment("definition", task.clock), resumed)
    moment = Moment("backfill", task.clock)
    compare(task, profile, moment)
    say_difference(task, profile, before, moment)
    actor.settled = task.clock
    task.set_deadline(profile)


def _drop_old_leaves(task: Task, profile: Profile) -> None:
    """Leaf states that no rule rests on any more go from every fragment."""
    key, actor = profile.key, profile.actor
    known = task.folding(task.generation, task.meta.newest).leaves
    names = list(profile.group.present) if profile.group is not None else [actor.identifier]
    for name in names:
        part = task.part(key, actor, name)
        if part is not None:
            old = [leaf_id for leaf_id in part.leaves if leaf_id not in known]
            for leaf_id in old:
                del part.leaves[leaf_id]
            if old:
                task.put_part(key, actor, name, part)
