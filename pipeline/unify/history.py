"""Backfill: what stood before a marker is folded into the leaves that its generation brings.

    Marker(g)        a job: fold `events` of this partition up to the marker's offset into the leaves that are new in g
    a slice          the worker reads on; each route's events go into the new leaves of its fragment, which is here, or
                     go as Contribute where its events have gone: behind the Forwards, before a later Recall
    HistorySent(g)   to every partition, when the job is done; links keep its place behind the contributions
    BackfillDone(g)  when every partition has said so: all there is for the holders of this partition is here

Every event stands on one side of the marker: what is behind it was folded when it was new. What the route dropped then
is noted, so history has no rule for duplicates of its own; what an erasure or an expiry took is left out.
"""

import re
from bisect import insort
from collections.abc import Iterator, Sequence

import msgspec

from pipeline.profile import Fragment, decode_fragment, pieces
from pipeline.records import (
    BackfillDone,
    Contribute,
    Event,
    HistorySent,
    Marker,
    encode,
    read_events_record,
)
from pipeline.runtime.ports import Record
from pipeline.segments import SegmentsPlan
from pipeline.unify import folding, settling
from pipeline.unify.actor import Actor, Dropped, Job, Meta
from pipeline.unify.task import PSEUDONYMOUS_PREFIXES, SEALED_FIRST, Task
from pipeline.unify.transfer import PIECE_BYTES, birth_of
from pipeline.vault import name_mark, sealed_name

_BUCKET_BITS = 12
_IN_BUCKET = (1 << _BUCKET_BITS) - 1


# ---------------------------------------------------------------------------------------------------- what is left out


def note_dropped(task: Task, offset: int) -> None:
    """The event at this offset went into no profile."""
    key = _bucket_key(offset)
    dropped: Dropped | None = task.state.get(key)
    if dropped is None:
        dropped = Dropped(offsets=[])
    # Events are not always taken in the order in which they stand.
    insort(dropped.offsets, offset & _IN_BUCKET)
    task.state.put(key, dropped)


def _bucket_key(offset: int) -> bytes:
    return b"n" + (offset >> _BUCKET_BITS).to_bytes(6, "big")


# ---------------------------------------------------------------------------------------------------------------- jobs


def add_job(task: Task, before: int, message: Marker, offset: int) -> None:
    """A marker stands at `offset`: what is before it is history to its generation."""
    meta = task.change_meta()
    meta.jobs = [*meta.jobs, Job(message.generation, before, offset)]
    _end_jobs(task)


def bounds(meta: Meta) -> tuple[int, int] | None:
    """The positions in `events` between which history is to be read next, if there is any to read."""
    return (meta.jobs[0].next, meta.jobs[0].until) if meta.jobs else None


def _end_jobs(task: Task) -> None:
    """Let go of the jobs that are done, or have become pointless, and tell everybody."""
    meta = task.change_meta()
    while meta.jobs:
        job = meta.jobs[0]
        if job.next < job.until and wanted(task, job) is not None:
            return
        meta.jobs = meta.jobs[1:]
        if _is_complete(task, job):
            meta.sent = job.generation
            sent = encode(HistorySent(generation=job.generation, partition=task.partition, clock=task.clock))
            for partition in range(task.partitions):
                task.out.log("links", None, sent, partition)


def wanted(task: Task, job: Job) -> SegmentsPlan | None:
    """What folds the leaves that a job is for: those that are still there after the last marker."""
    key = (job.generation, job.before, task.meta.marked)
    if key not in task.jobs_wanted:
        latest = task.plans(task.meta.marked).segments
        new = _leaves(task, job.generation) - _leaves(task, job.before)
        still = sorted(one for one in new if one in latest.leaves)
        task.jobs_wanted[key] = latest.restricted(still) if still else None
    return task.jobs_wanted[key]


