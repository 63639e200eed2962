"""A paused segment: its members stay as they are, nothing is said; resumed, the difference is told."""

import dataclasses
from typing import Any

import pytest

from tests.rooms.unify.harness import HOUR, MINUTE, SECOND, World, id_of
from tests.rooms.unify.test_cases import ANN, BOB, RECENT, SEEDS, TAB

BOUGHT: dict[str, Any] = {"segment": "bought", "when": {"performed": {"event": "Order Completed"}}}


def change(world: World, at: int, *paused: str) -> None:
    generation = world.define((RECENT, BOUGHT))
    plan = world.generations[generation]
    segments = dataclasses.replace(plan.segments, paused=frozenset(paused))
    world.generations[generation] = dataclasses.replace(plan, segments=segments)
    world.mark(generation, at)
    world.rest(at)


def paused_world(seed: int) -> World:
    """Ann is a recent visitor when that segment is paused, Bob is not."""
    world = World((RECENT, BOUGHT), seed)
    world.send(ANN)
    world.rest(SECOND)
    change(world, MINUTE, "recent")
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_said_while_it_is_paused(seed: int) -> None:
    world = paused_world(seed)
    world.send(BOB, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    assert world.members("recent") == {id_of(ANN)}
    world.rest(3 * HOUR)
    world.send(BOB, event="Order Completed", at=3 * HOUR)
    world.rest(3 * HOUR + SECOND)
    assert world.members("recent") == {id_of(ANN)}
    assert len(world.segment_changes("recent")) == 1
    assert world.members("bought") == {id_of(BOB)}
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_resumed_it_tells_the_difference(seed: int) -> None:
    world = paused_world(seed)
    world.rest(2 * HOUR)
    world.send(BOB, at=3 * HOUR)
    change(world, 3 * HOUR + MINUTE)
    assert world.members("recent") == {id_of(BOB)}
    told = [(one.profile_id, one.change, one.cause) for one in world.segment_changes("recent")]
    assert sorted(told[1:]) == sorted([(id_of(ANN), "exited", "definition"), (id_of(BOB), "entered", "definition")])
    world.send(BOB, at=3 * HOUR + 2 * MINUTE)
    world.rest(5 * HOUR)
    assert world.members("recent") == set()
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_pause_and_resume_without_a_difference_says_nothing(seed: int) -> None:
    world = paused_world(seed)
    change(world, 2 * MINUTE)
    assert len(world.segment_changes("recent")) == 1
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_whose_profile_ends_leaves_a_paused_segment_too(seed: int) -> None:
    world = World((RECENT, BOUGHT), seed)
    world.send(TAB)
    world.rest(SECOND)
    change(world, MINUTE, "recent")
    world.send(ANN, TAB, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    assert world.members("recent") == set()
    assert [(one.change, one.cause) for one in world.segment_changes("recent")] == [
        ("entered", "event"),
        ("exited", "merge"),
    ]
    change(world, 4 * MINUTE)
    assert world.members("recent") == {id_of(ANN)}
    world.check()
