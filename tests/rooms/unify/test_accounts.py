"""Accounts by name: who belongs to one, what its segments say, and what people hear of it."""

from typing import Any

import pytest

from pipeline.accounts import AccountRules
from pipeline.records import EraseRequest, Unlink
from tests.rooms.unify.harness import DAY, HOUR, NOON, SECOND, World, id_of

PRICING = {"properties.path": {"starts_with": "/pricing"}}
SEEN = {"performed": {"event": "Page Viewed", "where": PRICING, "within": "7d"}}
WARM = {"segment": "warm", "entity": "account", "when": {"members": {"match": SEEN, "at_least": 3}}}
TRIAL = {"segment": "trial", "entity": "account", "when": {"performed": {"event": "Trial Requested", "within": "30d"}}}
QUIET = {"segment": "quiet", "entity": "account", "when": {"not": {"performed": {"event": "*", "within": "30d"}}}}
ACME = id_of("account:acme")
WORK = AccountRules(email_domains=True)


def joined(world: World, person: str, account: str = "acme", at: int = 0, **traits: Any) -> None:
    world.send(person, event="Group", kind="group", group_id=account, properties=traits, at=at)


def priced(world: World, *identifiers: str, at: int = 0) -> None:
    world.send(*identifiers, properties={"path": "/pricing"}, at=at)


@pytest.mark.parametrize("seed", range(5))
def test_the_third_person_makes_it_warm(seed: int) -> None:
    world = World((WARM,), seed)
    for name in ("a", "b", "c"):
        joined(world, f"user_id:{name}", plan="free")
    priced(world, "user_id:a", at=1)
    priced(world, "user_id:a", at=2)
    priced(world, "user_id:b", at=3)
    world.rest(SECOND)
    assert world.members("warm") == set()
    priced(world, "user_id:c", at=2 * SECOND)
    world.rest(3 * SECOND)
    assert world.members("warm") == {ACME}
    [change] = world.segment_changes("warm")
    assert (change.entity, change.at, change.cause) == ("account", NOON + 2 * SECOND, "event")
    assert change.context["people"] == 3
    assert {one["profile_id"] for one in change.context["matches"][0]["who"]} == {id_of(f"user_id:{n}") for n in "abc"}
    shown = world.profile("account:acme")
    assert (shown.entity, shown.traits, shown.computed) == ("account", {"plan": "free"}, {"people": 3})
    assert world.profile("user_id:a").accounts == ["acme"]
    world.rest(7 * DAY + 2)
    left = world.segment_changes("warm")[-1]
    assert (left.change, left.at, left.cause) == ("exited", NOON + 7 * DAY + 2, "timer")
    world.check()


@pytest.mark.parametrize("seed", range(5))
def test_a_merge_makes_two_people_one(seed: int) -> None:
    world = World((WARM,), seed)
    for name in ("a", "b", "c"):
        joined(world, f"anonymous_id:{name}")
        priced(world, f"anonymous_id:{name}", at=1)
    world.rest(SECOND)
    assert world.members("warm") == {ACME}
    world.send("user_id:u", "anonymous_id:a", at=2 * SECOND)
    world.send("user_id:u", "anonymous_id:b", at=2 * SECOND)
    world.rest(3 * SECOND)
    assert world.members("warm") == set()
    assert world.profile("account:acme").computed == {"people": 2}
    world.operate(Unlink("anonymous_id:a", NOON + 4 * SECOND, "user_id:u"))
    world.rest(5 * SECOND)
    assert world.members("warm") == {ACME}
    world.check()


@pytest.mark.parametrize("seed", range(5))
def test_who_looked_before_signing_up_has_looked_for_the_company(seed: int) -> None:
    world = World((WARM,), seed, accounts=WORK)
    for name in ("a", "b", "c"):
        priced(world, f"anonymous_id:{name}")
    world.rest(SECOND)
    assert world.document("account:acme.com") is None
    for name in ("a", "b", "c"):
        world.send(f"email:{name}@acme.com", f"anonymous_id:{name}", at=2 * SECOND, event="Identify", kind="identify")
    world.send("email:x@gmail.com", at=2 * SECOND)
    world.rest(3 * SECOND)
    assert world.members("warm") == {id_of("account:acme.com")}
    assert world.document("account:gmail.com") is None
    world.check()


