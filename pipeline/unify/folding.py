"""An event at a holder: it is folded into the fragment of whom it is of, and what it changed is said."""

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any

from pipeline.accounts import stated
from pipeline.profile import Fragment, fold, tie
from pipeline.records import Cause, Event, Total
from pipeline.segments import Flip
from pipeline.unify import holder, keeping, memberships, news, publish, settling
from pipeline.unify.actor import Actor
from pipeline.unify.profile import Profile
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

_packed = Struct(">IQ").pack
# Copying one costs half of what making one does.
_hash = blake2b(digest_size=8)


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
        settling.settle(task, profile)
    place = _packed(position[0], position[1])
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
        holder.begin(task, profile, moment)
    else:
        standing = profile.standing
        assert standing is not None
        if changed is not None and (changed[1] or not profile.plan.activation.reads.isdisjoint(changed[0])):
            holder.consent_turned(task, profile, moment)
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
            settling.compute(task, profile, task.clock, added, removed)
        if flips:
            publish.memberships_changed(profile, holder.flip(task, profile, flips, moment, task.clock), added, removed)
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
            holder.rejoin(task, profile, moment)
            if before is not None:
                holder.compare(task, profile, moment)
                holder.say_difference(task, profile, before, moment)
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
    found = _hash.copy()
    found.update(message_id.encode())
    return found.digest()
