"""What all people of an account did together: the tree says what a join of everybody says, and reads few of them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from pipeline.definitions.segments import compile_definitions
from pipeline.identifiers import Keys
from pipeline.records import Event
from pipeline.segments import SegmentsPlan
from pipeline.unify import together
from pipeline.unify.account_state import Person
from pipeline.unify.together import Together, join_all

KEYS = Keys(b"the secret of a tree")
PREFIX = b"p" + KEYS.actor("account:acme")
NOON = 1_700_000_000_000
RULES: list[dict[str, Any]] = [
    {"performed": {"event": "Viewed", "within": "7d", "count": {"at_least": 3}}},
    {"performed": {"event": "*", "sum": {"of": "properties.amount", "more_than": 100}}},
    {"performed": {"event": "Viewed", "max": {"of": "properties.amount", "more_than": 10}}},
    {"sequence": {"steps": [{"event": "Viewed"}, {"event": "Bought", "within": "1d"}]}},
]


def plan_of(*rules: dict[str, Any]) -> SegmentsPlan:
    of_accounts = [({"segment": f"s{n}", "entity": "account", "when": rule}, 1) for n, rule in enumerate(rules)]
    plan = compile_definitions(of_accounts).accounts
    assert plan is not None
    return plan


PLAN = plan_of(*RULES)


class People:
    """The records of an account's people, and how many of them were read."""

    def __init__(self) -> None:
        self.values: dict[bytes, Person] = {}
        self.read = 0

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Person]]:
        for key in sorted(self.values):
            if key.startswith(prefix):
                self.read += 1
                yield key, self.values[key]

    def places(self) -> Iterator[tuple[bytes, dict[str, Any]]]:
        for key, person in self.scan(PREFIX):
            yield key[len(PREFIX) :], person.leaves


def event(rng: random.Random, number: int) -> Event:
    at = NOON + rng.randrange(10**9)
    return Event(
        message_id=f"m{number}",
        type="track",
        event=rng.choice(("Viewed", "Bought", "Searched")),
        identifiers=["user_id:a"],
        time=at,
        received=at,
        source="raw/0/0",
        properties={"amount": rng.choice((1, 5, 20))},
    )


class World:
    """An account and what happens to its people."""

    def __init__(self, seed: int, before: int, plan: SegmentsPlan = PLAN) -> None:
        self.plan = plan
        self.rng = random.Random(seed)
        self.people: Any = People()
        self.number = 0
        for _ in range(before):
            self.new()
        self.tree = self.made_anew()

    def made_anew(self) -> Together:
        return Together(PREFIX, self.plan, self.people.places())

    def new(self) -> tuple[bytes, dict[str, Any]]:
        self.number += 1
        place = KEYS.actor(f"user_id:{self.number}")
        leaves: dict[str, Any] = {}
        for _ in range(self.rng.choice((0, 1, 3))):
            self.plan.fold(leaves, self.event())
        self.people.values[PREFIX + place] = Person(1, f"user_id:{self.number}", "", leaves)
        return place, leaves

    def event(self) -> Event:
        self.number += 1
        return event(self.rng, self.number)

    def some(self) -> bytes:
        keys: list[bytes] = sorted(self.people.values)
        return self.rng.choice(keys)[len(PREFIX) :]

    def comes(self) -> None:
        place, leaves = self.new()
        self.tree.change(self.people, {}, {place: leaves})
        self.tree.count(self.people, place, 1)

    def goes(self, among: Sequence[bytes] = ()) -> None:
        place = self.rng.choice(among)[len(PREFIX) :] if among else self.some()
        gone = self.people.values.pop(PREFIX + place)
        self.tree.change(self.people, {place: gone.leaves}, {})
        self.tree.count(self.people, place, -1)

    def acts(self) -> None:
        place, done = self.some(), self.event()
        self.plan.fold(self.people.values[PREFIX + place].leaves, done)
        self.tree.fold(place, self.plan, done)

    def is_merged(self) -> None:
        """One takes the place of another, with what that one did: nothing is different for all."""
        if len(self.people.values) < 2:
            return
        old, new = self.rng.sample(sorted(self.people.values), 2)
        gone, there = self.people.values.pop(old), self.people.values[new]
        before = {old[len(PREFIX) :]: gone.leaves, new[len(PREFIX) :]: there.leaves}
        there.leaves = join_all(self.plan, (gone.leaves, there.leaves))
        different = self.tree.change(self.people, before, {new[len(PREFIX) :]: there.leaves})
        self.tree.count(self.people, old[len(PREFIX) :], -1)
        assert different == set()

    def check(self) -> None:
        assert self.tree.root == self.made_anew().root


@pytest.mark.parametrize("most_below", [1, 2, 32])
@pytest.mark.parametrize("seed", range(4))
def test_it_says_what_everybody_together_says(monkeypatch: pytest.MonkeyPatch, seed: int, most_below: int) -> None:
    monkeypatch.setattr(together, "_MOST_BELOW", most_below)
    world = World(seed, before=(0, 5, 60, 200)[seed])
    for _ in range(150):
        if not world.people.values:
            world.comes()
        world.rng.choice((world.comes, world.goes, world.acts, world.acts, world.is_merged))()
        world.check()
    while world.people.values:
        world.goes()
    assert world.tree.root == {}


@pytest.mark.parametrize("seed", range(4))
def test_what_is_too_old_to_be_among_the_newest_of_all_is_there_once_these_have_left(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(together, "_MOST_BELOW", 1)
    world = World(seed, 40, plan_of(RULES[0]))
    late = [key[len(PREFIX) :] for key in sorted(world.people.values)[:5]]
    for place in late:
        done = msgspec.structs.replace(world.event(), event="Viewed", time=NOON - 1, received=NOON - 1)
        world.plan.fold(world.people.values[PREFIX + place].leaves, done)
        world.tree.fold(place, world.plan, done)
    while len(world.people.values) > len(late):
        world.goes(among=sorted(world.people.values)[len(late) :])
        world.check()


def test_whoever_leaves_costs_what_a_few_people_cost() -> None:
    read = {}
    for size in (40, 4_000):
        world = World(1, size)
        world.people.read = 0
        for _ in range(20):
            world.goes()
        read[size] = world.people.read / 20
        world.check()
    assert read[4_000] <= together._MOST_BELOW
    assert read[40] <= together._MOST_BELOW
