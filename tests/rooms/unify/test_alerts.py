"""Alerts, and who belongs to an account, as tables: one thing that happens a line, and what is true after it."""

from typing import Any, NamedTuple

import msgspec
import pytest

from pipeline.accounts import FREE_MAIL, AccountRules, Alert
from pipeline.records import AccountAlert, EraseRequest, Unlink
from tests.rooms.unify.harness import DAY, MINUTE, NOON, World

LOOKED = {
    "performed": {"event": "Page Viewed", "where": {"properties.path": {"starts_with": "/pricing"}}, "within": "7d"}
}
WARM = {"segment": "warm", "entity": "account", "when": {"members": {"match": LOOKED, "at_least": 2}}}
_alert = msgspec.json.Decoder(AccountAlert).decode


class After(NamedTuple):
    """What happens, and then: how many alerts there were by now, which accounts are warm, how many people each has."""

    what: str
    alerts: int
    warm: str = ""
    people: str = ""


SCENARIOS: dict[str, tuple[After, ...]] = {
    "a threshold that is crossed is told once": (
        After("a joins acme", 0, people="acme 1"),
        After("b joins acme", 0, people="acme 2"),
        After("c joins acme", 0, people="acme 3"),
        After("a looks", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("c looks", 1, "acme"),
        After("a looks", 1, "acme"),
    ),
    "it is told again when it was left and is entered anew": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("8 days pass", 1),
        After("a looks", 1),
        After("b looks", 2, "acme"),
    ),
    "a visitor who turns out to be of the company has looked for it": (
        After("a looks", 0),
        After("b looks", 0),
        After("ann@acme.com is a", 0, people="acme.com 1"),
        After("bob@acme.com is b", 1, "acme.com", "acme.com 2"),
    ),
    "free mail is no company": (
        After("ann@gmail.com is a", 0),
        After("bob@gmail.com is b", 0),
        After("a looks", 0),
        After("b looks", 0, people="gmail.com -"),
        After("ann@post.example looks", 0),
        After("bob@post.example looks", 0, people="post.example -"),
    ),
    "a tie that comes late has the effect it would have had": (
        After("a looks", 0),
        After("b looks", 0),
        After("a joins acme", 0),
        After("b joined acme 3 days ago", 1, "acme", "acme 2"),
    ),
    "an older word changes nothing": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("b left acme 3 days ago", 1, "acme", "acme 2"),
        After("b leaves acme", 1, "", "acme 1"),
        After("b joined acme 2 days ago", 1, "", "acme 1"),
    ),
    "an event says more than a domain": (
        After("ann@acme.com looks", 0, people="acme.com 1"),
        After("bob@acme.com looks", 1, "acme.com", "acme.com 2"),
        After("bob@acme.com leaves acme.com", 1, "", "acme.com 1"),
        After("bob@acme.com looks", 1, "", "acme.com 1"),
    ),
    "who changes company takes along what they did": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("c joins zoo", 0),
        After("c looks", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("b leaves acme", 1, "", "acme 1, zoo 1"),
        After("b joins zoo", 2, "zoo", "acme 1, zoo 2"),
    ),
    "who belongs to two counts for both": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a joins zoo", 0),
        After("b joins zoo", 0),
        After("a looks", 0),
        After("b looks", 2, "acme zoo", "acme 2, zoo 2"),
    ),
    "an account of several names is one": (
        After("ann@many.de looks", 0, people="many 1"),
        After("b joins many", 0, people="many 2"),
        After("b looks", 1, "many", "many 2"),
        After("c joins 4711", 1, "many", "many 3"),
    ),
    "two browsers that turn out to be one person are one": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme", "acme 2"),
        After("u is a", 1, "acme", "acme 2"),
        After("u is b", 1, "", "acme 1"),
    ),
    "an unlink gives both people back, and alerts nobody": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("u is a", 1, "acme"),
        After("u is b", 1, "", "acme 1"),
        After("u is not b", 1, "acme", "acme 2"),
    ),
    "a login does not repeat an alert": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("u is a", 1, "acme"),
        After("v is b", 1, "acme", "acme 2"),
    ),
    "somebody leaves, and comes back": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("b leaves acme", 1, "", "acme 1"),
        After("a leaves acme", 1, "", "acme 0"),
        After("b joins acme", 1, "", "acme 1"),
        After("a joins acme", 2, "acme", "acme 2"),
    ),
    "who is erased has not looked": (
        After("a joins acme", 0),
        After("b joins acme", 0),
        After("a looks", 0),
        After("b looks", 1, "acme"),
        After("b is erased", 1, "", "acme 1"),
        After("c joins acme", 1),
        After("c looks", 2, "acme", "acme 2"),
    ),
}
RULES = AccountRules(
    email_domains=True,
    free_mail=FREE_MAIL | {"post.example"},
    same={"many.de": "many", "4711": "many"},
    alerts={"warm": (Alert("call", "warm"),)},
)


def identifier(word: str) -> str:
    if "@" in word:
        return f"email:{word}"
    return f"user_id:{word}" if word in "uvw" else f"anonymous_id:{word}"


