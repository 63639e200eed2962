"""Any order of evidence, any batches, any layout of the state: what the definition says."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.identity import Bounds, IdentityRules, Link, Namespace, Sizes, builtin_rules, resolve
from pipeline.records import EraseRequest, Evidence, Release, Relink, RulesChanged, Unlink
from tests.rooms.identity.harness import World, rules_with, saw
from tests.rooms.identity.reference import Reference

NAMESPACES = ("user_id", "email", "device_id", "anonymous_id")
RULES: tuple[IdentityRules, ...] = (
    rules_with(quarantine_after=2),
    rules_with(Namespace("user_id", 10, unique=True, on_conflict="latest"), quarantine_after=3),
    rules_with(Namespace("email", 20, limit=2, on_conflict="latest"), Namespace("device_id", 40, limit=2)),
    rules_with(Namespace("email", 10, unique=True), quarantine_after=4),
    rules_with(Namespace("email", 20, limit=1), Namespace("anonymous_id", 50, limit=3, blocked=("^a1$",))),
    builtin_rules(),
    rules_with(
        Namespace("email", 20, person=True, quarantine_after=2),
        Namespace("device_id", 40, quarantine_after=1),
        quarantine_after=3,
    ),
    rules_with(Namespace("user_id", 10, unique=True, person=False), Namespace("email", 20, person=True)),
)
SIZES = (Sizes(), Sizes(inline=1), Sizes(inline=3, sweep=2, small=1))


def value(namespace: str, number: int) -> str:
    return f"{namespace}:a{number}@x.io" if namespace == "email" else f"{namespace}:a{number}"


identifiers = st.builds(value, st.sampled_from(NAMESPACES), st.integers(0, 3))
times = st.integers(0, 12)
evidence = st.builds(
    lambda a, b, first, later, route: saw(a, b, first, first + later, route),
    identifiers,
    identifiers,
    times,
    times,
    identifiers,
)
decisions = st.one_of(
    st.builds(Unlink, identifiers, times, st.one_of(identifiers, st.just("")), st.booleans()),
    st.builds(Relink, identifiers, times, st.one_of(identifiers, st.just(""))),
    st.builds(Release, identifiers, times),
    st.builds(EraseRequest, identifiers, times),
    st.builds(RulesChanged, st.integers(0, len(RULES) - 1), times),
)
logs = st.lists(st.one_of(evidence, evidence, evidence, decisions), max_size=60)
bounds = st.sampled_from((Bounds(), Bounds(neighbours=3), Bounds(members=3)))


def agree(world: World, reference: Reference) -> None:
    names = reference.names()
    assert {text: world.name(text) for text in names} == names


def run(records: list[Any], first: int, limits: Bounds, sizes: Sizes, check_each: bool = False) -> World:
    rules = dict(enumerate((*RULES[first:], *RULES[:first])))
    world = World(rules[0], limits, sizes)
    world.rules = rules
    reference = Reference(rules, limits.neighbours, limits.members)
    for record in records:
        reference.say(record)
        world.say(record)
        if check_each:
            agree(world, reference)
    agree(world, reference)
    return world


@settings(max_examples=400, deadline=None)
@given(logs, st.integers(0, len(RULES) - 1), bounds, st.sampled_from(SIZES))
def test_every_step_gives_what_resolving_everything_gives(
    records: list[Any], first: int, limits: Bounds, sizes: Sizes
) -> None:
    run(records, first, limits, sizes, check_each=True)


@settings(max_examples=300, deadline=None)
@given(st.lists(evidence, max_size=40), st.randoms(use_true_random=False), st.integers(0, len(RULES) - 1), bounds)
def test_the_order_and_repetition_of_evidence_change_nothing(
    records: list[Evidence], chance: random.Random, first: int, limits: Bounds
) -> None:
    shuffled = records + chance.sample(records, len(records) // 2)
    chance.shuffle(shuffled)
    one = run(records, first, limits, Sizes())
    other = run(shuffled, first, limits, Sizes(inline=2))
    texts = {text for record in records for text in (record.a, record.b)}
    assert {text: one.name(text) for text in texts} == {text: other.name(text) for text in texts}


@settings(max_examples=150, deadline=None)
@given(logs, st.lists(st.integers(1, 7), min_size=1), st.integers(0, len(RULES) - 1))
def test_batches_aborts_and_restarts_change_no_byte(records: list[Any], batches: list[int], first: int) -> None:
    one = run(records, first, Bounds(), Sizes(inline=3, sweep=2, small=1))
    other = World(one.rules[0], sizes=Sizes(inline=3, sweep=2, small=1))
    other.rules = one.rules
    other.log = list(one.log)
    turn = 0
    while other.position < len(one.log):
        count = min(batches[turn % len(batches)], len(one.log) - other.position)
        if turn % 3 == 1:
            other.abort(count)
        if turn % 4 == 3:
            other.restart()
        before = len(other.log)
        other.consume(count)
        del other.log[before:]
        turn += 1
    assert other.messages == one.messages
    assert other.conflicts == one.conflicts
    assert other.decisions == one.decisions
    assert other.store.values == one.store.values


@settings(max_examples=200, deadline=None)
@given(st.lists(evidence, max_size=40), st.integers(0, len(RULES) - 1), bounds)
def test_the_pure_resolution_is_the_definition(records: list[Evidence], first: int, limits: Bounds) -> None:
    rules = RULES[first]
    reference = Reference({0: rules}, limits.neighbours, limits.members)
    for record in records:
        reference.say(record)
    links = [Link(a, b, seen) for (a, b), seen in reference.counting().items()]
    resolution = resolve(links, rules, limits)
    names = {text: name for name, members in resolution.groups.items() for text in members}
    assert names == {text: name for text, name in reference.names().items() if text in names}
    followed = set(links) - {refusal.link for refusal in resolution.refused}
    assert all(names[link.a] == names[link.b] for link in followed)
    assert all(names[refusal.link.a] != names[refusal.link.b] for refusal in resolution.refused)


@settings(max_examples=150, deadline=None)
@given(st.lists(evidence, max_size=30), st.lists(evidence, min_size=1, max_size=4), st.integers(0, len(RULES) - 1))
def test_what_was_linked_and_unlinked_was_never_linked(
    records: list[Evidence], wrong: list[Evidence], first: int
) -> None:
    wrong = [link for link in wrong if link.a != link.b]
    pairs = {(link.a, link.b) for link in wrong}
    kept = [record for record in records if (record.a, record.b) not in pairs]
    never = World(rules := rules_with(quarantine_after=99))
    never.say(*kept)
    undone = World(rules, sizes=Sizes(inline=2))
    half = len(kept) // 2
    undone.say(*kept[:half], *wrong, *kept[half:], *(Unlink(a, 1_000, b) for a, b in sorted(pairs)))
    texts = {text for record in records + wrong for text in (record.a, record.b)}
    assert {text: undone.name(text) for text in texts} == {text: never.name(text) for text in texts}


def random_log(chance: random.Random, length: int, decided: float) -> list[Any]:
    """A dense log: few identifiers, much evidence, late and repeated, and decisions in between."""
    size = chance.choice((2, 4, 8))
    spans = chance.choice((3, 30, 1_000))

    def identifier() -> str:
        return value(chance.choices(NAMESPACES, (3, 3, 2, 4))[0], chance.randrange(size))

    log: list[Any] = []
    for now in range(length):
        first = chance.choice((now, chance.randrange(spans), chance.randrange(now + 1)))
        if chance.random() >= decided:
            last = max(first, chance.choice((now, now, now // 2)))
            log.append(saw(identifier(), identifier(), first, last, identifier()))
            continue
        other = chance.choice((identifier(), ""))
        log.append(
            chance.choice(
                (
                    Unlink(identifier(), chance.choice((now, 2 * now)), other, chance.random() < 0.2),
                    Unlink(identifier(), now, other),
                    Relink(identifier(), now, other),
                    Release(identifier(), now),
                    EraseRequest(identifier(), now),
                    RulesChanged(chance.randrange(len(RULES)), now),
                )
            )
        )
    return log


LIMITS = (Bounds(), Bounds(), Bounds(neighbours=5), Bounds(members=4), Bounds(neighbours=4, members=5))


def fuzz(seed: int) -> World:
    """One random log under random rules, checked after every record."""
    chance = random.Random(seed)
    records = random_log(chance, chance.choice((20, 60, 150)), chance.choice((0, 0.02, 0.15)))
    return run(records, chance.randrange(len(RULES)), chance.choice(LIMITS), chance.choice(SIZES), check_each=True)


def test_dense_random_logs_give_what_the_definition_says_and_take_every_path() -> None:
    taken: dict[str, int] = {}
    for seed in range(150):
        try:
            counters = fuzz(seed).stage.counters
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        for name in counters.__slots__:
            taken[name] = taken.get(name, 0) + getattr(counters, name)
    assert all(taken.values()), taken
