"""Long work that rests, because its turns have become too long for whoever waits for the same machine."""

import random
import time

import pytest

from pipeline.runtime.ports import Record
from pipeline.runtime.rest import Rest
from pipeline.runtime.settings import WorkerSettings
from tests.rooms.runtime.counting import World, run_idle
from tests.rooms.runtime.test_waiting import NEVER_S, ROLE, PatientStage, settled

TURN_S = 0.030


def record(partition: int, offset: int, long: bool = False, topic: str = "links") -> Record:
    return Record(topic, partition, offset, None, b"long" if long else b"short")


def resting() -> Rest:
    rest = Rest("links", TURN_S)
    rest.can_wait = lambda record: record.value == b"long"
    return rest


def turns(rest: Rest, seconds: float, count: int, now_s: float = 0.0) -> float:
    """So many turns, one after the other, with what each of them makes long work wait; when the last is over."""
    for _ in range(count):
        now_s += seconds
        rest.was_long(seconds, now_s)
        now_s += rest.waits_s(now_s) or 0.0
    return now_s


def test_turns_that_are_short_enough_need_no_rest() -> None:
    rest = resting()
    assert turns(rest, TURN_S, 100) == pytest.approx(3.0)


def test_a_turn_that_is_late_is_followed_by_a_rest_of_twice_as_long_as_it_was_late() -> None:
    rest = resting()
    now_s = turns(rest, TURN_S, 100)
    rest.was_long(0.1, now_s)
    assert rest.waits_s(now_s) == pytest.approx(2 * (0.1 - 1.2 * TURN_S))
    assert rest.waits_s(now_s + 0.2) is None


def test_where_all_turns_are_long_it_is_how_the_machine_is() -> None:
    rest = resting()
    now_s = turns(rest, 0.1, 200)
    assert turns(rest, 0.1, 100, now_s) - now_s == pytest.approx(10.0)
    rest.was_long(0.5, now_s + 10)
    assert rest.waits_s(now_s + 10) == pytest.approx(2 * (0.5 - 0.12), rel=0.02)


@pytest.mark.parametrize("seed", range(20))
def test_rests_take_a_fifth_of_the_time_at_most(seed: int) -> None:
    chance, rest, now_s, worked_s = random.Random(seed), resting(), 0.0, 0.0
    for _ in range(2_000):
        took_s = chance.choice((0.02, 0.03, 0.3, 1.0))
        worked_s += took_s
        now_s = turns(rest, took_s, 1, now_s)
    assert worked_s < now_s <= worked_s * 1.25


def test_without_a_bound_nothing_rests() -> None:
    rest = Rest("links")
    rest.can_wait = lambda record: True
    assert turns(rest, 5.0, 10) == 50.0


def test_while_it_rests_what_stands_behind_it_in_its_partition_waits_with_it() -> None:
    rest = resting()
    come = [
        record(0, 0),
        record(0, 1, long=True),
        record(1, 0),
        record(0, 0, topic="events"),
        record(0, 2),
    ]
    rest.leave_long(come)
    assert [each[:3] for each in come] == [("links", 0, 0), ("links", 1, 0), ("events", 0, 0)]
    later = [record(0, 3), record(1, 1), record(1, 2, long=True), record(0, 1, long=True, topic="events")]
    rest.leave_long(later)
    assert [each[:3] for each in later] == [("links", 1, 1), ("events", 0, 1)], "other topics never wait"
    assert [each[:3] for each in rest.take(0.0)] == [("links", 0, 1), ("links", 0, 2), ("links", 0, 3), ("links", 1, 2)]
    assert not rest


def test_nothing_is_taken_of_it_before_the_rest_is_over() -> None:
    rest = resting()
    now_s = turns(rest, TURN_S, 100)
    rest.was_long(0.06, now_s)
    waits_s = rest.waits_s(now_s)
    assert waits_s is not None and waits_s > 0
    rest.leave_long([record(0, 0, long=True)])
    assert rest and rest.take(now_s) == []
    over_s = now_s + waits_s
    assert rest.waits_s(over_s) == 0.0, "it is still to be taken before what comes now"
    assert len(rest.take(over_s)) == 1
    assert rest.waits_s(over_s) is None


def test_what_made_the_stage_raise_is_done_first_and_does_not_wait() -> None:
    rest = resting()
    rest.leave_long([record(0, 5, long=True)])
    rest._until_s = NEVER_S
    rest.doubt([record(1, 0), record(1, 1)])
    assert rest.take(0.0) == [record(1, 0)]
    rest.done(1)
    assert rest.take(0.0) == [record(1, 1)]
    rest.done(1)
    assert rest.take(0.0) == []
    assert rest.clear() == [record(0, 5, long=True)]


def test_live_events_are_served_while_long_work_rests() -> None:
    world, worker = settled()
    worker._rest._until_s = NEVER_S
    world.say(("long", "long"), ("behind", "w"), topic="echoes")
    world.say(("live", "w"))
    worker.run_once()
    world.say(("later", "w"), topic="echoes")
    world.say(("live", "w"))
    worker.run_once()
    assert world.counts() == ["live 1", "live 2"]
    worker._rest._until_s = 0.0
    run_idle(worker)
    assert world.counts() == ["live 1", "live 2", "long 1", "behind 1", "later 1"]
    assert world.stored() == world.changelog()


def test_a_rest_that_ends_while_records_are_consumed_does_not_turn_them_round(monkeypatch: pytest.MonkeyPatch) -> None:
    world, worker = settled()
    worker._rest._until_s = 2.0
    times = iter([1.0])
    monkeypatch.setattr("pipeline.runtime.worker.time.perf_counter", lambda: next(times, 3.0))
    worker._rest._left = [Record("echoes", 0, 0, b"long", b"long")]
    world.say(("long", "long"), ("behind", "w"), topic="echoes")
    worker._consumer.consume(1, 0.0)
    assert worker.run_once() == 0, "what stands behind it waits, too"
    run_idle(worker)
    assert world.counts() == ["long 1", "behind 1"]


def test_a_turn_of_the_worker_that_is_late_makes_long_work_rest() -> None:
    world = World(1, ROLE)
    worker = world.worker(make_stage=PatientStage, settings=WorkerSettings(long_turn_s=1e-9))
    run_idle(worker)
    world.say(("live", "w"))
    worker.run_once()
    assert worker._rest.waits_s(0.0) is None, "live events alone are no long work"
    world.say(("long", "long"), topic="echoes")
    worker.run_once()
    assert worker._rest.waits_s(0.0) is not None


def test_who_waits_for_records_does_not_outwait_the_rest() -> None:
    _, worker = settled()
    waited, consume = [], worker._consumer.consume
    worker._consumer.consume = lambda limit, wait: waited.append(wait) or consume(limit, wait)  # type: ignore[func-returns-value, method-assign]
    worker.run_once()
    worker._rest._left = [Record("echoes", 0, 0, b"long", b"long")]
    worker._rest._until_s = time.perf_counter() + 0.005
    worker.run_once()
    assert waited[0] == worker.settings.idle_timeout_s > waited[1] <= 0.005


def test_what_rests_is_read_again_after_a_rebalance() -> None:
    world, worker = settled()
    worker._rest._until_s = NEVER_S
    world.say(("long", "long"), topic="echoes")
    worker.run_once()
    assert worker._rest
    world.broker.rebalance("counting")
    worker.run_once()
    worker._rest._until_s = 0.0
    run_idle(worker)
    assert world.counts() == ["long 1"]
