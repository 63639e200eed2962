"""Who has nothing here for a moment, because all of it is on its way, has not expired."""

import dataclasses

import pytest

from pipeline.identity import Namespace
from pipeline.records import Unlink
from tests.rooms.unify.harness import DAY, NOON, SECOND, World, id_of
from tests.rooms.unify.test_cases import ANN, BOB, MAIL, PHONE, QUIET, RECENT, TAB


@pytest.mark.parametrize("other", [MAIL, TAB])
@pytest.mark.parametrize("seed", range(60))
def test_a_link_and_its_undoing_in_quick_succession(seed: int, other: str) -> None:
    world = World((RECENT, QUIET), seed)
    world.send(other)
    world.send(ANN)
    world.rest(SECOND)
    for at in (2 * SECOND, 6 * SECOND, 10 * SECOND):
        world.send(ANN, other, at=at)
        world.work(world.rng.choice((1, 2, 3)))
        world.operate(Unlink(ANN, NOON + at + SECOND, other))
        world.send(other, at=at + 2 * SECOND)
        world.work(world.rng.choice((1, 2, 3, 5)))
        world.send(other, at=at + 3 * SECOND)
        world.work(world.rng.choice((1, 3, 5, 9)))
    world.rest(30 * SECOND)
    assert "expired" not in [one.change for one in world.profile_changes()]
    assert world.profile(other).profile_id == id_of(other)
    assert world.totals(other) == {"Page Viewed": 7}
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_parts_that_come_back_one_by_one_of_which_the_last_is_the_newest(seed: int) -> None:
    """What came first was received long ago, and time goes on before the rest is here."""
    world = World((RECENT, QUIET), seed, expire_after_days=2)
    first = "device_id:first"
    world.send(first, TAB)
    world.send(ANN, first, at=SECOND)
    world.rest(2 * SECOND)
    world.send(TAB, at=3 * DAY)
    world.rest(3 * DAY)
    world.operate(Unlink(first, NOON + 3 * DAY, ANN, forever=True))
    for at in range(1, 40):
        world.send(BOB, at=3 * DAY + at)
        world.send(f"user_id:another{at}", at=3 * DAY + at)
        world.work(1)
    world.rest(3 * DAY + SECOND)
    assert world.totals(first) == {"Page Viewed": 2}
    assert "expired" not in [one.change for one in world.profile_changes()]
    world.check()
    world.rest(5 * DAY - 1)
    assert world.document(first) is not None
    world.rest(5 * DAY)
    assert world.document(first) is None
    [ended] = [one for one in world.profile_changes() if one.change == "expired"]
    assert ended.at == NOON + 5 * DAY
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_who_logs_in_brings_also_what_was_received_long_ago(seed: int) -> None:
    """The profile of a device and of the browser that it goes on as is taken apart: the newest part may go first."""
    world = World((RECENT, QUIET), seed, expire_after_days=2)
    device = "device_id:first"
    world.send(device, event="Installed")
    world.send(device, TAB, at=SECOND)
    for day in (1, 2, 3):
        world.send(TAB, at=day * DAY)
        world.rest(day * DAY)
    world.send(ANN, TAB, at=3 * DAY + SECOND)
    world.rest(3 * DAY + 2 * SECOND)
    assert world.totals(ANN) == {"Installed": 1, "Page Viewed": 5}
    assert "expired" not in [one.change for one in world.profile_changes()]
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_several_that_leave_a_profile_which_lives_on_without_them(seed: int) -> None:
    """The newest of them may go first: what it leaves for a moment was received long ago."""
    world = World((RECENT, QUIET), seed, expire_after_days=2)
    stays, old, new = "device_id:stays", "device_id:old", "device_id:new"
    world.send(stays, TAB)
    world.send(stays, old, at=1)
    world.send(old, event="Installed", at=2)
    world.send(new, old, at=SECOND)
    world.rest(2 * SECOND)
    for day in (1, 2, 3):
        world.send(new, at=day * DAY)
        world.rest(day * DAY)
    a, b = sorted((stays, old))
    world.operate(Unlink(a, NOON + 3 * DAY, b, forever=True))
    for at in range(1, 40):
        world.send(f"user_id:another{at}", at=3 * DAY + at)
        world.work(1)
    world.rest(3 * DAY + SECOND)
    assert world.identifiers(new) == {old, new}
    assert world.totals(new) == {"Page Viewed": 4, "Installed": 1}
    assert world.document(stays) is None
    world.check()


@pytest.mark.parametrize("seed", range(60))
def test_who_is_parted_by_an_event_from_one_and_joined_to_another_by_the_same(seed: int) -> None:
    """The address of somebody who was last received long ago is found to be shared, and they to have a card."""
    world = World((RECENT, QUIET), seed, expire_after_days=2)
    plan = world.generations[0]
    namespaces = {
        **plan.identity.namespaces,
        "email": Namespace("email", 20, quarantine_after=1),
        "card": Namespace("card", 60, unique=True),
    }
    world.generations[0] = dataclasses.replace(plan, identity=dataclasses.replace(plan.identity, namespaces=namespaces))
    world.send(PHONE)
    world.send(MAIL, PHONE, at=1)
    world.send(MAIL, "card:1", at=2)
    world.rest(SECOND)
    assert world.identifiers(MAIL) == {MAIL, PHONE, "card:1"}
    world.send(MAIL, PHONE, "card:2", at=3 * DAY)
    world.rest(3 * DAY)
    assert world.identifiers(PHONE) == {PHONE, "card:2"}
    assert world.totals(PHONE) == {"Page Viewed": 1}
    assert "expired" not in [one.change for one in world.profile_changes()]
    world.check()
