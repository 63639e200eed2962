"""A deadline is due once every task of unify has consumed what came before it."""

from collections.abc import Callable
from functools import partial

from pipeline.identifiers import partition_of
from pipeline.records import Ready, encode
from pipeline.unify import UnifyStage
from pipeline.unify.actor import META_KEY
from tests.rooms.unify.harness import KEYS, MINUTE, NOON, SECOND, World

LEFT_BEHIND = {
    "segment": "left_behind",
    "when": {
        "sequence": {"steps": [{"event": "Cart Viewed"}, {"not": {"event": "Order Completed"}, "within": "1m"}]},
    },
}


def at(identifier: str) -> int:
    return partition_of(KEYS.actor(identifier), 2)


def one_in(partition: int, names: str) -> str:
    return next(name for name in map(names.format, range(100)) if at(name) == partition)


HERE, THERE = one_in(0, "user_id:u{}"), one_in(1, "anonymous_id:a{}")
OTHER = next(name for name in map("user_id:o{}".format, range(100)) if at(name) == 0)


def world_of(watermark: Callable[[int], int] | None) -> World:
    return World((LEFT_BEHIND,), partitions=2, make_unify=partial(UnifyStage, watermark=watermark))


def work(world: World, *tasks: int) -> None:
    """These read everything; the others stand still."""
    while ready := [number for number in tasks if world._ready(world.tasks[number][2])]:
        world._batch(ready[0])


def story(world: World) -> None:
    """Somebody bought in time, under an identifier of another partition, whose task stands still meanwhile."""
    world.send(HERE, THERE)
    world.work()
    world.send(HERE, event="Cart Viewed", at=SECOND)
    world.work()
    world.send(THERE, event="Order Completed", at=30 * SECOND)
    world.send(OTHER, at=2 * MINUTE)
    work(world, 0, 1)
    world._wake(NOON + 2 * MINUTE)
    work(world, 0, 1)
    world.rest(2 * MINUTE)


def test_a_task_that_stands_still_holds_up_the_deadlines_of_the_others() -> None:
    world: World
    asked: list[int] = []

    def least(wanted: int) -> int:
        asked.append(wanted)
        return min(stage.in_time()[0] for stage, _, _ in world.tasks if isinstance(stage, UnifyStage))

    def enter_all() -> None:
        for stage, state, _ in world.tasks:
            if isinstance(stage, UnifyStage):
                stage._task.enter(state, None)  # type: ignore[arg-type]

    world = world_of(lambda wanted: (enter_all(), least(wanted))[1])
    story(world)
    assert world.segment_changes() == [], "an order that came in time"
    assert asked[0] == NOON + MINUTE + SECOND, "asked for what was due, and for nothing before"
    world.rest(5 * MINUTE)
    assert world.segment_changes() == []


def test_without_it_they_are_entered_and_leave_at_one_instant() -> None:
    """What it is for."""
    world = world_of(None)
    story(world)
    entered, exited = world.segment_changes()
    assert (entered.change, exited.change) == ("entered", "exited") and entered.at == NOON + MINUTE + SECOND


def test_it_settles_no_more_than_has_passed() -> None:
    passed = NOON + MINUTE + SECOND
    world = world_of(lambda _: passed)
    for number, person in enumerate((HERE, OTHER)):
        world.send(person, event="Cart Viewed", at=SECOND + number)
    world.rest(30 * MINUTE)
    (entered,) = world.segment_changes()
    assert (entered.at, entered.decided_at) == (passed, passed), "the other is due a millisecond later"
    passed = NOON + 30 * MINUTE
    world.rest(30 * MINUTE)
    assert [change.at for change in world.segment_changes()] == [entered.at, entered.at + 1]


def test_a_task_tells_what_it_has_still_to_settle() -> None:
    passed = NOON
    world = world_of(lambda _: passed)
    world.send(HERE, event="Cart Viewed", at=SECOND)

    def in_time() -> tuple[int, int]:
        stage, state, _ = world.tasks[1 + at(HERE)]
        assert isinstance(stage, UnifyStage)
        stage._task.enter(state, None)  # type: ignore[arg-type]
        return stage.in_time()

    world.rest(30 * SECOND)
    assert in_time() == (NOON + 30 * SECOND, 0), "nothing is due by then"
    world.rest(2 * MINUTE)
    assert in_time() == (NOON + 2 * MINUTE, NOON + MINUTE + SECOND), "others are behind"
    passed = NOON + 2 * MINUTE
    world.rest(2 * MINUTE)
    assert in_time() == (NOON + 2 * MINUTE, 0)


def test_a_change_of_the_rules_settles_nobody_past_it_while_another_task_stands_still() -> None:
    world: World

    def least(_: int) -> int:
        found = [state.get(META_KEY) for _, state, _ in world.tasks[1:]]
        return min(meta.received if meta is not None else -1 for meta in found)

    world = world_of(least)
    world.send(HERE, THERE)
    world.work()
    world.send(HERE, event="Cart Viewed", at=SECOND)
    world.work()
    generation = world.define((LEFT_BEHIND,))
    for partition in range(2):
        world.write("events", None, encode(Ready(generation, NOON + 20 * SECOND)), partition)
    world.send(THERE, event="Order Completed", at=30 * SECOND)
    world.send(OTHER, at=2 * MINUTE)
    work(world, 1 + at(HERE))
    world._wake(NOON + 2 * MINUTE)
    work(world, 1 + at(HERE))
    _, state, _ = world.tasks[1 + at(HERE)]
    assert state.get(META_KEY).generation == generation and state.get(META_KEY).received == NOON + 2 * MINUTE
    world.rest(2 * MINUTE)
    assert world.segment_changes() == [], "an order that came in time"


def test_what_another_task_forwards_does_not_hurry_the_events_that_are_read_after_it() -> None:
    """A worker was away; what others said to its tasks meanwhile it may read before its own events of that time."""
    world = world_of(lambda wanted: wanted)
    world.send(OTHER, THERE)
    world.send(HERE, event="Cart Viewed", at=SECOND)
    world.work()
    world.send(HERE, event="Order Completed", at=30 * SECOND)
    world.send(THERE, at=2 * MINUTE)
    _, _, positions = world.tasks[1 + at(HERE)]
    waiting = positions.pop(("events", at(HERE)))
    work(world, 0, 1 + at(THERE), 1 + at(HERE))
    assert world.totals(OTHER) == {"Page Viewed": 2}, "forwarded"
    positions["events", at(HERE)] = waiting
    world.rest(2 * MINUTE)
    assert world.segment_changes() == [], "an order that came in time"
    world.check()


def test_an_event_is_not_judged_before_what_its_profile_was_settled_up_to() -> None:
    world = world_of(lambda wanted: wanted)
    world.send(HERE, THERE)
    world.send(HERE, event="Cart Viewed", at=SECOND)
    world.work()
    world.send(HERE, at=30 * SECOND)
    world.send(THERE, at=2 * MINUTE)
    _, _, positions = world.tasks[1 + at(HERE)]
    waiting = positions.pop(("events", at(HERE)))
    work(world, 0, 1 + at(THERE), 1 + at(HERE))
    positions["events", at(HERE)] = waiting
    world.rest(2 * MINUTE)
    decided = [change.decided_at for change in world.profile_changes()]
    assert decided == sorted(decided) and decided[-2:] == [NOON + 2 * MINUTE] * 2
    world.check()
