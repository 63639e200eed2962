"""Rules about people and their accounts on a fixture of events, with a simulated clock: what `headwater test` runs.

As `pipeline.segments.run_fixture`, with accounts beside the people: events are folded, people and accounts judged, by
the same plans as in production. Who is one person is simple here too; to which accounts people belong is not.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.accounts import AccountRules, belongs_to, identifier_of, stated
from pipeline.profile import Fragment, fold, tie, write
from pipeline.records import Event
from pipeline.segments import (
    ACCOUNTS,
    HIDDEN,
    NO_SEGMENTS,
    PEOPLE,
    AccountFacts,
    FixtureResult,
    Flip,
    SegmentsPlan,
    Standing,
    Turns,
    people_of,
)
from pipeline.unify.together import join_all


class _Person(Fragment):
    """A person, and what is known of who they are by now."""

    profile_id: str = ""
    accounts: dict[str, AccountFacts] = {}
    identifiers: set[str] = set()
    belongs: list[str] = []


class _Account:
    """An account as its rules are judged on it. It is there once it was named, or while it has people."""

    def __init__(self, name: str) -> None:
        self.profile_id = identifier_of(name)
        self.leaves: dict[str, Any] = {}
        self.traits: dict[str, tuple[int, Any]] = {}
        self.consents: dict[str, Any] = {}
        self.people: dict[str, int] = {PEOPLE: 0}
        self.named = False
        self.standing: Standing | None = None

    @property
    def members(self) -> frozenset[str]:
        """The segments it is in."""
        return frozenset(self.standing.members) if self.standing is not None else frozenset()


def run_with_accounts(
    plan: SegmentsPlan, rules: AccountRules, events: Sequence[Event], at: Iterable[int]
) -> FixtureResult:
    """Play events in order of `received` and look at the members at each instant of `at` (ms). Accounts go by their
    identifiers: `account:acme`."""
    instants = sorted(set(at))
    if not instants:
        raise ValueError("say at least one instant at which to look")
    world = _World(plan, rules, events)
    members: dict[int, dict[str, frozenset[str]]] = {}
    played = sorted(events, key=lambda event: event.received)
    position = 0
    for instant in instants:
        while position < len(played) and played[position].received <= instant:
            world.play(played[position])
            position += 1
        world.pass_time(instant)
        members[instant] = world.members()
    facts = {**world.people, **{identifier_of(name): one for name, one in world.accounts.items()}}
    return FixtureResult(members, world.turns.in_order(), facts)


class _World:
    def __init__(self, plan: SegmentsPlan, rules: AccountRules, events: Sequence[Event]) -> None:
        self.plan, self.rules = plan, rules
        self.of_accounts = plan.accounts or NO_SEGMENTS
        self.name_of = people_of(events)
        self.people: dict[str, _Person] = {}
        self.standings: dict[str, Standing] = {}
        self.accounts: dict[str, _Account] = {}
        self.turns = Turns()
        # The clock, and when what is played happened: before it, if it came late.
        self.now = self.happened = 0

    def members(self) -> dict[str, frozenset[str]]:
        """The segments of everybody who is there."""
        found = {
            one: frozenset(name for name in standing.members if name[:1] != HIDDEN)
            for one, standing in self.standings.items()
        }
        there = {identifier_of(name): one.members for name, one in self.accounts.items() if one.standing is not None}
        return {**found, **there}

    # ---------------------------------------------------------------------------------------------------- what happens

    def play(self, event: Event) -> None:
        """An event at its time of receipt."""
        self.pass_time(event.received)
        self.now, self.happened = event.received, event.time
        name = self.name_of[event.identifiers[0]]
        if name in self.people:
            self._play(name, event)
            return
        # Somebody's first event: they enter what they are in once their accounts have answered.
        self.people[name] = _Person(profile_id=name)
        known = len(self.turns.changes)
        self._play(name, event)
        of_others = [change for change in self.turns.changes[known:] if change.profile != name]
        del self.turns.changes[known:]
        for one in sorted(self.standings[name].members):
            if one[:1] != HIDDEN:
                self.turns.turn(event.time, name, one, True)
        self.turns.changes += of_others

    def _play(self, name: str, event: Event) -> None:
        person = self.people[name]
        person.identifiers.update(event.identifiers)
        traits, purposes = fold(person, event, event.message_id.encode(), b"") or ((), ())
        statement = stated(event)
        if statement is not None:
            tie(person, statement[0], event.time, statement[1])
        touched = self.plan.fold(person.leaves, event)
        flips: Iterable[Flip] = ()
        if name in self.standings:
            flips = self.plan.update(self.standings[name], person, self.now, touched, traits, purposes)
        else:
            self.standings[name] = self.plan.begin(person, self.now)
        before = person.belongs
        person.belongs = belongs_to(self.rules, person.ties, sorted(person.identifiers))
        accounts = self._flipped(name, flips)
        for account in before:
            if account in person.belongs:
                self.of_accounts.fold(self.accounts[account].leaves, event)
                accounts.add(account)
        for account in set(before) ^ set(person.belongs):
            self._gather(account)
            accounts.add(account)
        if event.type == "group" and event.group_id is not None and self.rules.groups:
            named = self._account(self.rules.name_of(event.group_id))
            named.named = True
            for trait, value in event.properties.items():
                write(named.traits, trait, event.time, value)
            accounts.add(self.rules.name_of(event.group_id))
        self._judge(accounts, {name} if before != person.belongs else set())

    def pass_time(self, until: int) -> None:
        """What time alone changes up to an instant, in order."""
        while True:
            standings = [*self.standings.values(), *(one.standing for one in self.accounts.values() if one.standing)]
            at = min((one.deadline for one in standings if one.deadline), default=until + 1)
            if at > until:
                break
            self.now = self.happened = at
            accounts = set[str]()
            for name, standing in self.standings.items():
                if standing.deadline == at:
                    for _, flips in self.plan.settle(standing, self.people[name], at):
                        accounts |= self._flipped(name, flips)
            for account, one in self.accounts.items():
                if one.standing is not None and one.standing.deadline == at:
                    accounts.add(account)
            self._judge(accounts, set())
        self.now = until
        for name, standing in self.standings.items():
            self.plan.settle(standing, self.people[name], until)

    # ------------------------------------------------------------------------------------------------------- accounts

    def _account(self, name: str) -> _Account:
        return self.accounts.setdefault(name, _Account(name))

    def _people_of(self, account: str) -> list[str]:
        return [name for name, person in self.people.items() if account in person.belongs]

    def _gather(self, name: str) -> None:
        """What all of an account's people bring, anew."""
        account, people = self._account(name), self._people_of(name)
        account.leaves = join_all(self.of_accounts, (self.people[one].leaves for one in people))
        account.people = {PEOPLE: len(people)}
        for hidden in self.plan.watched:
            account.people[hidden] = sum(hidden in self.standings[one].members for one in people)

    def _flipped(self, name: str, flips: Iterable[Flip]) -> set[str]:
        """A person has entered and left segments. Gives the accounts that count it."""
        accounts = set[str]()
        for flip in flips:
            if flip.segment[:1] != HIDDEN:
                self.turns.turn(self.happened, name, flip.segment, flip.entered)
                continue
            for account in self.people[name].belongs:
                if account in self.accounts:
                    counts = self.accounts[account].people
                    counts[flip.segment] = counts.get(flip.segment, 0) + (1 if flip.entered else -1)
                    accounts.add(account)
        return accounts

    def _judge(self, accounts: set[str], people: set[str]) -> None:
        """Judge these accounts, then the people who ask for them, and so on: rules do not go round in a circle."""
        while accounts or people:
            for name in sorted(accounts):
                self._judge_account(name)
                people = people | set(self._people_of(name))
            accounts = set[str]()
            for one in sorted(people):
                person = self.people[one]
                person.accounts = {
                    name: AccountFacts(self.accounts[name].traits, self.accounts[name].members)
                    for name in person.belongs
                }
                flips = self.plan.update(self.standings[one], person, self.now, (), (ACCOUNTS,))
                accounts |= self._flipped(one, flips)
            people = set[str]()

    def _judge_account(self, name: str) -> None:
        """Judge one account from scratch."""
        account = self.accounts[name]
        before = account.members
        is_there = account.named or account.people[PEOPLE] > 0
        account.standing = self.of_accounts.begin(account, self.now) if is_there else None
        after = account.members
        for segment in sorted(before ^ after):
            self.turns.turn(self.happened, account.profile_id, segment, segment in after)


def names_of_accounts(facts: Mapping[str, Any]) -> dict[str, str]:
    """The accounts of a fixture, each by itself, as `people_of` gives people."""
    return {name: name for name, one in facts.items() if isinstance(one, _Account)}
