"""A person's side of accounts: the holder tells each account what it has to know of the person.

Everything a record caused is told when it has been dealt with: an account never judges half of it. While a part of the
person is on its way nothing is told but plain events, and then everything: so a merge takes one person's place and
gives it to the other in one message.
"""

from typing import Any

from pipeline.accounts import identifier_of
from pipeline.profile import Fragment, encode_fragment, pieces
from pipeline.records import Belongs, Regard, encode
from pipeline.segments import ACCOUNTS
from pipeline.unify import holder, news, settling
from pipeline.unify.actor import Actor, Belonging
from pipeline.unify.forms import pairs_of
from pipeline.unify.news import NO_FACTS, News, accounts_of, facts_of
from pipeline.unify.profile import Profile
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

PIECE_BYTES = 370_000
_SHOWN = 5
_AT_THE_CLOCK = frozenset(("merge", "split", "backfill", "definition", "erase"))


def tell_all(task: Task) -> None:
    """Tell the accounts of everybody to whom something happened."""
    while task.touched:
        key = next(iter(task.touched))
        tell(task, task.touched[key])
        task.touched.pop(key, None)


def tell(task: Task, profile: Profile) -> None:
    """Tell the accounts of a person what happened since they were told."""
    actor = profile.actor
    if not actor.published:
        if profile.ended:
            _ended(task, profile)
        profile.told()
        return
    known = actor.belonging
    names = accounts_of(profile)
    if known is None:
        if not names:
            profile.told()
            return
        known = actor.belonging = Belonging()
    _left(task, profile, known, [name for name in known.tied if name not in names])
    _hear(task, profile, known, profile.moment)
    level = holder.holdback(profile, task.clock)
    # Parts that are still to come of somebody who lives on take nobody's place.
    waits = level > holder.ARRIVING or (level == holder.ARRIVING and bool(profile.awaiting or known.owing))
    new = [name for name in names if name not in known.tied]
    pending = profile.whole or known.owes or known.owing or new or any(one.join is not None for one in profile.news)
    if waits and pending:
        known.tied = [name for name in known.tied if name in names]
        known.owes = actor.held = True
    else:
        everything = bool(profile.whole or known.owes)
        for name in names:
            if everything or name in new or name in known.owing:
                _tell_everything(task, profile, known, name)
            else:
                for news in profile.news:
                    _tell_news(task, profile, name, news)
        for name, origins in known.owing.items():
            _send(task, profile, name, profile.moment, origins=origins)
        known.owes, known.owing, known.tied = False, {}, names
        if not names:
            actor.belonging = None
    profile.told()
    task.set_deadline(profile)
    task.put(profile.key, actor)


def _ended(task: Task, profile: Profile) -> None:
    actor = profile.actor
    known = actor.belonging
    if known is not None:
        for name in known.tied:
            _send(task, profile, name, profile.moment, gone=True, moved_to=profile.moved_to)
        if profile.moved_to:
            # What is owed goes with the fragments, of which some may still be here.
            actor.belonging = Belonging(owing=known.owing) if known.owing else None
        else:
            release(task, known.owing, profile.moment)
            actor.belonging = None
        profile.accounts = NO_FACTS
        task.put(profile.key, actor)


def _left(task: Task, profile: Profile, known: Belonging, names: list[str]) -> None:
    regarded = False
    for name in names:
        _send(task, profile, name, profile.moment, gone=True)
        regarded = known.regarded.pop(name, None) is not None or regarded
        known.answered.pop(name, None)
    if regarded:
        _judge_again(task, profile, profile.moment)


def _tell_everything(task: Task, profile: Profile, known: Belonging, name: str) -> None:
    actor = profile.actor
    if profile.group is not None:
        # The join at hand may still have what has left a window, as the events came; made anew it is the state's alone.
        task.rejoin(profile)
    leaves, mine = profile.joined.leaves, task.account_leaves(actor.generation)
    state = {one: leaves[one] for one in mine if one in leaves}
    watched = profile.plan.segments.watched
    members = {one: pair.at for one, pair in pairs_of(actor).items() if pair.member and one in watched}
    parts = pieces(Fragment(leaves=state), PIECE_BYTES) if state else [None]
    for number, part in enumerate(parts, start=1):
        _send(
            task,
            profile,
            name,
            profile.moment,
            state=part,
            whole=number == 1,
            generation=actor.generation,
            members=members if number == 1 else {},
            origins=known.owing.pop(name, []) if number == len(parts) else [],
        )


