"""The route: it decides what is a duplicate, tells new evidence, and sends each event to whoever holds its fragment."""

from pipeline.accounts import identifier_of
from pipeline.profile import consents_anew, events_in
from pipeline.records import (
    Assign,
    Bury,
    Cause,
    Erase,
    Event,
    Expired,
    Forgotten,
    Forward,
    LivesAgain,
    Named,
    Readmit,
    Readmitted,
    Recall,
    encode,
)
from pipeline.runtime.ports import Record
from pipeline.unify import (
    belonging,
    dedup,
    evidence,
    folding,
    forgetting,
    history,
    holder,
    news,
    publish,
    settling,
    unfollowed,
)
from pipeline.unify.actor import VERSION, Actor, Group
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

# What an assignment means to those who hold and to those who read: why it was made (identity's word) → what it is.
REASONS = {
    "evidence": "merge",
    "relink": "merge",
    "release": "merge",
    "unlink": "split",
    "rules": "split",
    "erase": "split",
}


def on_event(task: Task, record: Record, key: bytes, event: Event) -> None:
    """An event at the actor of its strongest identifier, which is kept under `key` (empty: that is to be found out).
    The clock is that of the task's events."""
    received, identifiers = event.received, event.identifiers
    if event.time > received:
        event.time = received
    state = task.state
    identifier = identifiers[0]
    if not key:
        key = b"a" + record.key if record.key is not None else task.actor_key(identifier)
    actor: Actor | None = state.get(key)
    if actor is None:
        actor = Actor(VERSION, identifier, generation=task.generation)
    if actor.kept_out:
        if not consents_anew(event, actor.kept_out):
            task.count("kept_out")
            history.note_dropped(task, record.offset)
            return
        actor.kept_out = 0
        for other in identifiers[1:]:
            message = Readmit(identifier=other, time=event.time, clock=task.clock)
            task.out.log("links", task.keys.actor(other), encode(message))
        for one in identifiers:
            # Before the evidence of this event, which is refused otherwise.
            readmitted = Readmitted(identifier=one, time=event.time, received=received)
            task.out.log("identity-edges", None, encode(readmitted), 0)
    task.unbury(key, actor, identifier)
    message_hash = folding.hash_of(event.message_id)
    if dedup.is_duplicate(state, task.message_index, key, actor, message_hash, received):
        task.count("duplicates")
        history.note_dropped(task, record.offset)
        return
    named = _named(task, record, event) if event.group_id is not None and event.type == "group" else None
    if len(identifiers) > 1:
        evidence.send(task, key, actor, event)
    if not actor.announced:
        actor.announced = True
        _point(task, actor)
    generation = task.meta.marked
    position = (record.partition, record.offset)
    name, epoch = actor.name, actor.epoch
    if name and name != identifier:
        if named is not None:
            _name_account(task, named)
        task.put(key, actor)
        forward = Forward(
            to=name,
            fragment=identifier,
            event=event,
            position=position,
            generation=generation,
            clock=task.clock,
            birth=actor.erased,
            epoch=epoch,
        )
        task.out.log("links", task.keys.actor(name), encode(forward))
    else:
        task.clock = task.as_of(task.clock, actor)
        task.naming = named
        folding.take_event(task, key, actor, identifier, event, message_hash, position, generation, epoch)
        if task.touched:
            belonging.tell_all(task)
        task.naming = None
        if named is not None:
            _name_account(task, named)


def on_assign(task: Task, message: Assign) -> None:
    """The identity stage has decided whose this identifier is."""
    identifier = message.identifier
    key = task.actor_key(identifier)
    actor = task.actor(key, identifier)
    if message.epoch <= actor.epoch:
        task.count("stale_assigns")
        return
    former = actor.name or identifier
    reason = "split" if message.name == identifier else REASONS.get(message.reason, "merge")
    task.unbury(key, actor, identifier)
    profile = task.profile(key, actor)
    settling.settle(task, profile)
    actor.name, actor.epoch, actor.name_erased = message.name, message.epoch, message.name_erased
    if former not in (identifier, message.name):
        buried = task.keys.buried(former)
        if buried not in actor.past:
            actor.past = [*actor.past, buried]
    actor.announced = True
    _point(task, actor)
    if former != message.name:
        _recall(task, actor, former, message.name, reason, message.companions, message.former_lives)
        unfollowed.tell_new_holder(task, key, actor)
    moment = Moment(reason, task.clock)
    if message.name == identifier:
        if actor.published:
            holder.say_memberships(task, profile, holder.compare(task, profile, moment), moment)
        elif not holder.begin(task, profile, moment) and actor.retired:
            # It would be there again if anything were known of it: whoever had it has not, and may be led here.
            publish.no_pointer(task, profile.profile_id)
    else:
        if actor.retired:
            successor = task.profile_id(actor.name, actor.name_erased)
            publish.pointer(task, profile.profile_id, successor, actor.epoch, retired=True)
        holder.end_if_elsewhere(task, profile, moment)
    news.touched(task, profile, moment)
    task.set_deadline(profile)
    task.put(key, actor)


