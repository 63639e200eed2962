"""Fragments that move from one holder to another, and events on their one hop.

Every message about a fragment carries the epoch of the decision behind it; a holder that gave the fragment away under
a later one passes on what still comes. So a fragment ends where the last decision says, in whatever order messages of
different senders arrive.
"""

from pipeline.identifiers import BURIED
from pipeline.profile import Fragment, decode_fragment, events_in, is_empty, join, pieces
from pipeline.records import Absorb, Bury, Forward, Recall, encode
from pipeline.segments import HIDDEN
from pipeline.unify import belonging, folding, holder, keeping, news, publish, settling, unfollowed
from pipeline.unify.actor import Actor, Group
from pipeline.unify.forms import pairs_of
from pipeline.unify.profile import Profile
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

# Bytes are base64 in JSON: this is about 500 kB of it.
PIECE_BYTES = 370_000
# The fragments of a profile that is being merged come one by one, and entries wait for the last. If one was erased on
# its way it never comes: hence not longer than this.
HOLD_MS = 2_000
MOST_EXPECTED = 16


def on_forward(task: Task, message: Forward) -> None:
    """An event for a fragment that is, or will be, here."""
    key = task.actor_key(message.to)
    actor = task.actor(key, message.to)
    if message.birth < birth_of(task, key, actor, message.fragment):
        task.count("erased")
        return
    if message.epoch >= actor.erased:
        task.unbury(key, actor, message.to)
    task.see_generation(message.generation)
    event = message.event
    if event.time > event.received:
        event.time = event.received
    # As if it had come here at once: it was read while the clock stood so there. Accounts are told of it as of then.
    clock, task.clock = task.clock, task.as_of(message.clock, actor)
    folding.take_event(
        task,
        key,
        actor,
        message.fragment,
        event,
        folding.hash_of(event.message_id),
        message.position,
        message.generation,
        message.epoch,
    )
    if task.touched:
        belonging.tell_all(task)
    task.clock = clock


def on_recall(task: Task, message: Recall) -> None:
    """Give a fragment away: what is here of it, and what still comes."""
    key = task.actor_key(message.holder)
    actor = task.actor(key, message.holder)
    name = message.fragment
    if message.birth < birth_of(task, key, actor, name):
        task.count("erased_recalls")
        return
    profile = task.profile(key, actor)
    settling.settle(task, profile)
    before = publish.document(profile) if actor.published else None
    unfollowed.leave(task, profile, name, message.epoch)
    part = task.part(key, actor, name)
    group = task.group_to_change(key, actor)
    profile.group = group
    # What has not come yet is of a decision that only it will tell.
    complete, since = group.present.pop(name, (False, message.epoch))
    if message.to:
        group.given[name] = (message.to, message.epoch, message.to_erased)
        if since < actor.erased:
            _let_bury(task, key, actor, message.holder, name)
        elif message.to != name != actor.identifier:
            # Who gave it to us goes on knowing our name, though it is part of another profile from now on.
            _note_giver(task, actor, name)
    if part is not None:
        task.put_part(key, actor, name, None)
    if not message.to:
        _bury(task, group, name, message.birth)
        for kind in (b"a", b"h"):
            task.state.scrub(kind + key[1:])
        task.state.scrub(task.part_key(key, name))
        task.count("erased", events_in(part))
    else:
        _send(task, profile, message, part, complete)
    task.put_group(key, actor, group)
    if message.holder_lives:
        # Others leave by the same decision: until they have, nobody knows what is left here.
        _one_of(task, actor, f"{message.epoch} to {task.keys.actor(message.to)[:16].decode()}", message.companions)

    moment = Moment(message.reason, task.clock)
    holder.end_if_elsewhere(task, profile, moment)
    if is_empty(part) and (actor.published or not is_empty(profile.joined)):
        task.list_identifiers(profile)
        news.named(task, profile, moment)
    else:
        holder.rejoin(task, profile, moment)
    if actor.published and before is not None:
        if not message.holder_lives and message.epoch > actor.epoch:
            actor.hold_epoch = message.epoch
        holder.say_change(task, profile, before, moment)
    known = actor.belonging
    if known is not None and known.owing and message.holder_lives and not group.present and not actor.published:
        # It was to live, and has nothing left: whoever got the last fragment did not get what is owed for it.
        belonging.release(task, known.owing, moment)
        known.owing = {}
    actor.settled = task.clock
    task.set_deadline(profile)
    task.put(key, actor)


