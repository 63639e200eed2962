"""Records given to the stage at once, which takes the events of an actor together: the same as one by one."""

import random
from typing import Any

import pytest

from bench.core.job import SPAN_MS, events
from bench.unify import core_plan
from pipeline.identifiers import Keys
from pipeline.plans import GenerationPlan
from pipeline.records import CaughtUp, Event, Tick, decode_events_record, encode
from pipeline.runtime import overlay
from pipeline.runtime.adapters import Store, StoreMeta
from pipeline.runtime.memory import MemoryStores
from pipeline.runtime.overlay import Outbox, TaskState
from pipeline.runtime.ports import Record
from pipeline.unify import UnifyStage
from pipeline.unify import stage as stage_room
from pipeline.unify.stage import received_of

KEYS = Keys(b"many")
DAY_MS = 86_400_000
START_MS = 1_790_000_000_000
EVENTS, PEOPLE = 600, 12


def records_of(seed: int) -> list[Record]:
    """Months of a few people: repeated events, late ones, devices, accounts, and between them what is no event."""
    chance = random.Random(seed)
    found: list[Record] = []
    made = list(events(EVENTS, PEOPLE, START_MS - SPAN_MS))
    clock = 0
    for number, event in enumerate(made):
        if chance.random() < 0.05:
            event = made[max(0, number - chance.randrange(12))]
        if chance.random() < 0.1:
            event.time -= chance.randrange(20 * DAY_MS)
        if chance.random() < 0.2:
            event.identifiers = [event.identifiers[0], f"device_id:d{chance.randrange(9)}"]
        if chance.random() < 0.1:
            event.group_id = f"g{chance.randrange(3)}"
        # Not in order: some come with the clock of yesterday.
        event.received = START_MS + 3 * 3_600_000 * number - chance.choice((0, 0, DAY_MS))
        clock = max(clock, event.received)
        found.append(Record("events", 0, len(found), KEYS.actor(event.identifiers[0]), encode(event)))
        drawn = chance.random()
        if drawn < 0.02:
            found.append(Record("events", 0, len(found), None, encode(CaughtUp(received=clock))))
        elif drawn < 0.04:
            found.append(Record("links", 0, number, None, encode(Tick(clock=clock + chance.randrange(DAY_MS))), clock))
    return found


class Run:
    """A stage and its state, as the runtime keeps them: few values awake, few of them in memory."""

    def __init__(self, plan: GenerationPlan, at_once: bool, expire_after_days: int = 90, cache: int = 10) -> None:
        self.at_once = at_once
        self.stage = UnifyStage(0, KEYS, lambda _: plan, expire_after_days)
        self.store: Store = MemoryStores().open(0)
        stage = self.stage
        self.state = TaskState(self.store, stage.encode, stage.decode, cache, 1 << 20, stage.let_go, stage.resting)

    def batch(self, records: list[Record]) -> tuple[object, ...]:
        """What is said and kept of a batch; keys have no order in it, records do."""
        out = Outbox()
        if self.at_once:
            self.stage.step_many(records, range(len(records)), self.state, out)
        else:
            for record in records:
                self.stage.step(record, self.state, out)
        out.at(len(records))
        self.stage.finish(self.state, out)
        changes = self.state.changes()
        self.store.write(changes.values, changes.timers_gone, changes.timers_new, StoreMeta())
        self.state.committed()
        return list(out.take_logged()), out.upserts, dict(changes.values), sorted(changes.timers_new)


