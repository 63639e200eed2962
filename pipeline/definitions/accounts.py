"""How accounts are found, and alerts about them, as people write them: docs/accounts.md."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.accounts import FREE_MAIL, AccountRules, Alert
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.comparisons import Duration, Model, Name
from pipeline.errors import DefinitionError
from pipeline.identifiers import split_identifier
from pipeline.identity import IdentityRules, Junk
from pipeline.records import Generation

MOST_ENTRIES = 20_000
AccountName = Annotated[str, Field(min_length=1, max_length=500)]


class AccountsDefinition(Model):
    """How it is found out to which accounts people belong."""

    accounts: Literal["default"]
    description: str = Field(default="", max_length=2_000)
    groups: bool = True
    email_domains: bool = True
    free_mail: list[AccountName] = Field(default=[], max_length=MOST_ENTRIES)
    same: dict[AccountName, list[AccountName]] = Field(default={}, max_length=MOST_ENTRIES)
    people: dict[AccountName, AccountName] = Field(default={}, max_length=MOST_ENTRIES)

    @field_validator("people")
    @classmethod
    def _identifiers(cls, value: dict[str, str]) -> dict[str, str]:
        for identifier in value:
            namespace, _, rest = identifier.partition(":")
            if not namespace or not rest:
                raise ValueError(f"{identifier!r} is no identifier; write one like email:ada@example.org")
        return value

    @model_validator(mode="after")
    def _one_name_each(self) -> Self:
        names: dict[str, str] = {}
        for name, others in self.same.items():
            for other in others:
                if names.setdefault(other, name) != name or other in self.same:
                    raise ValueError(f"same: {other!r} cannot mean two accounts")
        return self

    def compiled(self, alerts: dict[str, tuple[Alert, ...]], identity: IdentityRules) -> AccountRules:
        """The rules as the room takes them: with the identifiers of `people` as `identity` writes them."""
        return AccountRules(
            groups=self.groups,
            email_domains=self.email_domains,
            free_mail=FREE_MAIL | {domain.lower() for domain in self.free_mail},
            same={other: name for name, others in self.same.items() for other in others},
            people={_written(one, identity): account for one, account in self.people.items()},
            alerts=alerts,
        )


def _written(text: str, identity: IdentityRules) -> str:
    """An identifier as profiles have it; as it stands, if nobody can be called so."""
    ranked = identity.ranked(*split_identifier(text))
    return text if isinstance(ranked, Junk) else ranked[2]


class AlertDefinition(Model):
    """Whom to tell that an account entered a segment."""

    alert: Name
    description: str = Field(default="", max_length=2_000)
    enters: Name
    owner: Annotated[str, Field(min_length=1, max_length=200)] = "owner"
    fallback: str = Field(default="", max_length=500)
    message: str = Field(default="", max_length=2_000)
    traits: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(default=[], max_length=50)
    again_after: Duration | None = None

    def compiled(self, version: int) -> Alert:
        """The alert as the room takes it."""
        return Alert(
            self.alert,
            self.enters,
            version,
            self.owner,
            self.fallback,
            self.message,
            tuple(self.traits),
            self.again_after or 0,
        )


def account_rules(catalog: Catalog, generation: Generation, identity: IdentityRules) -> AccountRules:
    """How accounts are found in a generation of these identity rules, and its alerts. One about a segment that is not
    there says nothing, until it is. Raises DefinitionError for one about a segment of people."""
    paused = catalog.paused(generation, "alert")
    by_segment: dict[str, tuple[Alert, ...]] = {}
    for each in catalog.of_kind(generation, "alert"):
        alert = AlertDefinition.model_validate(each.body).compiled(each.version)
        segment = catalog.in_force(generation, f"segment/{alert.segment}")
        if segment is not None and segment.body.get("entity") != "account":
            raise DefinitionError(
                f"The alert {alert.name} is about the segment {alert.segment}, which is no segment of accounts.",
                f"alert {alert.name}",
                "name a segment with `entity: account`, and apply both together",
            )
        if alert.name not in paused:
            by_segment[alert.segment] = (*by_segment.get(alert.segment, ()), alert)
    written = catalog.of_kind(generation, "accounts")
    if not written or catalog.paused(generation, "accounts"):
        return AccountRules(alerts=by_segment)
    return AccountsDefinition.model_validate(written[0].body).compiled(by_segment, identity)
