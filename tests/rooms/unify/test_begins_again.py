"""A profile that had expired begins again, by whatever it is: whoever has one of its identifiers finds it."""

import dataclasses

import msgspec
import pytest

from pipeline.identity import Namespace
from pipeline.records import IdentityPointer, Relink, Unlink
from tests.rooms.unify.harness import DAY, MINUTE, NOON, SECOND, World, id_of
from tests.rooms.unify.test_cases import ALL, ANN, TAB

SEEDS = range(20)
OLD, NEW = "device_id:old", "device_id:new"


def expired(seed: int) -> World:
    """A device and a browser that were one, and of whom nothing is left."""
    world = World(ALL, seed, expire_after_days=2)
    world.send(OLD, TAB, at=0)
    world.send(TAB, at=SECOND)
    world.rest(MINUTE)
    assert set(world.profiles()) == {id_of(OLD)}
    world.rest(3 * DAY)
    assert world.profiles() == {}
    return world


def everybody_is_found(world: World) -> None:
    for profile_id, document in world.profiles().items():
        for pair in document.identifiers:
            found = world.document(f"{pair.namespace}:{pair.value}")
            assert found is not None and found.profile_id == profile_id


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_leads_to_a_profile_that_has_expired(seed: int) -> None:
    left = expired(seed).compacted["identities"]
    assert all(msgspec.json.decode(row, type=IdentityPointer).retired for row in left.values())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("who", [(OLD,), (TAB,), (NEW, OLD), (NEW, TAB), (OLD, NEW), (ANN, TAB)])
def test_whoever_comes_back_is_found_by_all_of_its_identifiers(seed: int, who: tuple[str, ...]) -> None:
    """By an event of its own, by one of a part of it, by a merge."""
    world = expired(seed)
    world.send(*who, at=3 * DAY)
    world.rest(3 * DAY + MINUTE)
    assert world.identifiers(who[0]) == {OLD, TAB, *who}
    assert world.totals(OLD) == {"Page Viewed": 1}
    everybody_is_found(world)
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_whoever_comes_back_just_when_it_expires(seed: int) -> None:
    """What removes the way to it, and what gives it back, meet on their way."""
    world = World(ALL, seed, expire_after_days=2)
    world.send(OLD, TAB, at=0)
    world.rest(MINUTE)
    world.send(ANN, at=2 * DAY)
    world.work(world.rng.choice((1, 2, 3)))
    world.send(TAB, at=2 * DAY)
    world.work(world.rng.choice((1, 2, 3)))
    world.send(*world.rng.choice(((NEW, TAB), (OLD,), (TAB,))), at=2 * DAY)
    world.rest(2 * DAY + MINUTE)
    everybody_is_found(world)
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_was_parted_meanwhile_is_not_lost(seed: int) -> None:
    world = expired(seed)
    world.operate(Unlink(TAB, NOON + 3 * DAY, OLD, forever=True))
    world.send(OLD, at=3 * DAY)
    world.rest(3 * DAY + MINUTE)
    assert world.identifiers(OLD) == {OLD}
    world.send(TAB, at=4 * DAY)
    world.rest(4 * DAY)
    assert world.identifiers(TAB) == {TAB}
    everybody_is_found(world)
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_who_names_a_profile_without_an_event_of_its_own_is_found(seed: int) -> None:
    """Nothing has expired here: a device was seen with somebody who may have no more of them, then with another."""
    world = World(ALL, seed)
    plan = world.generations[0]
    two_devices = {**plan.identity.namespaces, "device_id": Namespace("device_id", 40, limit=2)}
    world.generations[0] = dataclasses.replace(
        plan, identity=dataclasses.replace(plan.identity, namespaces=two_devices)
    )
    for number, device in enumerate(("device_id:a", "device_id:b", OLD)):
        world.send(ANN, device, at=number * SECOND)
        world.rest(number * SECOND)
    world.send(NEW, OLD, at=MINUTE)
    world.rest(2 * MINUTE)
    assert world.profile(NEW).profile_id == id_of(OLD)
    everybody_is_found(world)
    world.check()


@pytest.mark.parametrize("seed", range(80))
def test_history_that_was_on_its_way_when_its_profile_expired_is_not_in_the_next_one(seed: int) -> None:
    """A new rule counts what is left of whom there is, whenever their history is read."""
    once = {"segment": "once", "when": {"performed": {"event": "Page Viewed", "count": {"exactly": 1}}}}
    world = World(ALL, seed, expire_after_days=2)
    world.send(OLD, TAB, at=0)
    for at in range(5):
        world.send(TAB, at=at)
    world.rest(MINUTE)
    world.mark(world.define((*ALL, once)), 2 * DAY - 1)
    world.work(world.rng.choice((1, 3, 9)))
    world.send(ANN, at=2 * DAY + MINUTE)
    world.work(world.rng.choice((1, 3, 9, 20)))
    world.send(TAB, at=2 * DAY + MINUTE)
    world.rest(2 * DAY + MINUTE)
    assert world.totals(TAB) == {"Page Viewed": 1}
    assert id_of(OLD) in world.members("once")
    world.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_successors_do_not_go_round_where_nothing_is_known_of_anybody(seed: int) -> None:
    """Two that had each other's name in turn: what either was is gone by then."""
    world = World(ALL, seed, expire_after_days=2)
    other, third = "anonymous_id:other", "device_id:third"
    world.send(NEW, other, at=0)
    world.operate(Unlink(other, NOON + 1, NEW))
    world.rest(SECOND)
    world.send(OLD, TAB, at=MINUTE)
    world.send(OLD, NEW, third, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    assert set(world.profiles()) == {id_of(OLD)}
    world.rest(3 * DAY)
    world.send(third, at=3 * DAY)
    world.rest(3 * DAY)
    world.operate(Unlink(third, NOON + 3 * DAY, "", forever=True))
    world.rest(3 * DAY + 1)
    assert set(world.profiles()) == {id_of(third)}
    world.operate(Relink(other, NOON + 3 * DAY + 2, NEW))
    world.rest(3 * DAY + 2)
    for one in (OLD, NEW, TAB, other, id_of(OLD), id_of(NEW)):
        assert world.document(one) is None
    world.send(OLD, at=3 * DAY + 3)
    world.rest(3 * DAY + 3)
    assert world.identifiers(OLD) == {OLD, NEW, TAB, other}
    for one in (OLD, NEW, TAB, other, id_of(OLD)):
        assert world.profile(one).profile_id == id_of(NEW)
    world.check()