def on_absorb(task: Task, message: Absorb) -> None:
    """Take a fragment in, or a piece of one, or pass it on to where it went from here."""
    key = task.actor_key(message.to)
    actor = task.actor(key, message.to)
    name = message.fragment
    birth = birth_of(task, key, actor, name)
    given = None
    group = task.group(key, actor)
    if message.origin and message.origin not in (name, actor.identifier) and _note_giver(task, actor, message.origin):
        task.put(key, actor)
    if message.epoch < actor.erased:
        _let_bury(task, key, actor, message.to, message.origin or name)
    if group is not None:
        given = group.given.get(name) or group.given.get(task.keys.buried(name))
    gone = given is not None and went_elsewhere(given, message.epoch)
    if message.birth < birth or (gone and given is not None and not given[0]):
        task.count("erased", events_in(decode_fragment(message.state)) if message.state is not None else 0)
        belonging.release(task, message.owes, Moment(message.reason, task.clock))
        _no_longer_expected(task, key, actor, message)
        return
    if gone and given is not None:
        _no_longer_expected(task, key, actor, message)
        message.to, message.epoch, _ = given
        message.companions = min(message.companions, 1)
        message.clock = task.clock
        task.out.log("links", task.keys.actor(message.to), encode(message))
        return

    task.see_generation(message.generation)
    if message.epoch >= actor.erased:
        task.unbury(key, actor, message.to)
    profile = task.profile(key, actor)
    settling.settle(task, profile)
    before = publish.document(profile) if actor.published else None
    group = task.group_to_change(key, actor)
    profile.group = group
    group.given.pop(name, None)
    if actor.erased:
        group.given.pop(task.keys.buried(name), None)
    if message.birth > birth and name != actor.identifier:
        group.births[name] = message.birth
    there = group.present.get(name)
    group.present[name] = (
        message.last or (there is not None and there[0]),
        max(message.epoch, there[1]) if there is not None else message.epoch,
    )
    piece = decode_fragment(message.state) if message.state is not None else None
    if piece is not None:
        keeping.leave_out_late(piece, profile.plan.contracts, task.clock)
        part = task.part(key, actor, name)
        join_leaves = task.folding(task.generation, task.meta.newest).join
        task.put_part(key, actor, name, piece if part is None else join(part, piece, join_leaves))
    _inherit(task, actor, message)
    if message.told:
        publish.told_of(actor).inherit(message.told)
    task.put_group(key, actor, group)

    moment = Moment(message.reason, task.clock)
    task.add(profile, name, there, piece)
    if piece is not None:
        keeping.let_go_of_late(task, profile)
    news.owe(task, profile, message.owes, moment)
    news.joined_in(task, profile, moment, piece.leaves if piece is not None else {})
    if there is None:
        news.named(task, profile, moment)
    if actor.erased:
        news.touched(task, profile, moment, whole=True)
    if actor.published and (piece is not None or actor.erased):
        task.judge(profile, task.clock)
    if before is not None:
        holder.say_change(task, profile, before, moment, message.origin_id, message.refused)
    elif message.reason == "split" and message.origin_id:
        holder.begin(task, profile, moment, "split", message.origin_id)
    else:
        holder.begin(task, profile, moment, origin=message.origin_id or None)
    actor.settled = task.clock
    task.set_deadline(profile)
    task.put(key, actor)


def went_elsewhere(given: tuple[str, int, int], epoch: int) -> bool:
    """Whether what comes by a decision was given away again by a later one."""
    return given[1] > epoch


def _inherit(task: Task, actor: Actor, message: Absorb) -> None:
    """What the arriving part was a member of it goes on being, and what it was parted from may still be coming."""
    if message.origin_id:
        for segment in message.memberships:
            _, origins = actor.inherited.get(segment, (0, []))
            if message.origin_id not in origins:
                origins = [*origins, message.origin_id]
            actor.inherited[segment] = (task.clock, origins)
    _arrived(task, actor, message)


def _arrived(task: Task, actor: Actor, message: Absorb) -> None:
    _one_of(task, actor, f"{message.epoch} {task.keys.actor(message.origin)[:16].decode()}", message.companions)


