"""Accounts, in one batch: docs/accounts.md read word by word. All people and their events in; accounts, their people,
traits and memberships at an instant out. Nothing is kept, every question goes through all events again.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pipeline.records import Event, SegmentChange
from tests.oracle.profiles import ExpectedProfile, newest_of
from tests.oracle.segments import Definition, Facts, compare, holds, member, time_of

LEFT = "Account Removed User"
BEFORE_ALL_TIME = -math.inf


@dataclass(frozen=True)
class Alert:
    """What the definition of an alert says, as far as it decides when it is told."""

    name: str
    enters: str
    again_after_ms: int = 0


@dataclass(frozen=True)
class AccountRules:
    """What the definition `accounts` says, and the alerts. `free_mail` holds the built-in domains too."""

    groups: bool = True
    email_domains: bool = False
    free_mail: frozenset[str] = frozenset()
    same: Mapping[str, Sequence[str]] = field(default_factory=dict)
    people: Mapping[str, str] = field(default_factory=dict)
    alerts: tuple[Alert, ...] = ()

    def canonical(self, name: str) -> str:
        """The one name of an account that has several."""
        for one, others in self.same.items():
            if name in others:
                return one
        return name


@dataclass(frozen=True)
class Statement:
    """Something that says that a person joined an account, or left it."""

    account: str
    time: float
    joined: bool


def statements(profile: ExpectedProfile, rules: AccountRules, now: int) -> list[Statement]:
    """Everything that is said of a person, through any of their identifiers, at `now`."""
    found = []
    for event in profile.events:
        if time_of(event) > now or not rules.groups:
            continue
        named = event.group_id
        if event.type == "group" and named:
            found.append(Statement(rules.canonical(named), time_of(event), True))
        elif event.type == "track" and event.event == LEFT:
            left = named or event.context.get("groupId")
            if isinstance(left, str) and left:
                found.append(Statement(rules.canonical(left), time_of(event), False))
    for identifier in profile.identifiers:
        namespace, _, value = identifier.partition(":")
        if namespace == "email" and rules.email_domains and "@" in value:
            domain = value.rpartition("@")[2].lower()
            if domain and domain not in rules.free_mail:
                found.append(Statement(rules.canonical(domain), BEFORE_ALL_TIME, True))
        if identifier in rules.people:
            found.append(Statement(rules.canonical(rules.people[identifier]), BEFORE_ALL_TIME, True))
    return found


def accounts_of(profile: ExpectedProfile, rules: AccountRules, now: int) -> set[str]:
    """The accounts a person belongs to at `now`: for each, the newest statement; of two at once, the leaving."""
    newest: dict[str, Statement] = {}
    for one in statements(profile, rules, now):
        there = newest.get(one.account)
        if there is None or (one.time, not one.joined) > (there.time, not there.joined):
            newest[one.account] = one
    return {account for account, one in newest.items() if one.joined}


class AccountWorld:
    """All accounts at one instant.

    `people`: profile_id → profile; `id_of` gives the profile_id of an account by its name. `rules_at`: the rules in
    force where a group event stood, which say what account it named; without, they were always those at `now`.
    """

    def __init__(
        self,
        people: Mapping[str, ExpectedProfile],
        definitions: Sequence[Definition],
        rules: AccountRules,
        id_of: Callable[[str], str],
        now: int,
        rules_at: Callable[[Event], AccountRules] | None = None,
    ) -> None:
        self.people = people
        self.definitions = definitions
        self.rules = rules
        self.id_of = id_of
        self.now = now
        self.rules_at = rules_at or (lambda event: rules)
        self.belongs = {one: accounts_of(profile, rules, now) for one, profile in people.items()}

    @cached_property
    def names(self) -> set[str]:
        """The accounts that are there: named by a group event, or with somebody in them."""
        named = {name for name, _ in self._named}
        return named.union(*self.belongs.values()) if self.belongs else named

    @cached_property
    def _named(self) -> list[tuple[str, Event]]:
        """Every group event that named an account, with the name that the account goes by."""
        found = []
        for profile in self.people.values():
            for event in profile.events:
                rules = self.rules_at(event)
                if event.type == "group" and event.group_id and rules.groups and time_of(event) <= self.now:
                    found.append((rules.canonical(event.group_id), event))
        return found

    def people_of(self, account: str) -> set[str]:
        """The profile_ids of those who belong to an account."""
        return {one for one, accounts in self.belongs.items() if account in accounts}

    def traits_of(self, account: str) -> dict[str, Any]:
        """The traits that group events gave an account."""
        return newest_of((event.time, event.properties) for name, event in self._named if name == account)

    def facts_of(self, account: str) -> "AccountFacts":
        """What an account's rules are judged on."""
        return AccountFacts(self, account)

    def facts_of_person(self, profile_id: str) -> "PersonFacts":
        """What a person's rules are judged on."""
        return PersonFacts(self, profile_id)

    def members(self, definition: Definition) -> set[str]:
        """The profile_ids (of accounts, or of people, as its entity says) in a segment."""
        if definition.get("entity") == "account":
            return {self.id_of(name) for name in self.names if member(definition, self.facts_of(name))}
        return {one for one in self.people if member(definition, self.facts_of_person(one))}


class PersonFacts(Facts):
    """A person who can be asked about their accounts."""

    def __init__(self, world: AccountWorld, profile_id: str) -> None:
        super().__init__(world.people[profile_id].events, profile_id, world.definitions, world.now)
        self.world = world

    def in_account(self, body: Mapping[str, Any]) -> bool:
        """`account: {trait: …, in_segment: …}`: one account of theirs for which everything holds."""
        return any(self._holds_for(body, name) for name in self.world.belongs[self.profile_id])

    def _holds_for(self, body: Mapping[str, Any], account: str) -> bool:
        facts = self.world.facts_of(account)
        return all(holds({kind: asked}, facts) for kind, asked in body.items())


class AccountFacts(Facts):
    """An account: the events of its people, its own traits."""

    def __init__(self, world: AccountWorld, name: str) -> None:
        self.people = sorted(world.people_of(name))
        events = [event for one in self.people for event in world.people[one].events]
        super().__init__(events, world.id_of(name), world.definitions, world.now)
        self.world = world
        self.traits = world.traits_of(name)
        self.consents = {}

    def matches(self, body: Mapping[str, Any]) -> bool:
        """`members: {match: …, …}`: for how many different people a rule is true."""
        true = sum(1 for one in self.people if holds(body["match"], self.world.facts_of_person(one)))
        asked = {name: operand for name, operand in body.items() if name != "match"}
        if not asked or asked == {"any": True}:
            return true >= 1
        if asked == {"none": True}:
            return true == 0
        if asked == {"all": True}:
            return true == len(self.people)
        return compare(true, asked, self)


def alerts_due(alert: Alert, changes: Iterable[SegmentChange]) -> list[tuple[str, int]]:
    """(profile_id, sequence) of the changes, of one account in their order, that this alert tells of: it has entered
    the segment, by itself and not by a definition or an unlink, and nobody was told within `again_after`."""
    told: list[tuple[str, int]] = []
    last = -math.inf
    for change in changes:
        entered = change.segment == alert.enters and change.change == "entered"
        if not entered or change.cause in ("backfill", "definition", "split"):
            continue
        if change.decided_at - last >= alert.again_after_ms:
            told.append((change.profile_id, change.sequence))
            last = change.decided_at
    return told
