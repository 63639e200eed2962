"""Accounts in the small worlds: who joins and leaves, random rules about accounts, and what must be true of them."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from pipeline.accounts import AccountRules as RoomRules
from pipeline.accounts import Alert as RoomAlert
from pipeline.records import AccountAlert, Event, ProfileDocument, SegmentChange
from tests.oracle.accounts import LEFT, AccountRules, AccountWorld, Alert, alerts_due
from tests.simulation import checks
from tests.simulation.definitions import Author, Rule
from tests.simulation.vocabulary import CITIES, PLANS
from tests.simulation.world import DAY, HOUR, SECOND, Story

DOMAINS = ("x.org", "y.org", "gmail.com")
GROUPS = ("acme", "x.org", "4711")
FREE = frozenset({"gmail.com"})
_document = msgspec.json.Decoder(ProfileDocument).decode
_alert = msgspec.json.Decoder(AccountAlert).decode
_segment_change = msgspec.json.Decoder(SegmentChange).decode


def make_account_rules(rng: random.Random, identifiers: Sequence[str]) -> AccountRules:
    """How accounts are found in one world."""
    domains = rng.random() < 0.6
    free = frozenset({"y.org"}) if rng.random() < 0.2 else frozenset()
    return AccountRules(
        groups=rng.random() < 0.9,
        email_domains=domains,
        free_mail=FREE | free,
        same={"acme": ["x.org", "4711"][: rng.randint(1, 2)]} if rng.random() < 0.4 else {},
        people={rng.choice(identifiers): rng.choice(GROUPS)} if rng.random() < 0.3 else {},
    )


def make_alerts(seed: int) -> tuple[Alert, ...]:
    """The alerts of one world: at the first segments of accounts that there may be."""
    rng = random.Random(f"alerts {seed}")
    names = rng.sample(("a0", "a0", "a1", "a2"), rng.randint(0, 3))
    return tuple(Alert(f"call{n}", name, rng.choice((0, 0, 1, SECOND, HOUR, DAY))) for n, name in enumerate(names))


def room_rules(rules: AccountRules) -> RoomRules:
    """The oracle's rules as the room takes them."""
    same = {other: name for name, others in rules.same.items() for other in others}
    alerts: dict[str, tuple[RoomAlert, ...]] = {}
    for one in rules.alerts:
        alert = RoomAlert(one.name, one.enters, again_after_ms=one.again_after_ms)
        alerts[one.enters] = (*alerts.get(one.enters, ()), alert)
    return RoomRules(rules.groups, rules.email_domains, rules.free_mail, same, dict(rules.people), alerts)


def about_an_account(rng: random.Random, event: Event) -> None:
    """Now and then an event names an account: joins it, leaves it, or says nothing of it."""
    draw = rng.random()
    if draw < 0.22:
        event.type, event.event, event.group_id = "group", "Group", rng.choice(GROUPS)
        event.traits = {}
        event.properties = {}
        if rng.random() < 0.6:
            event.properties["plan"] = rng.choice((*PLANS, None))
        if rng.random() < 0.3:
            event.properties["city"] = rng.choice(CITIES)
    elif draw < 0.3 and event.type == "track":
        event.event, event.group_id = LEFT, rng.choice(GROUPS)
    elif draw < 0.34:
        event.group_id = rng.choice(GROUPS)


