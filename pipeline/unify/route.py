"""The route: it decides what is a duplicate, tells new evidence, and sends each event to whoever holds its fragment."""

from pipeline.accounts import identifier_of
from pipeline.profile import events_in
from pipeline.records import Assign, Cause, Erase, Event, Forward, Named, Recall, encode
from pipeline.runtime.ports import Record
from pipeline.unify import belonging, dedup, evidence, history, holder, news, publish, unfollowed
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


def on_event(task: Task, record: Record, event: Event) -> None:
    """An event at the actor of its strongest identifier."""
    task.see(event.received)
    if event.time > event.received:
        event.time = event.received
    state = task.state
    identifier = event.identifiers[0]
    key = b"a" + record.key if record.key is not None else task.actor_key(identifier)
    actor: Actor | None = state.get(key)
    if actor is None:
        actor = Actor(VERSION, identifier, generation=task.generation)
    message_hash = holder.hash_of(event.message_id)
    number = int.from_bytes(message_hash, "big")
    if dedup.is_duplicate(state, task.message_index, key, actor, number, event.received):
        task.count("duplicates")
        history.note_dropped(task, record.offset)
        return
    if event.group_id is not None and event.type == "group":
        _name_account(task, record, event)
    if len(event.identifiers) > 1:
        evidence.send(task, key, actor, event)
    if not actor.announced:
        actor.announced = True
        _point(task, actor)
    generation = task.meta.marked
    position = (record.partition, record.offset)
    if actor.name and actor.name != identifier:
        task.put(key, actor)
        forward = Forward(
            to=actor.name,
            fragment=identifier,
            event=event,
            position=position,
            generation=generation,
            clock=task.clock,
            birth=actor.erased,
            epoch=actor.epoch,
        )
        task.out.log("links", task.keys.actor(actor.name), encode(forward))
    else:
        holder.take_event(task, key, actor, identifier, event, message_hash, position, generation, actor.epoch)


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
    profile = task.profile(key, actor)
    holder.settle(task, profile)
    actor.name, actor.epoch, actor.name_erased = message.name, message.epoch, message.name_erased
    actor.announced = True
    _point(task, actor)
    if former != message.name:
        _recall(task, actor, former, message.name, reason, message.companions, message.former_lives)
        unfollowed.tell_new_holder(task, key, actor)
    moment = Moment(reason, task.clock)
    if message.name == identifier:
        if actor.published:
            holder.say_memberships(task, profile, holder.compare(task, profile, moment), moment)
        else:
            holder.begin(task, profile, moment)
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
    holder.settle(task, profile)
    moment = Moment("erase", task.clock)
    if actor.published:
        holder.end(task, profile, "erased", moment)
        belonging.tell(task, profile)
    elif actor.belonging is not None:
        belonging.release(task, actor.belonging.owing, moment)
    task.touched.pop(key, None)
    if actor.retired:
        publish.no_pointer(task, profile.profile_id)
    publish.no_pointer(task, identifier)
    former = actor.name or identifier
    group = task.group(key, actor)
    lost = events_in(actor.own)
    if lost:
        task.count("erased", lost)
    dedup.forget_all(task.state, task.message_index, key, actor)
    evidence.forget_all(task, key, actor)
    unfollowed.forget_all(task, key, identifier)
    fresh = Actor(
        VERSION,
        identifier,
        erased=message.epoch,
        epoch=message.epoch,
        generation=task.generation,
        settled=task.clock,
        wake=actor.wake,
        cut=task.position,
    )
    if group is not None:
        # What is still here of others either was erased too or has been given to another: its route will say which.
        kept = Group(present=dict(group.present), given=dict(group.given), births=group.births)
        kept.present[identifier] = (True, message.epoch)
        kept.given.pop(identifier, None)
        fresh.spilled = actor.spilled
        if not fresh.spilled:
            fresh.group = kept
        task.put_group(key, fresh, kept)
    if former != identifier:
        _recall(task, fresh, former, "", "erase")
    task.drop(key)
    task.put(key, fresh)


def _name_account(task: Task, record: Record, event: Event) -> None:
    """What a group event says of its account goes there, whoever it is that the event is about."""
    rules = task.plan.accounts
    if not rules.groups or event.group_id is None:
        return
    account = identifier_of(rules.name_of(event.group_id))
    named = Named(
        account=account,
        traits=event.properties,
        at=event.time,
        clock=task.clock,
        evidence=Cause(event.message_id, record.partition, record.offset),
    )
    task.out.log("links", task.keys.actor(account), encode(named))


def _recall(
    task: Task, actor: Actor, holder_name: str, to: str, reason: str, companions: int = 1, holder_lives: bool = True
) -> None:
    recall = Recall(
        holder=holder_name,
        fragment=actor.identifier,
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
