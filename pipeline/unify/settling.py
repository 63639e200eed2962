"""Time at a holder: what it alone changes of a profile, in order, up to the clock.

Memberships turn when windows end or absences are complete, computed traits change, what contracts keep for so long
goes, a profile of pseudonyms expires, what waited for a part waits no longer, and the definitions may have changed.
"""

from typing import Any

from pipeline.profile import events_in, same_value
from pipeline.records import Expired, encode
from pipeline.unify import holder, keeping, news, publish
from pipeline.unify.actor import FOREVER
from pipeline.unify.forms import live, pairs_of, waits
from pipeline.unify.profile import Profile
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task


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
        holder.say_memberships(task, profile, holder.compare(task, profile, moment), moment)
        task.clock = clock
        news.touched(task, profile, moment)
    if expires <= task.clock:
        _timers(task, profile, expires)
        _expire(task, profile, expires)
    else:
        _timers(task, profile, task.clock)
        if differs:
            moment = Moment("definition", task.clock)
            holder.say_memberships(task, profile, holder.compare(task, profile, moment), moment)
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
            publish.memberships_changed(profile, holder.flip(task, profile, flips, moment, at), added, removed)
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
            holder.consent_turned(task, profile, moment)
    if traits or leaves:
        assert profile.standing is not None
        there = tuple(one for one in leaves if one in profile.joined.leaves)
        flips = profile.plan.segments.update(profile.standing, profile, moment.at, there, traits)
        if flips:
            publish.memberships_changed(profile, holder.flip(task, profile, flips, moment, moment.at), added, removed)
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


def _expire(task: Task, profile: Profile, at: int) -> None:
    """Nothing was received for long of somebody who is known by pseudonyms only: forget it, but for the counters."""
    actor = profile.actor
    holder.end(task, profile, "expired", Moment("expired", at))
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
        level = holder.holdback(profile, task.clock)
        publish.turned(task, profile, Moment("definition", task.clock), level == holder.FREE, before=former)
    known = profile.plan.segments.segments
    for segment in sorted(segment for segment, pair in pairs_of(actor).items() if pair.member and segment not in known):
        publish.segment_change(task, profile, segment, False, Moment("definition", task.clock))
    if resumed:
        holder.compare(task, profile, Moment("definition", task.clock), resumed)
    moment = Moment("backfill", task.clock)
    holder.compare(task, profile, moment)
    holder.say_difference(task, profile, before, moment)
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