@pytest.mark.parametrize("reads_ahead", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_at_once_is_the_same_as_one_by_one(seed: int, reads_ahead: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if reads_ahead:
        for name, value in {"FIRST_AHEAD": 3, "LEAST_AHEAD": 1, "MANY": 1 << 40, "FETCHED": 3}.items():
            monkeypatch.setattr(overlay, name, value)
        monkeypatch.setattr(stage_room, "FETCHED", 4)
    plan = core_plan()
    at_once, one_by_one = Run(plan, True), Run(plan, False)
    waiting = records_of(seed)
    chance = random.Random(seed)
    said = 0
    while waiting:
        size = chance.choice((1, 2, 10, 150))
        batch, waiting = waiting[:size], waiting[size:]
        together = at_once.batch(batch)
        assert together == one_by_one.batch(batch)
        said += len(together[0])  # type: ignore[arg-type]
    assert at_once.stage.counts == one_by_one.stage.counts
    assert at_once.stage.counts["duplicates"] and said > EVENTS


def test_what_was_made_of_somebody_stays_if_they_come_again_while_they_are_in_memory() -> None:
    run = Run(core_plan(), True, cache=1_000)
    people = [f"user_id:u{number}" for number in range(3 * overlay.AWAKE)]
    profiles = run.stage._task.profiles
    at_hand = []
    for turn in range(3):
        seen = (Event(f"m{turn}{one}", "track", "Seen", [one], START_MS + turn, START_MS + turn) for one in people)
        run.batch([Record("events", 0, turn, KEYS.actor(event.identifiers[0]), encode(event)) for event in seen])
        at_hand.append(len(profiles))
    # The last ones are awake, and so at hand in any case.
    assert at_hand[0] == overlay.AWAKE
    assert at_hand[2] == len(people)


def test_what_is_counted_is_kept_in_one_order() -> None:
    device = "device_id:d"
    # Dealt with first, where several are at once.
    user = next(one for one in map("user_id:{}".format, range(99)) if KEYS.actor(one) < KEYS.actor(device))

    def seen(identifier: str, message_id: str, at: int) -> Record:
        event = Event(message_id, "track", "Seen", [identifier], START_MS + at, START_MS + at, "raw/0/0")
        return Record("events", 0, at, KEYS.actor(identifier), encode(event))

    later = DAY_MS + 3_600_000
    runs = [Run(core_plan(), at_once, expire_after_days=1) for at_once in (True, False)]
    for run in runs:
        run.batch([seen(device, "m1", 0)])
    twice = [seen(user, "m3", later + 1), seen(user, "m3", later + 2)]
    at_once, one_by_one = (run.batch([seen(device, "m2", later), *twice]) for run in runs)
    assert runs[0].stage.counts == {"duplicates": 1, "expired": 1}
    assert at_once == one_by_one


def test_an_event_that_cannot_be_read_is_the_one_at_hand() -> None:
    run = Run(core_plan(), True)
    good = records_of(1)[:3]
    broken = Record("events", 0, 3, b"0" * 32, b'{"kind":"event",nothing')
    out = Outbox()
    with pytest.raises(ValueError, match="JSON"):
        run.stage.step_many([*good, broken], range(4), run.state, out)
    assert out.place == 3


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"properties": {"received": 7, "list": [{"a": 1, "received": 8}]}, "context": {"received": 9}},
        {"message_id": ',"received":5'},
        {"event": '\\","received":5,"'},
        {"identifiers": ['user_id:","received":5', "email:é,"]},
        {"flags": [',"received":6']},
    ],
)
def test_when_an_event_was_received_is_found_in_what_is_written(event: dict[str, Any]) -> None:
    given = {"message_id": "m", "type": "track", "event": "Seen", "identifiers": ["user_id:u"], **event}
    written = encode(Event(**given, time=START_MS - 3, received=START_MS))
    assert received_of(written) == START_MS == decode_events_record(written).received


def test_when_an_event_was_received_is_read_where_others_wrote_it() -> None:
    other = b'{"kind":"event","properties":{"a":1,"received":7},"received":%d,"message_id":"m"}' % START_MS
    spaced = b'{"kind":"event","message_id":"m", "properties":{"a":1, "received":7}, "received": %d}' % START_MS
    assert received_of(other) == received_of(spaced) == START_MS