def _tell_news(task: Task, profile: Profile, name: str, news: News) -> None:
    state = encode_fragment(Fragment(leaves=news.join)) if news.join is not None else None
    _send(
        task,
        profile,
        name,
        news.moment,
        state=state,
        entered=news.entered,
        left=news.left,
        event=news.event,
        generation=news.generation,
        names=news.names,
    )


def _send(task: Task, profile: Profile, name: str, moment: Moment, names: bool = False, **fields: Any) -> None:
    actor, account = profile.actor, identifier_of(name)
    naming = task.naming
    message = Belongs(
        account=account,
        person=actor.identifier,
        profile_id=profile.profile_id,
        clock=task.clock,
        at=moment.at,
        cause=moment.cause,
        evidence=moment.evidence,
        newest=task.meta.newest,
        identifiers=[one for _, one in profile.names[:_SHOWN]] if names or fields.get("whole") else [],
        named=naming if naming is not None and naming.account == account else None,
        **fields,
    )
    task.out.log("links", task.keys.actor(account), encode(message))


def release(task: Task, owing: dict[str, list[str]], moment: Moment) -> None:
    """What these profiles brought to their accounts is nobody's any more."""
    for name, origins in owing.items():
        account = identifier_of(name)
        message = Belongs(
            account=account,
            person="",
            profile_id="",
            clock=task.clock,
            at=moment.at,
            cause=moment.cause,
            evidence=moment.evidence,
            origins=origins,
        )
        task.out.log("links", task.keys.actor(account), encode(message))


# ------------------------------------------------------------------------------------------- what accounts say in turn


def on_regard(task: Task, message: Regard) -> None:
    """An account tells what it is, for rules about people that ask for it."""
    key = task.actor_key(message.to)
    actor: Actor | None = task.state.get(key)
    if actor is None or actor.belonging is None or not actor.published or message.account not in actor.belonging.tied:
        task.count("stale_regards")
        return
    regarded = actor.belonging.regarded
    there = regarded.get(message.account)
    if there is not None and there[0] >= message.revision:
        task.count("stale_regards")
        return
    profile = task.profile(key, actor)
    settling.settle(task, profile)
    if profile.ended:
        task.put(key, actor)
        return
    regarded[message.account] = (message.revision, message.traits, message.segments)
    if message.generation >= 0:
        actor.belonging.answered[message.account] = message.generation
    moment = moment_of(task, message)
    _judge_again(task, profile, moment)
    _hear(task, profile, actor.belonging, moment)
    actor.settled = task.clock
    task.set_deadline(profile)
    task.put(key, actor)


def _hear(task: Task, profile: Profile, known: Belonging, moment: Moment) -> None:
    """Enter and leave what had to wait for accounts that have answered, or are left, by now."""
    before, known.heard = known.heard, news.answered_up_to(profile)
    if known.heard > before and profile.plan.segments.answered_since:
        holder.say_memberships(task, profile, holder.compare(task, profile, moment), moment)


def moment_of(task: Task, message: Belongs | Regard) -> Moment:
    """Why and when something changes by what another actor tells."""
    at = task.clock if message.cause in _AT_THE_CLOCK else message.at
    return Moment(message.cause, at, message.evidence)


def _judge_again(task: Task, profile: Profile, moment: Moment) -> None:
    profile.accounts = facts_of(profile.actor)
    standing = profile.standing
    assert standing is not None
    flips = profile.plan.segments.update(standing, profile, task.clock, (), (ACCOUNTS,))
    if flips:
        holder.say_memberships(task, profile, holder.flip(task, profile, flips, moment, task.clock), moment)
