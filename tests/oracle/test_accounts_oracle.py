"""The accounts oracle on examples worked out by hand, so that it is not only ever compared with the code it judges."""

from typing import Any

from pipeline.records import Event
from tests.oracle.accounts import AccountRules, AccountWorld, accounts_of
from tests.oracle.profiles import ExpectedProfile


def event(name: str, time: int, *, type: str = "track", group: str | None = None, **properties: Any) -> Event:
    return Event(f"m{time}", type, name, ["user_id:x"], time, time, properties=properties, group_id=group)


def person(*events: Event, identifiers: tuple[str, ...] = ("user_id:x",)) -> ExpectedProfile:
    return ExpectedProfile(identifiers[0], set(identifiers), events=list(events))


def world(people: dict[str, ExpectedProfile], definitions: list[dict[str, Any]], now: int = 100) -> AccountWorld:
    return AccountWorld(people, definitions, AccountRules(), lambda name: f"id-{name}", now)


def test_of_joining_and_leaving_the_newest_holds_and_at_once_leaving() -> None:
    joined, left = event("Group", 5, type="group", group="a"), event("Account Removed User", 5, group="a")
    assert accounts_of(person(joined), AccountRules(), 10) == {"a"}
    assert accounts_of(person(joined), AccountRules(), 4) == set()
    assert accounts_of(person(left, joined), AccountRules(), 10) == set()
    again = event("Group", 6, type="group", group="a")
    assert accounts_of(person(again, left, joined), AccountRules(), 10) == {"a"}


def test_addresses_tables_and_names_that_mean_the_same() -> None:
    rules = AccountRules(
        email_domains=True, free_mail=frozenset({"gmail.com"}), same={"acme": ["acme.com"]}, people={"user_id:x": "b"}
    )
    assert accounts_of(person(identifiers=("email:Ada@ACME.com", "email:a@gmail.com")), rules, 1) == {"acme"}
    assert accounts_of(person(), rules, 1) == {"b"}
    left = event("Account Removed User", 5, group="acme.com")
    assert accounts_of(person(left, identifiers=("email:a@acme.com",)), rules, 9) == set()


def test_people_are_counted_and_events_come_with_them() -> None:
    seen = [event("Page Viewed", 50 + n) for n in range(3)]
    group = event("Group", 90, type="group", group="a", plan="pro")
    people = {f"p{n}": person(seen[n], *([group] if n < 2 else [])) for n in range(3)}
    looked = {"performed": {"event": "Page Viewed"}}
    rules = [
        {"segment": "two", "entity": "account", "when": {"members": {"match": looked, "at_least": 2}}},
        {"segment": "three", "entity": "account", "when": {"members": {"match": looked, "at_least": 3}}},
        {
            "segment": "views",
            "entity": "account",
            "when": {"performed": {"event": "Page Viewed", "count": {"exactly": 2}}},
        },
        {"segment": "pros", "when": {"account": {"trait": {"plan": "pro"}, "in_segment": "two"}}},
        {"segment": "everyone", "entity": "account", "when": {"members": {"match": looked, "all": True}}},
    ]
    now = world(people, rules)
    found = {rule["segment"]: now.members(rule) for rule in rules}
    assert found == {"two": {"id-a"}, "three": set(), "views": {"id-a"}, "pros": {"p0", "p1"}, "everyone": {"id-a"}}
    before = world(people, rules, now=89)
    assert before.names == set() and before.members(rules[0]) == set()
