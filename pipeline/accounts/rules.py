"""The rules of one generation, and the two questions they answer: what an event says, and who belongs where."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.accounts.alerts import Alert
from pipeline.accounts.free_mail import FREE_MAIL
from pipeline.identifiers import ACCOUNT
from pipeline.records import Event

NAMESPACE = ACCOUNT
LEFT = "Account Removed User"

Ties = Mapping[str, tuple[int, bool]]
"""Account as an event named it → (event time, joined or left) of the newest statement."""

_EMAIL = "email:"
_NO_DOMAIN = frozenset("\"'`<>()[],;:\\")


@dataclass(frozen=True, slots=True)
class AccountRules:
    """How accounts are found. `same` maps each other name of an account to the one it goes by, `people` identifiers to
    account names. `free_mail` are domains that are nobody's, the built-in ones included. `alerts` are those of each
    segment of accounts."""

    groups: bool = True
    email_domains: bool = False
    free_mail: frozenset[str] = FREE_MAIL
    same: Mapping[str, str] = field(default_factory=dict)
    people: Mapping[str, str] = field(default_factory=dict)
    alerts: Mapping[str, tuple[Alert, ...]] = field(default_factory=dict)
    asks_identifiers: bool = field(init=False)
    """Whether it depends on a person's identifiers to which accounts they belong."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "asks_identifiers", self.email_domains or bool(self.people))

    def name_of(self, named: str) -> str:
        """The one name of an account."""
        return self.same.get(named, named)


GROUPS_ONLY = AccountRules()
"""The rules where nothing was defined."""


def stated(event: Event) -> tuple[str, bool] | None:
    """(account, joined or left) that an event says of its person, if it says anything."""
    if event.group_id is None:
        return None
    if event.type == "group":
        return event.group_id, True
    if event.type == "track" and event.event == LEFT:
        return event.group_id, False
    return None


def belongs_to(rules: AccountRules, ties: Ties, identifiers: Iterable[str]) -> list[str]:
    """The accounts a person belongs to, by name, sorted. `ties` and `identifiers` are those of all their fragments."""
    newest: dict[str, tuple[float, bool]] = {}
    if rules.asks_identifiers:
        for name in _by_identifiers(rules, identifiers):
            newest[rules.name_of(name)] = (float("-inf"), True)
    if rules.groups:
        for named, (time, joined) in ties.items():
            name = rules.name_of(named)
            there = newest.get(name)
            if there is None or (time, not joined) > (there[0], not there[1]):
                newest[name] = (time, joined)
    return sorted(name for name, (_, joined) in newest.items() if joined)


def _by_identifiers(rules: AccountRules, identifiers: Iterable[str]) -> Iterable[str]:
    people = rules.people
    for identifier in identifiers:
        named = people.get(identifier)
        if named is not None:
            yield named
        if rules.email_domains and identifier.startswith(_EMAIL):
            domain = identifier.rpartition("@")[2].lower().rstrip(".")
            if domain and "@" in identifier and domain not in rules.free_mail and _NO_DOMAIN.isdisjoint(domain):
                yield domain


def identifier_of(account: str) -> str:
    """The identifier of an account, whose actor it names."""
    return f"{NAMESPACE}:{account}"
