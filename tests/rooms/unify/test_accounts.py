"""Accounts by name: who belongs to one, what its segments say, and what people hear of it."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.accounts import AccountRules, belongs_to
from pipeline.records import Belongs, Cause, EraseRequest, Event, Unlink, encode
from pipeline.unify.account_state import Person
from tests.rooms.unify.harness import DAY, HOUR, KEYS, NOON, SECOND, World, id_of

PRICING = {"properties.path": {"starts_with": "/pricing"}}
SEEN = {"performed": {"event": "Page Viewed", "where": PRICING, "within": "7d"}}
WARM = {"segment": "warm", "entity": "account", "when": {"members": {"match": SEEN, "at_least": 3}}}
FIRST = {"segment": "first", "entity": "account", "when": {"members": {"match": SEEN, "any": True}}}
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
def test_an_account_is_never_judged_without_the_person_whose_group_event_named_it(seed: int) -> None:
    """A seller who is told of quiet accounts would hear of every new one."""
    nobody = {"segment": "nobody", "entity": "account", "when": {"members": {"match": {"all": []}, "none": True}}}
    paying = {"trait": {"plan": {"equals": "team"}}}
    idle = {"all": [paying, {"not": {"performed": {"event": "Page Viewed", "within": "30d"}}}]}
    free = {"all": [{"performed": {"event": "Page Viewed", "within": "30d"}}, {"not": paying}]}
    wanted = {"idle": idle, "free": free}
    segments = [{"segment": name, "entity": "account", "when": when} for name, when in wanted.items()]
    world = World((QUIET, nobody, *segments), seed)
    priced(world, "user_id:a")
    joined(world, "user_id:a", at=1, plan="team")
    world.rest(SECOND)
    assert world.profile("account:acme").traits == {"plan": "team"}
    priced(world, "user_id:b", at=2 * SECOND)
    joined(world, "user_id:b", account="beta", at=3 * SECOND)
    world.rest(4 * SECOND)
    joined(world, "user_id:a", account="beta", at=5 * SECOND, plan="team")
    world.rest(6 * SECOND)
    told = [change for change in world.segment_changes() if change.entity == "account"]
    beta = id_of("account:beta")
    assert [(one.segment, one.change, one.profile_id) for one in told] == [
        ("free", "entered", beta),
        ("free", "exited", beta),
    ]
    world.check()


@pytest.mark.parametrize("seed", range(5))
def test_what_time_alone_changed_before_somebody_was_let_go_was_decided_before(seed: int) -> None:
    """Both are found out together, long after: by the next message that the account has."""
    fresh = {"performed": {"event": "Trial Requested", "within": "5s"}}
    world = World(({"segment": "fresh", "entity": "account", "when": fresh},), seed)
    joined(world, "user_id:a")
    world.send("user_id:a", event="Trial Requested", at=SECOND)
    world.rest(2 * SECOND)
    assert world.members("fresh") == {ACME}
    moved, at = id_of("user_id:b"), NOON + 2 * SECOND
    gone = Belongs("account:acme", "user_id:a", id_of("user_id:a"), at, at, "merge", Cause(), gone=True, moved_to=moved)
    world.write("links", KEYS.actor("account:acme"), encode(gone))
    world.work()
    joined(world, "user_id:c", at=60 * SECOND)
    world.rest(61 * SECOND)
    told = [change for change in world.profile_changes() if change.profile_id == ACME]
    assert any(change.cause == "timer" for change in told) and any(change.cause == "merge" for change in told)
    assert [change.decided_at for change in told] == sorted(change.decided_at for change in told)
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


FREE_PLAN = {"not": {"account": {"trait": {"plan": "enterprise"}}}}


@pytest.mark.parametrize("seed", range(5))
def test_nobody_enters_before_their_account_has_answered(seed: int) -> None:
    """Neither does somebody new, in the moment between their first event and their account's word."""
    world = World(({"segment": "self_serve", "when": FREE_PLAN},), seed)
    joined(world, "user_id:a", plan="enterprise")
    joined(world, "user_id:b", "small", plan="free")
    world.send("user_id:c")
    world.rest(SECOND)
    assert world.members("self_serve") == {id_of("user_id:b"), id_of("user_id:c")}
    assert {change.profile_id for change in world.segment_changes("self_serve")} == world.members("self_serve")
    assert {change.cause for change in world.segment_changes("self_serve")} == {"event"}
    joined(world, "user_id:c", at=2 * SECOND)
    world.rest(3 * SECOND)
    assert world.members("self_serve") == {id_of("user_id:b")}
    assert [change.change for change in world.segment_changes("self_serve")] == ["entered", "entered", "exited"]
    world.check()


