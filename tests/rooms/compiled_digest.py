"""Prints a digest of every byte that unify says and keeps over many events, late and repeated ones among them."""

import hashlib
import random
from collections.abc import Iterator

from bench.core.job import SPAN_MS, events
from bench.unify import core_plan
from pipeline.identifiers import Keys
from pipeline.records import encode
from pipeline.runtime.adapters import StoreMeta
from pipeline.runtime.memory import MemoryStores
from pipeline.runtime.overlay import Outbox, TaskState
from pipeline.runtime.ports import Record
from pipeline.segments import plan as plan_module
from pipeline.unify import UnifyStage

START_MS = 1_790_000_000_000
EVENTS, PEOPLE, BATCH = 3_000, 60, 170


def records(keys: Keys) -> Iterator[Record]:
    """Three thousand events; of a hundred each, some are repeated, come late, or are told a week after the last."""
    chance = random.Random(7)
    made = list(events(EVENTS, PEOPLE, START_MS - SPAN_MS))
    for offset, event in enumerate(made):
        if chance.random() < 0.03:
            event = made[chance.randrange(offset + 1)]
        if chance.random() < 0.05:
            event.time -= chance.randrange(20 * 86_400_000)
        event.received += 7 * 86_400_000 * (offset // 1_000)
        yield Record("events", 0, offset, keys.actor(event.identifiers[0]), encode(event))


def main() -> None:
    """Print `compiled` or `pure`, and the digest."""
    keys, plan, found = Keys(b"bench"), core_plan(), hashlib.sha256()
    stage = UnifyStage(0, keys, lambda _: plan)
    store = MemoryStores().open(0)
    state = TaskState(store, stage.encode, stage.decode, 50, 1 << 20, stage.let_go, stage.resting)
    waiting = list(records(keys))
    while waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        outbox = Outbox()
        for record in batch:
            stage.step(record, state, outbox)
        stage.finish(state, outbox)
        changes = state.changes()
        store.write(changes.values, changes.timers_gone, changes.timers_new, StoreMeta())
        state.committed()
        for said in (list(outbox.take_logged()), outbox.take_upserts(), changes.values, changes.timers_new):
            found.update(repr(said).encode())
    print("pure" if (plan_module.__file__ or "").endswith(".py") else "compiled", found.hexdigest())