def _is_complete(task: Task, job: Job) -> bool:
    """Whether all leaves of the job's generation have their history. If a later marker has taken some of them away
    in the meantime, the generation is passed over, and only the later one becomes ready."""
    return _leaves(task, job.generation) - _leaves(task, task.meta.sent) <= _leaves(task, task.meta.marked)


def _leaves(task: Task, generation: int) -> frozenset[str]:
    return frozenset(task.plans(generation).segments.leaves)


def on_history_sent(task: Task, message: HistorySent) -> None:
    """A partition has sent its history; when all have, everything for the holders of this one is here."""
    meta = task.change_meta()
    generation = message.generation
    if generation <= meta.done:
        return
    senders = meta.received_from.get(generation, [])
    if message.partition not in senders:
        senders = [*senders, message.partition]
    meta.received_from = {**meta.received_from, generation: senders}
    if len(senders) < task.partitions:
        return
    meta.done = generation
    meta.received_from = {each: who for each, who in meta.received_from.items() if each > generation}
    done = BackfillDone(generation=generation, partition=task.partition, received=task.clock)
    task.out.log("identity-edges", None, encode(done), 0)


# ------------------------------------------------------------------------------------------------------------- folding


def fold_slice(task: Task, records: Sequence[Record], reached: int) -> None:
    """Fold the next slice of history: the records of `events` up to the position `reached`."""
    meta = task.change_meta()
    job = meta.jobs[0]
    plan = wanted(task, job)
    assert plan is not None
    by_route: dict[bytes, list[tuple[int, Event]]] = {}
    for offset, key, event in _events(task, plan, records):
        by_route.setdefault(key, []).append((offset, event))
    for key, events in by_route.items():
        actor: Actor | None = task.state.get(key)
        if actor is not None:
            _fold_route(task, plan, key, actor, events, job.generation)
    meta.jobs = [msgspec.structs.replace(job, next=min(reached, job.until)), *meta.jobs[1:]]
    _end_jobs(task)


def _events(task: Task, plan: SegmentsPlan, records: Sequence[Record]) -> Iterator[tuple[int, bytes, Event]]:
    """The events of a slice that were accepted and that one of the leaves may take, with their offsets and routes."""
    names = {name for leaf in plan.leaves.values() for name in leaf.events}
    marks = frozenset(map(name_mark, names)) if "*" not in names else None
    # To decode a record costs more than all else: most need not be, for a rule asks for a few names.
    texts = b"|".join(re.escape(encode(name)) for name in sorted(names))
    may_be_taken = re.compile(b'"event":(?:' + texts + b")" if "*" not in names else b"").search
    bucket, dropped = -1, frozenset[int]()
    for record in records:
        offset, value = record.offset, record.value
        if value is None:
            continue
        if value[:1] == SEALED_FIRST and task.open_sealed is not None:
            if marks is not None and sealed_name(value) not in marks:
                continue
            value = task.open_sealed(value)
            if value is None:
                continue
        elif not may_be_taken(value):
            continue
        if offset >> _BUCKET_BITS != bucket:
            bucket = offset >> _BUCKET_BITS
            noted: Dropped | None = task.state.get(_bucket_key(offset))
            dropped = frozenset(noted.offsets) if noted is not None else frozenset()
        if offset & _IN_BUCKET in dropped:
            continue
        event = read_events_record(value)
        if type(event) is Event:
            yield offset, b"a" + record.key if record.key is not None else task.actor_key(event.identifiers[0]), event


