"""Scores of models as traits that expire, in rules."""

import random

import pytest

from tests.oracle.segments import Facts, computed
from tests.rooms.unify.harness import HOUR, MINUTE, NOON, SECOND, World, id_of

SCORE = {"computed": "will_buy", "compute": {"function": "prediction", "model": "repeat_purchase"}}
LIKELY = {"segment": "likely", "when": {"computed": {"will_buy": {"at_least": 0.7}}}}


def scored(world: World, value: object, at: int, until: object = None, model: str = "repeat_purchase") -> None:
    properties = {"model": model, "version": "3", "value": value}
    if until is not None:
        properties["valid_until"] = until
    world.send("user_id:u", event="Score", properties=properties, at=at)


def test_a_score_counts_until_it_is_no_longer_valid() -> None:
    world = World((SCORE, LIKELY))
    scored(world, 0.8, 0, NOON + HOUR)
    scored(world, 0.9, 0, model="another")
    world.rest(SECOND)
    assert world.profile("user_id:u").computed == {"will_buy": 0.8}
    assert world.members("likely") == {id_of("user_id:u")}
    world.rest(2 * HOUR)
    assert world.profile("user_id:u").computed == {}
    [_, left] = world.segment_changes("likely")
    assert (left.change, left.at, left.cause) == ("exited", NOON + HOUR, "timer")
    world.check()


@pytest.mark.parametrize("passed", [0, 0.0, "1970-01-01T00:00:00Z", -1, "1969-12-31", 1])
def test_a_score_is_taken_back_by_any_instant_that_has_passed(passed: object) -> None:
    world = World((SCORE, LIKELY))
    scored(world, 0.8, 0)
    world.rest(SECOND)
    assert world.members("likely") == {id_of("user_id:u")}
    scored(world, 0.8, MINUTE, passed)
    world.rest(2 * MINUTE)
    assert world.profile("user_id:u").computed == {} and not world.members("likely")
    world.check()


@pytest.mark.parametrize("seed", range(4))
def test_scores_in_any_order_are_the_newest_valid_one(seed: int) -> None:
    rng = random.Random(seed)
    world = World((SCORE, LIKELY), seed)
    sent = []
    for number in range(8):
        at = rng.randint(0, 10) * MINUTE
        until = rng.choice((None, NOON + at + rng.randint(1, 20) * MINUTE, "2024-01-01", 0))
        properties = {"model": "repeat_purchase", "value": rng.choice((0.1, 0.7, 0.9, None, "high"))}
        if until is not None:
            properties["valid_until"] = until
        who = rng.choice((("user_id:u",), ("anonymous_id:a",)))
        sent.append(world.send(*who, event="Score", properties=properties, at=at, received=HOUR + number))
    world.send("user_id:u", "anonymous_id:a", at=HOUR)
    sent.append(world.send("user_id:u", at=HOUR))
    for now in (HOUR + SECOND, 2 * HOUR):
        world.rest(now)
        due = computed(SCORE["compute"], Facts(sent, "", [], NOON + now))
        assert world.profile("user_id:u").computed.get("will_buy") == due
    world.check()
