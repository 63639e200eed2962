"""What contracts allow to be kept no longer goes by itself: from the document, the segments, and the state."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from pipeline.contracts import ContractsPlan
from pipeline.definitions.contracts import compile_contracts
from pipeline.profile import decode_fragment
from pipeline.records import Unlink
from pipeline.segments import Keeps
from tests.rooms.unify.harness import DAY, HOUR, MINUTE, NOON, SECOND, World, compiled, id_of
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
def test_a_trait_that_was_taken_back_hides_no_older_word_for_longer(seed: int) -> None:
    one = world(seed)
    one.send(TAB, at=0, event="Identify", traits={"city": "Lima"})
    one.send(ANN, TAB, at=HOUR, event="Identify", traits={"city": None})
    one.rest(2 * DAY + HOUR - 1)
    told = len(one.profile_changes())
    assert one.profile(ANN).traits == {}
    one.rest(2 * DAY + HOUR)
    assert b"Lima" not in kept(one) and b"city" not in kept(one)
    assert len(one.profile_changes()) == told, "nothing that was shown is gone"
    one.check()


@pytest.mark.parametrize("word", ["Graz", None])
@pytest.mark.parametrize("first", [ANN, TAB])
@pytest.mark.parametrize("seed", SEEDS)
def test_what_had_its_time_behind_a_newer_word_does_not_come_back_when_that_is_unlinked(
    seed: int, first: str, word: str | None
) -> None:
    one = world(seed)
    one.send(first, at=0, traits={"city": "Gent"})
    one.send(ANN, TAB, at=HOUR, event="Login")
    other = TAB if first == ANN else ANN
    for day in range(1, 6):
        one.send(other, at=day * DAY, traits={"city": word})
        one.rest(day * DAY + SECOND)
    told = len(one.segment_changes())
    one.operate(Unlink(ANN, NOON + 5 * DAY + SECOND, TAB))
    one.rest(5 * DAY + SECOND)
    assert one.profile(first).traits == {} and "Page Viewed" not in one.totals(first)
    assert one.totals(other)["Page Viewed"] == 5
    assert len(one.segment_changes()) == told and b"Gent" not in kept(one)
    late = [change for change in one.profile_changes() if change.decided_at >= NOON + 2 * DAY]
    assert not any("Gent" in change.set.get("traits", {}).values() for change in late)
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


COUNTED = """
contract: shop
events:
  Page Viewed:
    retention: 3d
    properties: {path: {}, code: {retention: 1d}}
  Cart Viewed: {retention: 3d}
