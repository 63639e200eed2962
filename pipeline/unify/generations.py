"""A change of the definitions, at exact places in the log.

Marker(g)   from here on the partition's events belong to g: they fold into the leaves of both generations
(history)   what stands before the marker is folded into the leaves that g has and its predecessor has not: see
            history.py
Ready(g)    every partition has done so: evaluation moves to g, and a sweep takes every profile along
PeopleSwept(g)  a partition has taken all of its people along; when all have, accounts move to g: account.py
"""

from pipeline.records import Marker, PeopleSwept, Ready, Sweep, encode
from pipeline.unify import belonging, history, settling
from pipeline.unify.actor import Actor
from pipeline.unify.task import Task

PROFILES_PER_SWEEP = 1_000
_BUCKETS = tuple(f"a{number:03x}".encode() for number in range(4_096))


def on_marker(task: Task, message: Marker, offset: int) -> None:
    """A new generation begins in this partition of `events`."""
    meta = task.change_meta()
    if message.generation <= meta.marked:
        task.count("stale_markers")
        return
    before, meta.marked = meta.marked, message.generation
    task.see_generation(message.generation)
    history.add_job(task, before, message, offset)


def on_ready(task: Task, message: Ready) -> None:
    """Evaluate under the new generation from here on, and begin to take every profile along."""
    task.see(message.received)
    meta = task.change_meta()
    if message.generation <= meta.generation:
        task.count("stale_readies")
        return
    meta.generation = message.generation
    meta.switched = meta.received
    task.see_generation(message.generation)
    task.use_generation(message.generation)
    _go_on(task, message.generation, b"")


def on_sweep(task: Task, message: Sweep) -> None:
    """Take the next profiles along, and leave the rest to the next message: live records come between."""
    task.see(message.clock)
    if message.generation != task.generation:
        return
    after, done = message.after, 0
    for bucket in _BUCKETS:
        if bucket < after[: len(bucket)]:
            continue
        for key in [key for key, _ in task.state.scan(bucket) if key > after]:
            if _take_along(task, key):
                done += 1
                if done >= PROFILES_PER_SWEEP:
                    _go_on(task, message.generation, key)
                    return
    swept = encode(PeopleSwept(generation=message.generation, partition=task.partition, clock=task.clock))
    for partition in range(task.partitions):
        task.out.log("links", None, swept, partition)


def _take_along(task: Task, key: bytes) -> bool:
    actor: Actor | None = task.state.get(key)
    if actor is None or actor.generation == task.generation:
        return False
    profile = task.profile(key, actor)
    # As of the change. What has come due since then is for ticks, which know how far all tasks have come.
    clock, task.clock = task.clock, task.as_of(task.meta.switched, actor)
    settling.settle(task, profile)
    task.put(key, actor)
    if task.touched:
        belonging.tell_all(task)
    task.clock = clock
    return True


def _go_on(task: Task, generation: int, after: bytes) -> None:
    sweep = Sweep(generation=generation, clock=task.clock, after=after)
    task.out.log("links", None, encode(sweep), task.partition)