@pytest.mark.parametrize("seed", range(5))
def test_a_new_rule_waits_for_the_answers_of_accounts(seed: int) -> None:
    """They come when all people have come along: until then it would be true of everybody."""
    world = World((), seed, partitions=4)
    for name in "abcdef":
        joined(world, f"user_id:{name}", plan="enterprise")
    world.send("user_id:a", event="Trial Requested", at=1)
    joined(world, "user_id:z", "small")
    world.rest(SECOND)
    untried = {"segment": "untried", "when": {"not": {"account": {"in_segment": "trial"}}}}
    through = {"segment": "through", "when": {"all": [{"in_segment": "self_serve"}, {"in_segment": "untried"}]}}
    world.define((TRIAL, {"segment": "self_serve", "when": FREE_PLAN}, untried, through))
    world.mark(1, 2 * SECOND)
    world.rest(3 * SECOND)
    small = {id_of("user_id:z")}
    for segment in ("self_serve", "untried", "through"):
        assert world.members(segment) == small
        assert [change.profile_id for change in world.segment_changes(segment)] == sorted(small)
        assert {change.cause for change in world.segment_changes(segment)} == {"backfill"}
    # The same name for something else is another question.
    bought = {**TRIAL, "when": {"performed": {"event": "Bought", "within": "30d"}}}
    world.send("user_id:z", event="Bought", at=4 * SECOND)
    world.rest(5 * SECOND)
    world.define((bought, untried))
    world.mark(2, 6 * SECOND)
    world.rest(7 * SECOND)
    assert world.members("untried") == {id_of(f"user_id:{name}") for name in "abcdef"}
    assert len(world.segment_changes("untried")) == 1 + 6 + 1
    world.check()


def account_leaves(world: World, generation: int) -> set[str]:
    """The leaves of a generation's account segments."""
    plan = world.generations[generation].segments.accounts
    assert plan is not None
    return set(plan.leaves)


def leaves_kept_of(person: str, world: World, leaf_ids: set[str]) -> dict[str, bytes]:
    """What an account keeps of one of its people, as it is stored."""
    [kept] = [
        one
        for _, state, _ in world.tasks
        for one in state.values.values()
        if isinstance(one, Person) and one.person == person
    ]
    return {leaf_id: msgspec.msgpack.encode(kept.leaves[leaf_id]) for leaf_id in leaf_ids}


