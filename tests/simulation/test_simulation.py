"""Some hundreds of seeds of every kind, and all that ever failed. More by `make simulate SEEDS=N FIRST=M`."""

import os
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pipeline.definitions.identity import parse_identity
from pipeline.identity import IdentityRules
from tests.simulation import deciding, pairs, run, score, transfers
from tests.simulation.people import Mix, people

SEEDS = int(os.environ.get("HEADWATER_SIMULATION_SEEDS", "1000"))
BLOCK = 100


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_worlds(first: int) -> None:
    failures = run.run_seeds(range(first, first + BLOCK), most_failures=3)
    assert not failures, "\n".join(f"{one.detail}\n  {one.command()}" for one in failures)


@pytest.mark.parametrize("seed", run.known_seeds())
def test_worlds_that_failed_once(seed: int) -> None:
    failure = run.try_seed(seed)
    assert failure is None, f"{failure.detail}\n  {failure.command()}"


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_the_identity_stage_decides_as_the_oracle(first: int) -> None:
    for seed in range(first, first + 250):
        detail = deciding.try_seed(seed)
        assert detail is None, f"{detail}\n  python -m tests.simulation.deciding --seeds 1 --first {seed}"


@pytest.mark.parametrize("first", range(0, 300, 50))
def test_segments_are_those_of_the_naive_evaluator(first: int) -> None:
    for seed in range(first, first + 50):
        detail = pairs.try_pair(seed)
        assert detail is None, f"{detail}\n  python -m tests.simulation.pairs --seeds 1 --first {seed}"


@pytest.mark.parametrize("first", range(0, 750, 250))
def test_fragments_in_flight_arrive_where_the_last_decision_says(first: int) -> None:
    for seed in range(first, first + 250):
        detail = transfers.try_seed(seed)
        assert detail is None, f"{detail}\n  python -m tests.simulation.transfers --seeds 1 --first {seed}"


@pytest.mark.parametrize("name", ["shipped", "strict"])
def test_the_identity_stage_agrees_with_the_oracle_on_people(name: str) -> None:
    in_force = score.rules_named(name)
    events = [event for _, event in score.ingested(people(3, 400), in_force)]
    rules = score.oracle_rules(in_force)
    names = score.names_by_stage(events, rules)
    who = score.resolution_of(events, rules)
    assert len(who.members) > 300
    assert {one: names.get(one, one) for one in who.name_of} == who.name_of


def rules_of_the_page() -> list[IdentityRules]:
    """The rules that the page about shared devices gives, in its order."""
    page = (Path(__file__).parents[2] / "docs/decisions/shared-devices.md").read_text()
    blocks = [each.partition("```")[0] for each in page.split("```yaml\n")[1:]]
    return [parse_identity(yaml.safe_load(each)).to_rules() for each in blocks]


def test_people_are_told_apart() -> None:
    """Where one in thirty has no account: by the strictest rules that the docs give for who fears wrong merges, and by
    those as shipped, under which a shared browser stays with whoever logged in first."""
    mix = Mix(shared_devices=0.05, junk=0.02, family_addresses=0.05, with_account=0.97)
    strict, strictest = rules_of_the_page()
    assert strict == score.rules_named("strict") != strictest
    ours, plain, ceiling = score.scores(1500, mix=mix, rules=strictest)
    assert ours.precision >= 0.99
    assert ours.recall >= 0.95
    assert plain.precision < 0.1
    assert ceiling.precision > ours.precision
    shipped, _, _ = score.scores(1500, mix=mix)
    assert ours.precision > shipped.precision >= 0.97
    assert shipped.recall >= 0.97


def test_strict_rules_put_hardly_anybody_together_who_does_not_belong_together() -> None:
    """Shared devices, family addresses and junk, pooled over several towns where everybody has an account."""
    mix = Mix(shared_devices=0.05, junk=0.02, family_addresses=0.05, with_account=1.0)
    true: list[tuple[int, int]] = []
    found: list[tuple[int, str]] = []
    wrong = 0
    for seed in (101, 102, 103, 104):
        judged = score.judge(people(seed, 400, mix), score.rules_named("strict"))
        true += [(seed, one) for one in judged.true]
        found += [(seed, one) for one in judged.found]
        wrong += judged.wrong_pairs().total()
        assert judged.by_identifiers().precision >= 0.99
    pooled = score.pairwise(true, found)
    assert pooled.precision >= 0.993
    assert pooled.recall >= 0.95
    # Every wrong pair has a kind.
    pairs = sum(count * (count - 1) // 2 for count in Counter(found).values())
    assert wrong == pairs - round(pooled.precision * pairs)