def happen(world: World, what: str, at: int) -> int:
    """One line of a scenario. Gives the time after it."""
    match what.split():
        case [days, "days", "pass"]:
            return at + int(days) * DAY
        case [who, "looks"]:
            world.send(identifier(who), properties={"path": "/pricing"}, at=at)
        case [who, "joins", account]:
            world.send(identifier(who), event="Group", kind="group", group_id=account, at=at)
        case [who, "joined", account, days, "days", "ago"]:
            then = at - int(days) * DAY
            world.send(identifier(who), event="Group", kind="group", group_id=account, at=then, received=at)
        case [who, "leaves", account]:
            world.send(identifier(who), event="Account Removed User", group_id=account, at=at)
        case [who, "left", account, days, "days", "ago"]:
            then = at - int(days) * DAY
            world.send(identifier(who), event="Account Removed User", group_id=account, at=then, received=at)
        case [who, "is", "erased"]:
            world.operate(EraseRequest(identifier(who), NOON + at))
        case [who, "is", "not", other]:
            one, two = sorted((identifier(who), identifier(other)))
            world.operate(Unlink(one, NOON + at, two))
        case [who, "is", other]:
            world.send(identifier(who), identifier(other), event="Identify", kind="identify", at=at)
        case _:
            raise AssertionError(what)
    return at


def alerts(world: World) -> list[AccountAlert]:
    return [_alert(value) for value in world.said.get("account-alerts", [])]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", SCENARIOS)
def test_scenarios(name: str, seed: int) -> None:
    world, at = World((WARM,), seed, accounts=RULES), 0
    for line in SCENARIOS[name]:
        at = happen(world, line.what, at + MINUTE)
        world.rest(at + MINUTE)
        at += MINUTE
        warm = sorted(
            document.identifiers[0].value
            for profile_id, document in world.profiles().items()
            if profile_id in world.members("warm")
        )
        assert (line.what, len(alerts(world)), " ".join(warm)) == (line.what, line.alerts, line.warm)
        for account, count in (pair.split() for pair in line.people.split(", ") if pair):
            shown = world.document(f"account:{account}")
            assert (line.what, str(shown.computed["people"]) if shown is not None else "-") == (line.what, count)
    world.check()


OWNERS: tuple[tuple[Alert, dict[str, Any], str], ...] = (
    (Alert("call", "warm"), {}, ""),
    (Alert("call", "warm", fallback="sales@x.org"), {}, "sales@x.org"),
    (Alert("call", "warm", fallback="sales@x.org"), {"owner": "ann"}, "ann"),
    (Alert("call", "warm", fallback="sales@x.org"), {"owner": ""}, "sales@x.org"),
    (Alert("call", "warm", fallback="sales@x.org"), {"owner": 7}, "sales@x.org"),
    (Alert("call", "warm", fallback="sales@x.org"), {"owner": None}, "sales@x.org"),
    (Alert("call", "warm", owner="rep", fallback="sales@x.org"), {"owner": "ann", "rep": "bob"}, "bob"),
    (Alert("call", "warm", traits=("plan", "country")), {"plan": "team", "size": 3}, ""),
)


@pytest.mark.parametrize(("alert", "traits", "owner"), OWNERS)
def test_an_alert_goes_to_the_owner(alert: Alert, traits: dict[str, Any], owner: str) -> None:
    world = World((WARM,), accounts=AccountRules(alerts={"warm": (alert,)}))
    world.send("user_id:u", event="Group", kind="group", group_id="acme", properties=traits)
    world.send("user_id:v", event="Group", kind="group", group_id="acme")
    world.send("user_id:u", properties={"path": "/pricing"}, at=MINUTE)
    world.send("user_id:v", properties={"path": "/pricing"}, at=2 * MINUTE)
    world.rest(3 * MINUTE)
    [told] = alerts(world)
    assert (told.owner, told.account, told.alert) == (owner, "acme", "call")
    assert told.traits == {name: traits[name] for name in alert.traits if name in traits}
    [change] = world.segment_changes("warm")
    assert (told.at, told.sequence, told.context) == (change.at, change.sequence, change.context)
    assert told.context["people"] == 2 and told.context["matches"][0]["people"] == 2


@pytest.mark.parametrize(("again_after", "told"), [(0, 3), (30 * MINUTE, 2), (DAY, 1)])
def test_not_again_within_again_after(again_after: int, told: int) -> None:
    rules = AccountRules(alerts={"warm": (Alert("call", "warm", again_after_ms=again_after),)})
    world = World((WARM,), accounts=rules)
    for name in "ab":
        happen(world, f"{name} joins acme", 0)
        happen(world, f"{name} looks", 1)
    world.rest(MINUTE)
    for number in range(1, 3):
        happen(world, "b leaves acme", number * 20 * MINUTE)
        world.rest(number * 20 * MINUTE)
        happen(world, "b joins acme", number * 20 * MINUTE + MINUTE)
        world.rest(number * 20 * MINUTE + MINUTE)
    assert len(alerts(world)) == told
    assert [change.change for change in world.segment_changes("warm")] == ["entered", "exited"] * 2 + ["entered"]


def test_a_new_rule_and_a_new_alert_alert_nobody() -> None:
    world = World((), accounts=RULES)
    for name in "ab":
        happen(world, f"{name} joins acme", 0)
        happen(world, f"{name} looks", 1)
    world.rest(MINUTE)
    world.define((WARM,))
    world.mark(1, 2 * MINUTE)
    world.rest(3 * MINUTE)
    assert [change.cause for change in world.segment_changes("warm")] == ["backfill"]
    assert alerts(world) == []