def _one_of(task: Task, actor: Actor, decision: str, companions: int) -> None:
    """One of so many fragments that come, or leave, by a decision has."""
    if companions > 1:
        remaining = actor.expecting.pop(decision, 0) - 1
        if remaining < 0:
            remaining = companions - 1
            actor.hold_until = max(actor.hold_until, task.clock + HOLD_MS)
            if len(actor.expecting) >= MOST_EXPECTED:
                del actor.expecting[next(iter(actor.expecting))]
        if remaining:
            actor.expecting[decision] = remaining


def _no_longer_expected(task: Task, key: bytes, actor: Actor, message: Absorb) -> None:
    """A fragment came that does not stay: what waited for it waits no more."""
    if message.companions > 1:
        profile = task.profile(key, actor)
        settling.settle(task, profile)
        _arrived(task, actor, message)
        if actor.published:
            moment = Moment(message.reason, task.clock)
            news.touched(task, profile, moment)
            holder.say_memberships(task, profile, holder.compare(task, profile, moment), moment)
        task.set_deadline(profile)
        task.put(key, actor)


def _send(task: Task, profile: Profile, message: Recall, part: Fragment | None, complete: bool) -> None:
    """Send a fragment, in as many disjoint pieces as it takes; an empty one too, for it brings the identifier."""
    actor = profile.actor
    published = actor.published or actor.retired
    members = actor.left
    if actor.published:
        members = sorted(segment for segment, pair in pairs_of(actor).items() if pair.member)
    members = [segment for segment in members if segment[0] != HIDDEN]
    states: list[bytes | None] = [None]
    if part is not None and not is_empty(part):
        states = list(pieces(part, PIECE_BYTES))
    for number, state in enumerate(states, start=1):
        final = number == len(states)
        absorb = Absorb(
            to=message.to,
            fragment=message.fragment,
            epoch=message.epoch,
            reason=message.reason,
            clock=task.clock,
            state=state,
            birth=message.birth,
            origin=actor.identifier,
            memberships=members,
            last=complete and final,
            origin_id=profile.profile_id if published else "",
            generation=task.meta.newest,
            companions=message.companions if final else 0,
            owes=news.owed_by(actor, profile.profile_id) if final and not message.holder_lives else {},
            told=actor.told.heard if actor.told is not None else {},
            refused=actor.told.refused if actor.told is not None and actor.published else [],
        )
        task.out.log("links", task.keys.actor(message.to), encode(absorb))


def birth_of(task: Task, key: bytes, actor: Actor, fragment: str) -> int:
    """The erase epoch of a fragment, as far as this actor knows it."""
    if fragment == actor.identifier:
        return actor.erased
    group: Group | None = task.group(key, actor)
    if not actor.erased and (group is None or not group.births):
        return 0
    buried = task.keys.buried(fragment)
    if buried == actor.identifier:
        return actor.erased
    return max(group.births.get(fragment, 0), group.births.get(buried, 0)) if group is not None else 0


def on_bury(task: Task, message: Bury) -> None:
    """Somebody that this holder once had to do with was erased: what it keeps of them is their hash."""
    key = task.actor_key(message.to)
    actor: Actor | None = task.state.get(key)
    group = task.group(key, actor) if actor is not None else None
    if actor is None or group is None:
        return
    _bury(task, group, message.identifier, message.epoch)
    task.put_group(key, actor, group)
    for kind in (b"a", b"h"):
        task.state.scrub(kind + key[1:])


def _bury(task: Task, group: Group, name: str, epoch: int) -> None:
    """What was decided since the erasure is about somebody who is known anew, and stays."""
    buried = task.keys.buried(name)
    if name in group.given and group.given[name][1] < epoch:
        del group.given[name]
    group.births[buried] = max(epoch, group.births.pop(name, 0), group.births.get(buried, 0))
    for fragment, (to, given_epoch, erased) in list(group.given.items()):
        if to == name and given_epoch < epoch:
            group.given[fragment] = (buried, given_epoch, erased)


def _let_bury(task: Task, key: bytes, actor: Actor, identifier: str, giver: str) -> None:
    """Whoever gave something to this actor before it was erased knows its text, and was not known when it was."""
    if identifier[:1] != BURIED and task.actor_key(giver) != key:
        bury = Bury(to=giver, identifier=identifier, epoch=actor.erased, clock=task.clock)
        task.out.log("links", task.keys.actor(giver), encode(bury))


def _note_giver(task: Task, actor: Actor, giver: str) -> bool:
    """Remember who knows this actor's name; whether that was new."""
    buried = task.keys.buried(giver)
    if buried in actor.givers:
        return False
    actor.givers = [*actor.givers, buried]
    return True