def _fold_route(
    task: Task, plan: SegmentsPlan, key: bytes, actor: Actor, events: list[tuple[int, Event]], generation: int
) -> None:
    cut, expired = actor.cut, actor.expired
    if cut or expired:
        events = [(offset, event) for offset, event in events if offset >= cut and event.received > expired]
    if not actor.name or actor.name == actor.identifier:
        if actor.group is None and not actor.spilled:
            # The common case: the fragment is here and is the whole profile.
            own, changed = actor.own, False
            if own is None:
                # All that was here went to a holder who is to give it back: this goes after it, or is joined with it.
                own = task.profile(key, actor).joined
            for _, event in events:
                changed = bool(plan.fold(own.leaves, event)) or changed
            if changed:
                if actor.own is None:
                    # It says when something was received, so that it does not pass for nothing.
                    own.last_received = max(event.received for _, event in events)
                    actor.own = own
                task.put(key, actor)
            return
        piece = _partial(plan, events)
        if piece.leaves:
            _take(task, key, actor, actor.identifier, piece, actor.epoch)
        return
    for run in _apart(task, actor, events):
        _contribute(task, actor, _partial(plan, run), generation)


def _apart(task: Task, actor: Actor, events: list[tuple[int, Event]]) -> list[list[tuple[int, Event]]]:
    """Events between which the profile may have expired, without a word of it so far, go apart: their holder knows."""
    if not actor.identifier.startswith(PSEUDONYMOUS_PREFIXES):
        return [events]
    least = min(task.lives_for(task.plans(one)) for one in range(task.generation, task.meta.newest + 1))
    runs: list[list[tuple[int, Event]]] = []
    for one in sorted(events, key=_received):
        if not runs or one[1].received - runs[-1][-1][1].received >= least:
            runs.append([])
        runs[-1].append(one)
    return runs


def _received(one: tuple[int, Event]) -> int:
    return one[1].received


def _contribute(task: Task, actor: Actor, piece: Fragment, generation: int) -> None:
    if not piece.leaves:
        return
    for state in pieces(piece, PIECE_BYTES):
        message = Contribute(
            to=actor.name,
            fragment=actor.identifier,
            generation=generation,
            clock=task.clock,
            state=state,
            birth=actor.erased,
            epoch=actor.epoch,
        )
        task.out.log("links", task.keys.actor(actor.name), encode(message))


def _partial(plan: SegmentsPlan, events: list[tuple[int, Event]]) -> Fragment:
    # It says when something was received, so that it does not pass for nothing where it comes before the fragment.
    piece = Fragment(leaves={})
    for _, event in events:
        plan.fold(piece.leaves, event)
        piece.last_received = max(piece.last_received, event.received)
    return piece


def on_contribute(task: Task, message: Contribute) -> None:
    """History for a fragment that is, or will be, here."""
    key = task.actor_key(message.to)
    actor = task.actor(key, message.to)
    if message.birth < birth_of(task, key, actor, message.fragment):
        task.count("erased_contributions")
        return
    task.see_generation(message.generation)
    _take(task, key, actor, message.fragment, decode_fragment(message.state), message.epoch)


def _take(task: Task, key: bytes, actor: Actor, fragment: str, piece: Fragment, epoch: int) -> None:
    """Join history into whatever part of the fragment is here. Nothing that is evaluated changes by it."""
    profile = task.profile(key, actor)
    if task.may_be_due(actor) or actor.generation != task.generation:
        settling.settle(task, profile)
    if piece.last_received <= actor.expired and epoch <= actor.expired_epoch:
        # It was here by then, and was read when the profile had not expired, or its route had not heard of it.
        task.count("expired_contributions")
        task.put(key, actor)
        return
    part = folding.part_of_several(task, profile, fragment, epoch)
    assert profile.group is not None
    joining = task.folding(task.generation, task.meta.newest)
    _join_in(joining, part, piece)
    task.put_part(key, actor, fragment, part)
    waits_to_be_recalled = actor.erased and profile.group.present[fragment][1] < actor.erased
    if part is not profile.joined and not waits_to_be_recalled:
        _join_in(joining, profile.joined, piece)
    actor.settled = task.clock
    task.set_deadline(profile)
    task.put(key, actor)


def _join_in(joining: SegmentsPlan, fragment: Fragment, piece: Fragment) -> None:
    there = fragment.leaves
    there.update(joining.join({one: there[one] for one in piece.leaves if one in there}, piece.leaves))
    fragment.last_received = max(fragment.last_received, piece.last_received)
