"""What contracts allow to be kept no longer goes by itself: from the document, the segments, and the state."""

import dataclasses

import pytest
import yaml

from pipeline.contracts import ContractsPlan
from pipeline.definitions.contracts import compile_contracts
from tests.rooms.unify.harness import DAY, HOUR, MINUTE, NOON, SECOND, World, id_of
from tests.rooms.unify.test_cases import ANN, MAIL, SEEDS, TAB

CONTRACT = """
contract: shop
events:
  Identify:
    traits:
      properties:
        city: {type: string, retention: 2d}
        plan: {type: string}
        address: {type: object, properties: {street: {type: string, retention: 1d}}}
  Page Viewed: {retention: 3d, traits: {properties: {seen: {}, city: {}}}}
"""
IN_GENT = {"segment": "in_gent", "when": {"trait": {"city": {"equals": "Gent"}}}}


def contracts(text: str = CONTRACT) -> ContractsPlan:
    return compile_contracts({"shop": (1, yaml.safe_load(text))})


def world(seed: int, partitions: int = 3) -> World:
    found = World((IN_GENT,), seed, partitions)
    found.generations[0] = dataclasses.replace(found.generations[0], contracts=contracts())
    return found


def kept(one: World) -> bytes:
    return b"".join(state.stage.encode(key, value) for _, state, _ in one.tasks for key, value in state.values.items())


def test_the_shortest_that_any_contract_says_of_it_holds() -> None:
    plan = contracts()
    assert plan.keeps_traits == {"city": 2 * DAY, "address": DAY, "seen": 3 * DAY}
    assert plan.keeps_events == {"Page Viewed": 3 * DAY}
    assert ContractsPlan().keeps_traits == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_trait_goes_at_its_instant_and_what_rests_on_it(seed: int) -> None:
    one = world(seed)
    one.send(ANN, event="Identify", kind="identify", traits={"city": "Gent", "plan": "pro", "address": {"street": "9"}})
    one.rest(MINUTE)
    assert one.members("in_gent") == {id_of(ANN)}
    one.rest(DAY - 1)
    assert one.profile(ANN).traits == {"city": "Gent", "plan": "pro", "address": {"street": "9"}}
    one.rest(DAY)
    assert one.profile(ANN).traits == {"city": "Gent", "plan": "pro"}
    one.rest(2 * DAY - 1)
    assert one.members("in_gent") == {id_of(ANN)}
    one.rest(2 * DAY + HOUR)
    assert one.profile(ANN).traits == {"plan": "pro"} and one.members("in_gent") == set()
    left = one.segment_changes("in_gent")[-1]
    assert (left.change, left.cause, left.at) == ("exited", "timer", NOON + 2 * DAY)
    assert b"Gent" not in kept(one)
    one.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_it_goes_from_every_part_of_a_person_and_a_newer_word_keeps_it(seed: int) -> None:
    one = world(seed)
    one.send(TAB, at=0, traits={"city": "Lima"})
    one.send(ANN, TAB, at=HOUR, traits={"city": "Gent"})
    one.send(MAIL, TAB, at=2 * HOUR)
    one.rest(DAY)
    assert one.profile(ANN).traits == {"city": "Gent"}
    one.send(TAB, at=DAY, event="Identify", traits={"city": "Graz"})
    # A word of before is none any more, also if nobody has heard it.
    one.send(ANN, at=-2 * DAY, received=DAY, traits={"city": "Oslo"}, event="Identify")
    one.rest(3 * DAY - 1)
    assert one.profile(ANN).traits == {"city": "Graz"}
    one.rest(3 * DAY)
    assert one.profile(ANN).traits == {}
    one.send(MAIL, at=0, received=3 * DAY + 1, traits={"city": "Rome"}, event="Identify")
    one.rest(3 * DAY + MINUTE)
    assert one.profile(ANN).traits == {}
    assert not any(city in kept(one) for city in (b"Lima", b"Gent", b"Graz", b"Oslo", b"Rome"))
    one.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_total_of_an_event_goes_when_none_came_for_so_long(seed: int) -> None:
    one = world(seed)
    one.send(ANN)
    one.send(ANN, at=SECOND, event="Login")
    one.send(ANN, TAB, at=DAY)
    one.rest(4 * DAY - 1)
    assert one.totals(ANN) == {"Page Viewed": 2, "Login": 1}
    one.rest(4 * DAY)
    assert one.totals(ANN) == {"Login": 1}
    assert one.counts()["expired"] == 2
    one.send(TAB, at=5 * DAY)
    one.rest(5 * DAY + SECOND)
    assert one.totals(ANN) == {"Page Viewed": 1, "Login": 1}
    one.check()


def test_a_contract_that_comes_later_lets_go_of_what_is_there() -> None:
    one = World((IN_GENT,), 3)
    one.send(ANN, traits={"city": "Gent"})
    one.rest(5 * DAY)
    assert one.members("in_gent") == {id_of(ANN)}
    generation = one.define((IN_GENT,))
    one.generations[generation] = dataclasses.replace(one.generations[generation], contracts=contracts())
    one.mark(generation, 5 * DAY)
    one.rest(5 * DAY + MINUTE)
    one.rest(6 * DAY)
    assert one.members("in_gent") == set() and one.profile(ANN).traits == {}
    one.check()