def test_somebody_leaves() -> None:
    world = World((WARM, QUIET), accounts=WORK)
    for name in ("a", "b", "c"):
        joined(world, f"user_id:{name}")
        priced(world, f"user_id:{name}", at=1)
    world.rest(SECOND)
    assert world.members("warm") == {ACME} and world.members("quiet") == set()
    # They had left before they came: a late word of it changes nothing.
    world.send("user_id:a", event="Account Removed User", group_id="acme", at=-1, received=2 * SECOND)
    world.rest(3 * SECOND)
    assert world.members("warm") == {ACME}
    world.send("user_id:a", event="Account Removed User", group_id="acme", at=4 * SECOND)
    world.rest(5 * SECOND)
    assert world.members("warm") == set()
    assert world.profile("user_id:a").accounts == []
    for name in ("b", "c"):
        world.send(f"user_id:{name}", event="Account Removed User", group_id="acme", at=6 * SECOND)
    world.rest(7 * SECOND)
    # A group event had named it, so it is still there, and nobody is active.
    assert world.members("quiet") == {ACME}
    world.check()


def test_an_account_without_people_that_nobody_named_is_gone() -> None:
    world = World((QUIET,), accounts=WORK)
    world.send("email:a@acme.com")
    world.rest(SECOND)
    assert world.profile("account:acme.com").computed == {"people": 1}
    world.operate(EraseRequest("email:a@acme.com", NOON + 2 * SECOND))
    world.rest(3 * SECOND)
    assert world.document("account:acme.com") is None
    world.check()


@pytest.mark.parametrize("seed", range(5))
def test_people_hear_of_their_account(seed: int) -> None:
    target = {"account": {"trait": {"plan": "enterprise"}, "in_segment": "trial"}}
    world = World((TRIAL, {"segment": "target", "when": target}), seed)
    joined(world, "user_id:a", plan="enterprise")
    joined(world, "user_id:b")
    joined(world, "user_id:b", "other", plan="enterprise")
    world.rest(SECOND)
    assert world.members("target") == set()
    world.send("user_id:a", event="Trial Requested", at=2 * SECOND)
    world.rest(3 * SECOND)
    assert world.members("target") == {id_of("user_id:a"), id_of("user_id:b")}
    joined(world, "user_id:c", at=4 * SECOND)
    world.rest(5 * SECOND)
    assert id_of("user_id:c") in world.members("target")
    world.send("user_id:b", event="Account Removed User", group_id="acme", at=6 * SECOND)
    world.rest(7 * SECOND)
    assert world.members("target") == {id_of("user_id:a"), id_of("user_id:c")}
    joined(world, "user_id:a", at=8 * SECOND, plan="free")
    world.rest(9 * SECOND)
    assert world.members("target") == set()
    world.check()


@pytest.mark.parametrize("seed", range(5))
def test_a_new_rule_about_accounts_is_filled_from_history(seed: int) -> None:
    world = World((), seed, accounts=WORK)
    for name in ("a", "b", "c"):
        priced(world, f"anonymous_id:{name}")
        world.send(f"email:{name}@acme.com", f"anonymous_id:{name}", at=SECOND)
    world.send("email:a@acme.com", event="Trial Requested", at=SECOND)
    world.rest(2 * SECOND)
    world.define((WARM, TRIAL))
    world.mark(1, 3 * SECOND)
    world.rest(4 * SECOND)
    account = id_of("account:acme.com")
    assert world.members("warm") == {account} and world.members("trial") == {account}
    assert {change.cause for change in world.segment_changes()} == {"backfill"}
    world.define((TRIAL,))
    world.mark(2, HOUR)
    world.rest(HOUR + SECOND)
    assert world.members("warm") == set()
    assert world.segment_changes("warm")[-1].cause == "definition"
    world.check()


@pytest.mark.parametrize("seed", range(10))
def test_a_new_rule_is_judged_when_all_people_have_come_along(seed: int) -> None:
    """Until then one of six would be the only one who has looked."""
    alone = {"segment": "alone", "entity": "account", "when": {"members": {"match": SEEN, "exactly": 1}}}
    world = World((), seed, partitions=4)
    for name in "abcdef":
        joined(world, f"user_id:{name}")
        priced(world, f"user_id:{name}", at=1)
    world.rest(SECOND)
    world.define((alone,))
    world.mark(1, 2 * SECOND)
    world.rest(3 * SECOND)
    assert world.segment_changes("alone") == []
    world.check()