def on_erase(task: Task, message: Erase) -> None:
    """Whatever this actor knew before is gone, as a route and as a holder."""
    identifier = message.identifier
    key = task.actor_key(identifier)
    actor = task.actor(key, identifier)
    if message.epoch <= actor.erased:
        task.count("stale_erasures")
        return
    profile = task.profile(key, actor)
    settling.settle(task, profile)
    moment = Moment("erase", task.clock)
    asks = forgetting.what_to_ask(task, profile, message.request_id)
    if actor.published:
        holder.end(task, profile, "erased", moment)
    if profile.ended:
        # Also if it has expired just now: its accounts are to forget it as somebody who was erased.
        news.touched(task, profile, moment)
        belonging.tell(task, profile)
    elif actor.belonging is not None:
        belonging.release(task, actor.belonging.owing, moment)
    publish.deliver(task, asks)
    task.touched.pop(key, None)
    if actor.retired:
        publish.no_pointer(task, profile.profile_id)
    publish.no_pointer(task, identifier)
    former = actor.name or identifier
    group = task.group(key, actor)
    own_name = task.keys.buried(identifier)
    for other in dict.fromkeys((*actor.past, *actor.givers)):
        if other != own_name:
            bury = Bury(to=other, identifier=identifier, epoch=message.epoch, clock=task.clock)
            task.out.log("links", task.keys.actor(other), encode(bury))
    lost = events_in(actor.own)
    if lost:
        task.count("erased", lost)
    dedup.forget_all(task.state, task.message_index, key, actor)
    evidence.forget_all(task, key, actor)
    unfollowed.forget_all(task, key, identifier)
    fresh = Actor(
        VERSION,
        own_name,
        erased=message.epoch,
        epoch=message.epoch,
        generation=task.generation,
        settled=task.clock,
        wake=actor.wake,
        cut=task.position,
        # Not by this task's clock: a replay tells of erasures before their time has come.
        kept_out=max(message.erased_at or task.clock, 1) if message.keep_out else 0,
    )
    if group is not None:
        # What is still here of others either was erased too or has been given to another: its route will say which.
        bury_name = task.keys.buried
        kept = Group(
            present={name: there for name, there in group.present.items() if name not in (identifier, own_name)},
            given={
                bury_name(name): (bury_name(to) if to else "", epoch, erased)
                for name, (to, epoch, erased) in group.given.items()
                if name not in (identifier, own_name)
            },
            births={bury_name(name): birth for name, birth in group.births.items()},
        )
        kept.present[own_name] = (True, message.epoch)
        fresh.spilled = actor.spilled
        if not fresh.spilled:
            fresh.group = kept
        task.put_group(key, fresh, kept)
    if former not in (identifier, own_name):
        _recall(task, fresh, former, "", "erase", fragment=identifier)
    task.drop(key)
    task.put(key, fresh)
    for kind in (b"a", b"h", b"d", b"e", b"f"):
        task.state.scrub(kind + key[1:])
    if message.request_id:
        asked = sorted({one.destination for one in asks})
        done = Forgotten(message.request_id, key[1:].decode(), task.clock, asked, profile.profile_id)
        task.out.log("privacy-progress", message.request_id.encode(), encode(done))


def on_readmit(task: Task, message: Readmit) -> None:
    """An event at another route has brought a consent anew that holds for this one too."""
    key = task.actor_key(message.identifier)
    actor: Actor | None = task.state.get(key)
    if actor is not None and 0 < actor.kept_out < message.time:
        actor.kept_out = 0
        task.put(key, actor)


def on_expired(task: Task, message: Expired) -> None:
    """What this route had told of a profile that expired is gone, and so is the way to it."""
    key = task.actor_key(message.identifier)
    actor = task.actor(key, message.identifier)
    actor.expired = max(actor.expired, message.received)
    if actor.announced and _holds_still(actor, message.epoch):
        actor.announced = False
        publish.no_pointer(task, actor.identifier)
    task.put(key, actor)


def on_lives_again(task: Task, message: LivesAgain) -> None:
    """The profile has begun again, and not by anything of this route."""
    key = task.actor_key(message.identifier)
    actor: Actor | None = task.state.get(key)
    if actor is not None and not actor.announced and _holds_still(actor, message.epoch):
        actor.announced = True
        _point(task, actor)
        task.put(key, actor)


def _holds_still(actor: Actor, epoch: int) -> bool:
    """Whether the fragment is where it was assigned by then."""
    return bool(actor.name) and actor.name != actor.identifier and epoch >= actor.epoch


def _named(task: Task, record: Record, event: Event) -> Named | None:
    """What a group event says of its account. The name is the one that the rules give it where the event stands,
    whatever is evaluated yet."""
    rules = task.plans(task.meta.marked).accounts
    if not rules.groups or event.group_id is None:
        return None
    return Named(
        account=identifier_of(rules.name_of(event.group_id)),
        traits=event.properties,
        at=event.time,
        clock=task.clock,
        evidence=Cause(event.message_id, record.partition, record.offset),
    )


def _name_account(task: Task, named: Named) -> None:
    """It goes there, whoever it is that the event is about: behind what the person is to the account, with whom it
    has gone already, so that the account is never judged on one without the other."""
    task.out.log("links", task.keys.actor(named.account), encode(named))


def _recall(
    task: Task,
    actor: Actor,
    holder_name: str,
    to: str,
    reason: str,
    companions: int = 1,
    holder_lives: bool = True,
    fragment: str = "",
) -> None:
    recall = Recall(
        holder=holder_name,
        fragment=fragment or actor.identifier,
        to=to,
        epoch=actor.epoch,
        reason=reason,
        clock=task.clock,
        birth=actor.erased,
        to_erased=actor.name_erased,
        companions=companions,
        holder_lives=holder_lives,
    )
    task.out.log("links", task.keys.actor(holder_name), encode(recall))


def _point(task: Task, actor: Actor) -> None:
    if actor.name and actor.name != actor.identifier:
        profile_id = task.profile_id(actor.name, actor.name_erased)
    else:
        profile_id = task.profile_id(actor.identifier, actor.erased)
    publish.pointer(task, actor.identifier, profile_id, actor.epoch)