"""
RULES: tuple[dict[str, Any], ...] = (
    {"segment": "readers", "when": {"performed": {"event": "Page Viewed"}}},
    {
        "segment": "two_codes",
        "when": {"performed": {"event": "Page Viewed", "distinct": {"of": "properties.code", "at_least": 2}}},
    },
    {"segment": "in_order", "when": {"sequence": {"steps": [{"event": "Page Viewed"}, {"event": "Cart Viewed"}]}}},
    {
        "segment": "warm",
        "when": {"score": {"events": [{"event": "Page Viewed", "weight": 9}], "half_life": "30d", "at_least": 1}},
    },
    {"segment": "this_year", "when": {"performed": {"event": "Page Viewed", "calendar": {"unit": "year"}}}},
    {"segment": "since_then", "when": {"performed": {"event": "Page Viewed", "between": {"from": "2020-01-01"}}}},
    {"computed": "last_path", "compute": {"function": "last", "event": "Page Viewed", "of": "properties.path"}},
    {
        "computed": "paths",
        "compute": {"function": "unique", "event": "Page Viewed", "of": "properties.path", "limit": 5},
    },
)


def counting(seed: int, rules: tuple[dict[str, Any], ...] = RULES, contract: str = COUNTED, **more: Any) -> World:
    one = World(rules, seed, 3, **more)
    plan = contracts(contract)
    segments = compiled(rules, 0, None, Keeps(plan.keeps_events, plan.keeps_parts))
    one.generations[0] = dataclasses.replace(one.generations[0], contracts=plan, segments=segments)
    return one


def members(one: World) -> set[str]:
    return {rule["segment"] for rule in RULES if "segment" in rule and one.members(rule["segment"])}


@pytest.mark.parametrize("seed", SEEDS)
def test_what_rules_count_goes_at_its_instant_from_members_traits_and_states(seed: int) -> None:
    one = counting(seed)
    one.send(TAB, at=0, properties={"path": "/first-zq", "code": "c1"})
    one.send(ANN, TAB, at=HOUR, properties={"path": "/second-zq", "code": "c2"})
    one.send(ANN, at=2 * HOUR, event="Cart Viewed")
    one.rest(DAY - 1)
    every = {"readers", "two_codes", "in_order", "warm", "this_year", "since_then"}
    assert members(one) == every and one.profile(ANN).computed["last_path"] == "/second-zq"
    one.rest(DAY)
    assert members(one) == every - {"two_codes"}, "a part of it is kept shorter"
    one.rest(3 * DAY - 1)
    assert one.profile(ANN).computed["paths"] == ["/first-zq", "/second-zq"] and b"/first-zq" in kept(one)
    one.rest(3 * DAY)
    assert one.profile(ANN).computed["paths"] == ["/second-zq"]
    assert b"/first-zq" not in kept(one), "not with the next event: now"
    one.rest(3 * DAY + HOUR - 1)
    assert members(one) == every - {"two_codes"}
    one.rest(3 * DAY + HOUR)
    assert members(one) == set() and "paths" not in one.profile(ANN).computed
    for name in ("readers", "in_order", "warm", "this_year", "since_then"):
        left = one.segment_changes(name)[-1]
        assert (left.change, left.cause, left.at) == ("exited", "timer", NOON + 3 * DAY + HOUR), name
    assert b"/second-zq" not in kept(one)
    one.rest(3 * DAY + 2 * HOUR)
    assert not any(leaves_of(one)), "the cart was the last of it"
    one.check()


def leaves_of(one: World) -> list[dict[str, Any]]:
    """The leaf states of every fragment there is."""
    return [part.leaves for _, state, _ in one.tasks for part in _fragments(state.values)]


def _fragments(values: dict[bytes, Any]) -> Iterator[Any]:
    for value in values.values():
        found = value if hasattr(value, "totals") else getattr(value, "own", None)
        if isinstance(found, bytes):
            found = decode_fragment(found)
        if found is not None and hasattr(found, "leaves"):
            yield found


SCORES = (
    {"computed": "churn", "compute": {"function": "prediction", "model": "m"}},
    {"segment": "leaving", "when": {"computed": {"churn": {"equals": "high-zq"}}}},
)


@pytest.mark.parametrize("said", ["{retention: 3d}", "{properties: {value: {retention: 3d}}}"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_score_goes_at_its_instant_though_its_model_says_nothing_of_that(seed: int, said: str) -> None:
    one = counting(seed, SCORES, f"contract: shop\nevents:\n  Score: {said}")
    one.send(TAB, at=0, event="Score", properties={"model": "m", "value": "high-zq"})
    one.send(ANN, TAB, at=HOUR, event="Login")
    one.rest(3 * DAY - 1)
    assert one.profile(ANN).computed == {"churn": "high-zq"} and b"high-zq" in kept(one)
    one.rest(3 * DAY)
    assert one.profile(ANN).computed == {} and b"high-zq" not in kept(one)
    left = one.segment_changes("leaving")[-1]
    assert (left.change, left.cause, left.at) == ("exited", "timer", NOON + 3 * DAY)
    # One that its model ends sooner; and one that comes late, and may be kept no longer.
    score = {"model": "m", "value": "high-zq", "valid_until": NOON + 5 * DAY}
    one.send(ANN, at=4 * DAY, event="Score", properties=score)
    one.rest(5 * DAY - 1)
    assert one.members("leaving") == {id_of(ANN)}
    one.rest(5 * DAY)
    assert one.members("leaving") == set()
    one.rest(8 * DAY)
    one.send(ANN, at=4 * DAY + 1, received=8 * DAY, event="Score", properties={"model": "m", "value": "high-zq"})
    one.rest(8 * DAY + MINUTE)
    assert one.members("leaving") == set() and b"high-zq" not in kept(one)
    one.check()


@pytest.mark.parametrize("seed", range(40))
def test_what_has_had_its_time_on_its_way_into_a_profile_is_not_shown_there(seed: int) -> None:
    one = world(seed)
    one.send(TAB, at=0, event="Identify", kind="identify", traits={"city": "Gent"})
    one.rest(MINUTE)
    one.send(ANN, TAB, at=2 * DAY - 1)
    one.work(seed % 10)
    for name in (ANN, TAB, MAIL):
        one.send(name, at=2 * DAY)
    one.rest(2 * DAY)
    one.rest(2 * DAY + 1)
    assert one.profile(ANN).traits == {} and one.members("in_gent") == set()
    shown = [change for change in one.profile_changes() if "city" in change.set.get("traits", {})]
    assert all(change.decided_at < NOON + 2 * DAY for change in shown)
    one.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_of_the_last_events_those_go_that_are_not_known_any_more(seed: int) -> None:
    one = counting(seed)
    one.send(ANN, at=0, properties={"path": "/a"})
    one.send(ANN, at=HOUR, event="Login")
    one.rest(MINUTE + HOUR)
    assert sum(len(part.recent) for _, state, _ in one.tasks for part in _fragments(state.values)) == 2 * 28
    one.rest(3 * DAY)
    assert sum(len(part.recent) for _, state, _ in one.tasks for part in _fragments(state.values)) == 28


@pytest.mark.parametrize("seed", SEEDS)
def test_a_late_event_that_may_be_kept_no_longer_is_counted_by_no_rule(seed: int) -> None:
    one = counting(seed)
    one.send(ANN, at=0, event="Login")
    one.rest(5 * DAY)
    one.send(ANN, at=DAY, received=5 * DAY + SECOND, properties={"path": "/late-zq"})
    one.rest(5 * DAY + MINUTE)
    assert members(one) == set() and one.segment_changes("readers") == []
    assert b"/late-zq" not in kept(one)
    one.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_account_counts_what_its_people_did_no_longer_either(seed: int) -> None:
    busy = {
        "segment": "busy",
        "entity": "account",
        "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 2}}},
    }
    one = counting(seed, (busy,))
    one.send(ANN, at=0, event="Group", kind="group", group_id="acme")
    one.send(ANN, at=HOUR, properties={"path": "/a"})
    one.send(ANN, at=2 * HOUR, properties={"path": "/b"})
    one.rest(3 * HOUR)
    assert len(one.members("busy")) == 1
    one.rest(3 * DAY + HOUR - 1)
    assert len(one.members("busy")) == 1
    one.rest(3 * DAY + HOUR)
    assert one.members("busy") == set()
    one.rest(3 * DAY + 3 * HOUR)
    assert not any(leaves_of(one))
    one.check()


def test_a_computed_trait_waits_for_nothing_of_what_is_gone_whoever_was_at_hand() -> None:
    year = {"function": "count", "event": "Page Viewed", "calendar": {"unit": "year", "current": False}}
    visits = {"computed": "visits", "compute": year}
    recent = {"segment": "recent", "when": {"performed": {"event": "Login", "within": "4d"}}}
    entries = []
    for lose in (0.0, 1.0):
        one = World((), 1, 1)
        plan = compiled((visits, recent), 0, None, Keeps({"Page Viewed": 3 * DAY}, {}))
        one.generations[0] = dataclasses.replace(one.generations[0], segments=plan, contracts=contracts())
        one.lose = lose
        one.send(ANN, at=0)
        one.send(ANN, at=HOUR, event="Login")
        for at in (2 * DAY, 3 * DAY + 1, 5 * DAY):
            one.rest(at)
        entries.append([actor.wake for key, actor in one.tasks[1][1].values.items() if key[:1] == b"a"])
    assert entries == [[0], [0]]
