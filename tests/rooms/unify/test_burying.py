"""Whoever is erased while fragments are on their way: messages in an order that the simulation hardly ever draws."""

from typing import Any

import pytest

from pipeline.records import Absorb, Bury, Erase, Recall, encode
from tests.rooms.unify.harness import KEYS, MINUTE, NOON, World
from tests.rooms.unify.test_lives import everything_kept

ANN, BOB, CID, TAB, MAIL = "user_id:ann", "user_id:bob", "user_id:cid", "anonymous_id:tab", "email:m@x.io"


def told(world: World, *messages: Any) -> None:
    """These are read in this order; what they cause comes behind them."""
    for message in messages:
        to = getattr(message, "holder", None) or getattr(message, "to", None) or message.identifier
        world.write("links", KEYS.actor(to), encode(message), 0)


def recall(holder: str, fragment: str, to: str, epoch: int, **more: Any) -> Recall:
    return Recall(holder=holder, fragment=fragment, to=to, epoch=epoch, reason="merge", clock=NOON, **more)


def group_of(world: World, identifier: str) -> Any:
    return world.tasks[1][1].values[b"a" + KEYS.actor(identifier)].group


@pytest.mark.parametrize("holder", [TAB, CID])
def test_what_comes_to_the_erased_too_late_is_buried_where_it_came_from(holder: str) -> None:
    world = World(partitions=1)
    # Its fragment has been called on to somebody else by then: so whoever gave it is no part of who is erased.
    told(world, recall(holder, TAB, ANN, 5), Erase(ANN, 10, NOON), recall(ANN, TAB, BOB, 7))
    world.rest(MINUTE)
    assert b"ann" not in everything_kept(world)
    assert group_of(world, holder).given[TAB] == (KEYS.buried(ANN), 5, 0)
    assert group_of(world, BOB).present.keys() == {BOB, TAB}


def test_who_is_called_back_from_the_erased_does_not_know_them_any_more() -> None:
    world = World(partitions=1)
    told(world, recall(TAB, TAB, ANN, 5))
    world.rest(1)
    told(world, Erase(ANN, 10, NOON), recall(ANN, TAB, BOB, 7))
    world.rest(MINUTE)
    assert b"ann" not in everything_kept(world)
    assert group_of(world, BOB).present.keys() == {BOB, TAB}


def test_who_is_called_back_before_they_have_come_are_known_when_somebody_is_erased() -> None:
    world = World(partitions=1)
    # Erased once before: what has not come yet is not of that time.
    told(world, Erase(ANN, 2, NOON), recall(ANN, TAB, BOB, 7), recall(TAB, TAB, ANN, 5))
    world.rest(1)
    told(world, Erase(ANN, 10, NOON))
    world.rest(MINUTE)
    assert b"ann" not in everything_kept(world)
    assert group_of(world, BOB).present.keys() == {BOB, TAB}


def test_of_who_is_known_anew_nothing_is_buried_with_their_former_life() -> None:
    world = World(partitions=1)
    told(world, recall(CID, TAB, ANN, 5), recall(CID, MAIL, ANN, 12), recall(CID, ANN, BOB, 13, birth=10))
    world.rest(1)
    told(world, Bury(CID, ANN, 10, NOON))
    # A piece of it that belongs elsewhere by now is still passed on, and is not taken for one of before.
    told(world, Absorb(to=CID, fragment=ANN, epoch=11, reason="merge", clock=NOON, birth=10, origin=ANN))
    world.rest(MINUTE)
    given = group_of(world, CID).given
    assert given == {TAB: (KEYS.buried(ANN), 5, 0), MAIL: (ANN, 12, 0), ANN: (BOB, 13, 0)}
    assert group_of(world, BOB).present.keys() == {BOB, ANN}
