"""Evidence that was not followed, shown on the profiles of both its ends.

    Unfollowed(x, other, why)   route: what is known of x's own links; no reason: that one is followed, or gone
    Noted(x, links)             holder: what its fragment x shows, all of it, every time

The route's word is the whole truth and goes the way of its Forwards: a holder replaces what it has. It forgets the
links of a fragment with the fragment; the next holder is told anew.
"""

from pipeline.records import LinkNote, Noted, Unfollowed, encode
from pipeline.unify import holder, publish, settling
from pipeline.unify.actor import NEVER, SHOWN_LINKS, VERSION, Actor, Held, Notes
from pipeline.unify.forms import shown_links
from pipeline.unify.profile import Profile
from pipeline.unify.publish import Moment
from pipeline.unify.task import Task

# Of one identifier: whoever has more is shown the newest.
KEPT = SHOWN_LINKS
KEPT_FRAGMENTS = 100


def on_unfollowed(task: Task, message: Unfollowed) -> None:
    """The identity stage says of one link of a route whether it is followed."""
    identifier = message.identifier
    key = task.actor_key(identifier)
    actor = task.actor(key, identifier)
    if message.epoch <= actor.erased:
        task.count("stale_unfollowed")
        return
    kept: Notes | None = task.state.get(_notes_key(key))
    links = [link for link in kept.links if link.other != message.other] if kept is not None else []
    if message.reason:
        links.append(LinkNote(message.other, message.reason, message.first))
        links = sorted(links, key=lambda link: (link.first, link.other))[-KEPT:]
        if actor.identifier != identifier:
            # Others' events have made it known anew, before any of its own.
            task.unbury(key, actor, identifier)
            task.put(key, actor)
    _keep(task, _notes_key(key), Notes(VERSION, links) if links else None)
    if links or kept is not None:
        _tell(task, key, actor, links, message.gone)
    if message.gone:
        task.state.scrub(_notes_key(key))
        for former in actor.past:
            # By no decision: whoever holds it again by now has been told what it shows.
            note = Noted(to=former, fragment=identifier, epoch=NEVER, clock=task.clock, gone=True)
            task.out.log("links", task.keys.actor(former), encode(note))


def tell_new_holder(task: Task, key: bytes, actor: Actor) -> None:
    """The fragment of this route belongs elsewhere from now on, and so does what it shows."""
    kept: Notes | None = task.state.get(_notes_key(key))
    if kept is not None:
        _tell(task, key, actor, kept.links)


def on_noted(task: Task, message: Noted) -> None:
    """A route says what its fragment, held here, shows."""
    key = task.actor_key(message.to)
    if message.gone:
        task.state.scrub(_held_key(key))
        if not message.links and not _is_held(task, key, message.fragment):
            return
    actor = task.actor(key, message.to)
    group = task.group(key, actor)
    if group is not None and message.birth < group.births.get(message.fragment, 0):
        task.count("stale_unfollowed")
        return
    _hold(task, key, actor, message.fragment, message.epoch, message.links)


def leave(task: Task, profile: Profile, fragment: str, epoch: int) -> None:
    """A fragment goes by the decision `epoch`: what its route has said since then stays."""
    held: Held | None = task.state.get(_held_key(profile.key))
    if held is not None and fragment in held.fragments and held.fragments[fragment][0] < epoch:
        _replace(task, profile, {one: links for one, links in held.fragments.items() if one != fragment})


def forget_all(task: Task, key: bytes, identifier: str) -> None:
    """An identifier was erased, as a route and with its own fragment."""
    for kept_key in (_notes_key(key), _held_key(key)):
        task.state.scrub(kept_key)
    _keep(task, _notes_key(key), None)
    held: Held | None = task.state.get(_held_key(key))
    if held is not None:
        rest = {one: links for one, links in held.fragments.items() if one != identifier}
        _keep(task, _held_key(key), Held(VERSION, rest) if rest else None)


def _is_held(task: Task, key: bytes, fragment: str) -> bool:
    held: Held | None = task.state.get(_held_key(key))
    return held is not None and fragment in held.fragments


def _tell(task: Task, key: bytes, actor: Actor, links: list[LinkNote], gone: bool = False) -> None:
    name = actor.name or actor.identifier
    if name == actor.identifier:
        if gone:
            task.state.scrub(_held_key(key))
        _hold(task, key, actor, name, actor.epoch, links)
        return
    note = Noted(
        to=name,
        fragment=actor.identifier,
        epoch=actor.epoch,
        clock=task.clock,
        links=links,
        birth=actor.erased,
        gone=gone,
    )
    task.out.log("links", task.keys.actor(name), encode(note))


def _hold(task: Task, key: bytes, actor: Actor, fragment: str, epoch: int, links: list[LinkNote]) -> None:
    held: Held | None = task.state.get(_held_key(key))
    fragments = dict(held.fragments) if held is not None else {}
    if fragment in fragments and fragments[fragment][0] > epoch:
        return
    fragments.pop(fragment, None)
    if links:
        fragments[fragment] = (epoch, links)
        if len(fragments) > KEPT_FRAGMENTS:
            del fragments[next(iter(fragments))]
    profile = task.profile(key, actor)
    if fragments and not actor.unfollowed:
        actor.unfollowed = True
        task.put(key, actor)
    if not actor.published:
        _replace(task, profile, fragments)
        return
    settling.settle(task, profile)
    before = publish.document(profile) if actor.published else None
    _replace(task, profile, fragments)
    if before is not None:
        moment = Moment("merge", task.clock)
        moment.cause = "evidence"
        holder.say_difference(task, profile, before, moment)
    task.set_deadline(profile)
    task.put(key, actor)


def _replace(task: Task, profile: Profile, fragments: dict[str, tuple[int, list[LinkNote]]]) -> None:
    held = Held(VERSION, fragments) if fragments else None
    _keep(task, _held_key(profile.key), held)
    profile.unfollowed = shown_links(held)
    profile.tail = None


def _keep(task: Task, key: bytes, value: Notes | Held | None) -> None:
    if value is not None:
        task.state.put(key, value)
    elif task.state.get(key) is not None:
        task.state.delete(key)


def _notes_key(key: bytes) -> bytes:
    return b"r" + key[1:]


def _held_key(key: bytes) -> bytes:
    return b"u" + key[1:]