@pytest.mark.parametrize("seed", range(5))
def test_an_event_from_before_a_change_is_not_folded_twice(seed: int) -> None:
    """One that was passed on comes when its account has moved on: history has brought it to what is new already."""
    looked = {"segment": "looked", "entity": "account", "when": {"performed": {"event": "Page Viewed"}}}
    thrice = {**looked, "segment": "thrice", "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 3}}}}
    paid = {
        **looked,
        "segment": "paid",
        "when": {"performed": {"event": "Page Viewed", "sum": {"of": "properties.n", "more_than": 10}}},
    }
    world = World((thrice,), seed)
    for name in ("a", "b"):
        joined(world, f"user_id:{name}")
        world.send(f"user_id:{name}", at=1, properties={"n": 4})
    world.rest(SECOND)
    world.define((thrice, paid))
    world.mark(1, 2 * SECOND)
    world.rest(3 * SECOND)
    new = account_leaves(world, 1) - account_leaves(world, 0)
    before = leaves_kept_of("user_id:a", world, new)
    late = Belongs(
        account="account:acme",
        person="user_id:a",
        profile_id=id_of("user_id:a"),
        clock=NOON + 4 * SECOND,
        at=NOON + 2,
        cause="event",
        evidence=Cause("late", 0, 0),
        event=Event("late", "track", "Page Viewed", ["user_id:a"], NOON + 2, NOON + 2, "raw/0/9", properties={"n": 4}),
        generation=0,
    )
    world.write("links", KEYS.actor("account:acme"), encode(late))
    world.rest(5 * SECOND)
    assert world.members("thrice") == {ACME}
    assert world.members("paid") == set()
    # Nor in what is kept of the person, of which the account is made anew.
    assert new and leaves_kept_of("user_id:a", world, new) == before
    world.check()


@pytest.mark.parametrize("seed", range(20))
def test_a_person_in_pieces_is_the_same_to_an_account(seed: int) -> None:
    """Events split over identifiers that are linked later, in any order, change nothing (invariant 5, for accounts)."""
    rules = (
        WARM,
        TRIAL,
        {
            "segment": "busy",
            "entity": "account",
            "when": {"performed": {"event": "Page Viewed", "count": {"at_least": 6}}},
        },
        {
            "segment": "order",
            "entity": "account",
            "when": {"sequence": {"steps": [{"event": "Page Viewed"}, {"event": "Trial Requested", "within": "1h"}]}},
        },
        {"segment": "two", "entity": "account", "when": {"members": {"match": SEEN, "exactly": 2}}},
    )
    rng = random.Random(seed)
    people = ("a", "b", "c")
    events = [
        (
            rng.choice(people),
            rng.choice(("Page Viewed", "Page Viewed", "Trial Requested")),
            at * 100,
            rng.choice(("/pricing", "/")),
        )
        for at in range(rng.randrange(3, 14))
    ]

    def played(identifiers_of: Callable[[str], str], linked: bool) -> World:
        world = World(rules, seed, partitions=4)
        for name in people:
            joined(world, f"user_id:{name}")
        for name, event, at, path in rng.sample(events, len(events)):
            world.send(identifiers_of(name), event=event, at=at, received=2 * SECOND, properties={"path": path})
        if rng.random() < 0.5:
            world.rest(2 * SECOND)
        for name, cookie in [(name, f"{name}{n}") for name in people for n in range(3)] if linked else ():
            world.send(f"user_id:{name}", f"anonymous_id:{cookie}", event="Identify", kind="identify", at=3 * SECOND)
        world.rest(4 * SECOND)
        world.check()
        return world

    whole = played(lambda name: f"user_id:{name}", linked=False)
    pieces = played(lambda name: f"anonymous_id:{name}{rng.randrange(3)}", linked=True)
    for rule in rules:
        assert pieces.members(rule["segment"]) == whole.members(rule["segment"]), rule
    assert pieces.profile("account:acme").computed == whole.profile("account:acme").computed == {"people": 3}


def who_is_behind(world: World, segment: str) -> set[str]:
    """Whom the newest change of a segment of accounts shows behind it, by identifier."""
    told = world.segment_changes(segment)[-1].context["matches"][0]["who"]
    return {f"{pair['namespace']}:{pair['value']}" for one in told for pair in one["identifiers"]}


@pytest.mark.parametrize("seed", range(10))
def test_whoever_stands_behind_a_segment_is_shown_with_the_names_they_have_by_then(seed: int) -> None:
    """Also those that never had an event of their own, and not those that turned out to be another's."""
    world = World((FIRST,), seed)
    joined(world, "user_id:a")
    world.rest(SECOND)
    world.send("user_id:a", "email:a@acme.com", "anonymous_id:tab", at=SECOND)
    world.rest(2 * SECOND)
    priced(world, "user_id:a", at=2 * SECOND)
    world.rest(3 * SECOND)
    assert who_is_behind(world, "first") == {"user_id:a", "email:a@acme.com", "anonymous_id:tab"}
    world.operate(Unlink("anonymous_id:tab", NOON + 3 * SECOND, ""))
    world.rest(4 * SECOND)
    priced(world, "user_id:a", at=8 * DAY)
    world.rest(8 * DAY)
    assert who_is_behind(world, "first") == {"user_id:a", "email:a@acme.com"}
    world.check()


@pytest.mark.parametrize("seed", range(10))
def test_an_account_does_not_go_on_naming_somebody_erased_who_was_parted_before(seed: int) -> None:
    world = World((FIRST,), seed)
    joined(world, "user_id:a")
    world.send("user_id:a", "anonymous_id:tab", at=SECOND)
    world.rest(2 * SECOND)
    priced(world, "user_id:a", at=2 * SECOND)
    world.rest(3 * SECOND)
    world.operate(Unlink("anonymous_id:tab", NOON + 3 * SECOND, ""))
    world.rest(4 * SECOND)
    world.operate(EraseRequest("anonymous_id:tab", NOON + 4 * SECOND))
    world.rest(5 * SECOND)
    assert not is_named(world, b"tab")


@pytest.mark.parametrize("seed", range(10))
def test_an_account_forgets_somebody_erased_whose_profile_expires_just_then(seed: int) -> None:
    world = World((FIRST,), seed, expire_after_days=2)
    joined(world, "device_id:tab")
    world.rest(SECOND)
    assert is_named(world, b"tab")
    world.operate(EraseRequest("device_id:tab", NOON + 3 * DAY))
    world.rest(3 * DAY + SECOND)
    assert not is_named(world, b"tab")


def is_named(world: World, name: bytes) -> bool:
    """Whether the state of any task has this name."""
    return any(
        name in state.stage.encode(key, value) for _, state, _ in world.tasks[1:] for key, value in state.values.items()
    )


@pytest.mark.parametrize(
    ("address", "account"),
    [
        ("ann@acme.com", "acme.com"),
        ("ann@acme.com.", "acme.com"),
        ("ann@mail.acme.com", "mail.acme.com"),
        ("ann@bücher.example", "bücher.example"),
        ("ann@corp", "corp"),
        ("ann@gmail.com.", None),
        ('"ann@acme.com"', None),
        ("ann@[192.0.2.1]", None),
        ("<ann@acme.com>", None),
        ("ann@.", None),
    ],
)
def test_the_domain_of_a_work_address_ties_and_what_is_no_domain_does_not(address: str, account: str | None) -> None:
    assert belongs_to(WORK, {}, [f"email:{address}"]) == ([] if account is None else [account])
