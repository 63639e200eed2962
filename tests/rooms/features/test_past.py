"""Features as of a past time are those of a system that was stopped then, whatever came later."""

import random
from dataclasses import replace

import msgspec
import pytest

from pipeline.accounts import AccountRules
from pipeline.definitions.apply import plan_apply
from pipeline.definitions.catalog import Catalog, records
from pipeline.definitions.loader import load_text
from pipeline.definitions.log import checked_leaves
from pipeline.features.export import always_there
from pipeline.features.past import Happened, profiles_at
from pipeline.features.table import table
from pipeline.identity import builtin_rules
from pipeline.plans import GenerationPlan
from pipeline.records import Event, ProfileDocument, Unlink, decode_events_record, encode
from tests.rooms.unify.harness import DAY, HOUR, KEYS, MINUTE, NOON, SECOND, World

DEFINITIONS = (
    {"computed": "orders_7d", "compute": {"function": "count", "event": "Order Completed", "within": "7d"}},
    {"computed": "spent", "compute": {"function": "sum", "event": "*", "of": "properties.total"}},
    {"segment": "quiet", "when": {"not": {"performed": {"event": "*", "within": "1d"}}}},
    {"segment": "team", "entity": "account", "when": {"members": {"match": {"all": []}, "at_least": 2}}},
)
ACCOUNTS = AccountRules(email_domains=True)


def rows(documents: dict[str, ProfileDocument]) -> list[dict[str, object]]:
    found = []
    for entity in ("person", "account"):
        made = table(
            documents,
            NOON,
            entity=entity,
            computed=["orders_7d", "spent", "people"],
            segments=["quiet", "team"],
            namespaces=["user_id"],
        )
        names = list(made.columns)
        found += [dict(zip(names, values, strict=True)) for values in zip(*made.columns.values(), strict=True)]
    return found


@pytest.mark.parametrize("seed", range(6))
def test_nothing_later_is_in_them(seed: int) -> None:
    rng = random.Random(seed)
    world = World(DEFINITIONS, seed, accounts=ACCOUNTS)
    people = [f"user_id:u{n}" for n in range(4)]
    others = ["anonymous_id:a0", "anonymous_id:a1", "email:e@acme.com", "email:f@acme.com"]

    def happen(start: int, count: int) -> None:
        for number in range(count):
            at = start + number * 5 * MINUTE
            who = [rng.choice(people)] if rng.random() < 0.7 else [rng.choice(others)]
            if rng.random() < 0.4:
                who.append(rng.choice(others))
            world.send(
                *sorted(set(who), key=lambda one: (not one.startswith("user"), one)),
                event=rng.choice(("Order Completed", "Page Viewed")),
                properties={"total": rng.randint(1, 9)},
                traits={"plan": rng.choice(("free", "pro"))},
                # What is received later may have happened long before.
                at=at - rng.choice((0, 0, HOUR, 2 * DAY)),
                received=at,
            )

    happen(0, 20)
    decided = Unlink(people[0], NOON + 2 * HOUR)
    world.operate(decided)
    stop = 3 * DAY
    world.rest(stop)
    stopped = rows(world.profiles())
    happen(stop + SECOND, 20)
    world.rest(stop + 9 * DAY)
    assert rows(world.profiles()) != stopped

    history = [
        Happened(event.received, "events", key, value)
        for partition in world.logs["events"]
        for key, value in partition
        if (event := decode_events_record(value)).__class__.__name__ == "Event"
    ]
    history.append(Happened(decided.received, "identity-edges", None, msgspec.json.encode(decided)))
    history.sort(key=lambda one: one.received)
    plan = replace(world.generations[0])
    assert isinstance(plan, GenerationPlan) and plan.identity == builtin_rules()
    assert rows(profiles_at(NOON + stop, history, KEYS, plan)) == stopped


def test_segments_that_ask_for_accounts_are_in_them_in_whatever_generation_they_were_defined() -> None:
    texts = (
        "segment: other\nwhen: {all: []}",
        "segment: enterprise\nwhen: {account: {trait: {plan: enterprise}, in_segment: teams}}\n---\n"
        "segment: no_enterprise\nwhen: {not: {in_segment: enterprise}}\n---\n"
        "segment: teams\nentity: account\nwhen: {members: {match: {all: []}, at_least: 2}}",
    )
    catalog = Catalog()
    for text in texts:
        planned = plan_apply(catalog, load_text(text), leaves_of=checked_leaves, applied_at=1)
        for key, value in records(planned.definitions, planned.generation):
            catalog.add(key, value)
    assert catalog.latest.number == 2

    history = [
        Happened(
            NOON + number,
            "events",
            KEYS.actor(f"user_id:{who}"),
            encode(
                Event(
                    f"m{number}",
                    "group",
                    "Group",
                    [f"user_id:{who}"],
                    NOON + number,
                    NOON + number,
                    properties={"plan": plan},
                    group_id=account,
                )
            ),
        )
        for number, (who, account, plan) in enumerate(
            (("ada", "acme", "enterprise"), ("bob", "acme", "enterprise"), ("eve", "zoo", "enterprise"))
        )
    ]
    found = {
        one.identifiers[0].value: {name for name in one.segments if name != "other"}
        for one in profiles_at(NOON + SECOND, history, KEYS, always_there(catalog)).values()
        if one.entity == "person"
    }
    assert found == {"ada": {"enterprise"}, "bob": {"enterprise"}, "eve": {"no_enterprise"}}