class AccountAuthor(Author):
    """Writes rules about accounts, and rules that ask people about their accounts."""

    def __init__(self, rng: random.Random, start_ms: int, people: Sequence[str]) -> None:
        super().__init__(rng, start_ms)
        self.people = list(people)

    def write_more(self) -> list[Rule]:
        """One to three segments of accounts, up to two of people that ask for them."""
        rng = self.rng
        found: list[Rule] = []
        for number in range(rng.randint(1, 3)):
            found.append(self.of_accounts(f"a{number}"))
            self.segments.append(f"a{number}")
        for number in range(rng.randint(0, 2)):
            found.append(self.that_asks(f"t{number}"))
        return found

    def of_accounts(self, name: str) -> Rule:
        """A segment of accounts."""
        return {"segment": name, "entity": "account", "when": self.rule(0)}

    def that_asks(self, name: str) -> Rule:
        """A segment of people that asks for their accounts."""
        rng = self.rng
        rule: Rule = {"account": self.asked()}
        if rng.random() < 0.3:
            rule = {"not": rule}
        if rng.random() < 0.4:
            rule = {"all": [rule, {"performed": self.performed()}]}
        return {"segment": name, "when": rule}

    def rule(self, depth: int) -> Rule:
        rng = self.rng
        if rng.random() < 0.45 and depth < 4:
            return {"members": self.members()}
        found = super().rule(depth)
        # Consent is about people.
        return found if "consent" not in found else self.rule(depth)

    def members(self) -> Rule:
        rng = self.rng
        author = Author(rng, self.start_ms)
        author.segments = self.people
        body: Rule = {"match": author.rule(rng.choice((1, 3)))}
        draw = rng.random()
        if draw < 0.3:
            body[rng.choice(("any", "none", "all"))] = True
        elif draw < 0.9:
            operator = rng.choice(("at_least", "at_least", "at_most", "exactly", "more_than", "less_than", "between"))
            number = rng.choice((0, 1, 1, 2, 3))
            body[operator] = [number, number + 1] if operator == "between" else number
        return body

    def asked(self) -> Rule:
        rng = self.rng
        asked: Rule = {}
        if rng.random() < 0.6 and self.segments:
            asked["in_segment"] = rng.choice(self.segments)
        if not asked or rng.random() < 0.5:
            name = rng.choice(("plan", "city"))
            comparison = self.text_comparison(PLANS if name == "plan" else CITIES)
            against = isinstance(comparison, dict) and any(isinstance(one, dict) for one in comparison.values())
            asked["trait"] = {name: {"exists": True} if against else comparison}
        return asked


def put_accounts(rng: random.Random, story: Story) -> None:
    """Put accounts into a world."""
    world = story.world
    story.pool["email"] = [f"email:e{n}@{rng.choice(DOMAINS)}" for n in range(len(story.pool["email"]))]
    story.all = [one for many in story.pool.values() for one in many]
    world.accounts = replace(make_account_rules(rng, story.all), alerts=make_alerts(world.seed))
    story.change = lambda event: about_an_account(rng, event)
    if world.segments:
        people = [one["segment"] for one in world.segments if "segment" in one]
        world.segments += AccountAuthor(rng, story.start, people).write_more()


def world_of(
    truth: "checks.Truth",
    definitions: Sequence[Mapping[str, Any]],
    rules: AccountRules,
    now: int,
    rules_at: Callable[[Event], AccountRules] | None = None,
) -> AccountWorld:
    """All accounts as they should be at an instant."""

    def id_of(name: str) -> str:
        return truth.keys.profile_id(f"account:{name}")

    return AccountWorld(truth.expected, definitions, rules, id_of, now, rules_at)


def check_accounts(due: AccountWorld, broker: "checks.Topics") -> None:
    """1: accounts, their traits, how many people they have, and to which accounts each person belongs."""
    shown, people = {}, {}
    for key, value in broker.compacted("profiles").items():
        document = _document(value)
        (shown if document.entity == "account" else people)[key.decode()] = document
    names = {due.id_of(name): name for name in due.names}
    checks.same("1 accounts", "those that are there", sorted(shown), sorted(names))
    for profile_id, name in names.items():
        checks.same("1 traits of an account", name, shown[profile_id].traits, due.traits_of(name))
        checks.same("1 people of an account", name, shown[profile_id].computed, {"people": len(due.people_of(name))})
    for profile_id, belongs in due.belongs.items():
        checks.same("1 accounts of a person", profile_id, set(people[profile_id].accounts), belongs)


def check_alerts(broker: "checks.Topics", alerts: Sequence[Alert]) -> None:
    """An alert is told once for each time an account entered its segment by itself, never more, never less."""
    changes: dict[str, list[SegmentChange]] = {}
    for written in broker.records("segment-changes"):
        change = _segment_change(written.value or b"")
        if change.entity == "account":
            changes.setdefault(change.profile_id, []).append(change)
    told = sorted(one.alert_id for one in map(_alert, (each.value or b"" for each in broker.records("account-alerts"))))
    due = [
        f"{alert.name}/{profile_id}/{sequence}"
        for alert in alerts
        for of_one in changes.values()
        for profile_id, sequence in alerts_due(alert, of_one)
    ]
    checks.same("alerts", "those told", told, sorted(due))
