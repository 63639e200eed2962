"""The frozen plan of all contracts in force, as ingest and the privacy rules receive it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

OnViolation = Literal["reject", "strip", "flag"]
OnUnplanned = Literal["allow", "flag", "strip", "reject"]
SECTIONS = ("properties", "traits", "context")
"""The parts of an event that a contract speaks of."""


class Validator(Protocol):
    """A compiled JSON Schema. Errors have `instance_path`, `kind.name` and `message`; none shows a value."""

    def is_valid(self, instance: Any) -> bool:
        """Whether the instance meets the schema; stops at the first violation."""
        ...

    def iter_errors(self, instance: Any) -> Iterator[Any]:
        """Every violation."""
        ...


@dataclass(frozen=True, slots=True)
class LabelledField:
    """What a contract says about one field besides its form.

    `section` is one of SECTIONS; `path` leads from there to the field, "*" standing for every item of a list.
    `purposes` empty: those of the event. `retention_ms` None: that of the event.
    """

    section: str
    path: tuple[str, ...]
    labels: frozenset[str] = frozenset()
    purposes: tuple[str, ...] = ()
    retention_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EventContract:
    """What a contract says about one event. `version` is "name/number" of the contract.

    `planned` holds the names a section may have; a section that is not in it is not spoken of. `labels`, `purposes`
    and `retention_ms` are those of the whole event (purposes and retention: else the contract's).
    """

    event: str
    version: str
    validator: Validator | None
    on_violation: OnViolation
    unplanned_properties: OnUnplanned
    planned: dict[str, frozenset[str]]
    labels: frozenset[str] = frozenset()
    purposes: tuple[str, ...] = ()
    retention_ms: int | None = None
    fields: tuple[LabelledField, ...] = ()


@dataclass(frozen=True, slots=True)
class Contract:
    """One contract in force. `sources` None: all that no other contract names."""

    name: str
    number: int
    sources: frozenset[str] | None
    unplanned_events: OnUnplanned
    events: dict[str, EventContract]
    purposes: tuple[str, ...] = ()
    retention_ms: int | None = None

    @property
    def version(self) -> str:
        """As events carry it."""
        return f"{self.name}/{self.number}"


@dataclass(frozen=True, slots=True)
class ContractsPlan:
    """All contracts in force. A source has one contract at most."""

    contracts: tuple[Contract, ...] = ()
    _by_source: dict[str, Contract] = field(init=False, compare=False, default_factory=dict)
    _of_others: list[Contract] = field(init=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        for contract in self.contracts:
            if contract.sources is None:
                self._of_others.append(contract)
            for source in contract.sources or ():
                self._by_source[source] = contract

    def of_source(self, source: str) -> Contract | None:
        """The contract that the events of a source must meet: one that names it, else the one that names none."""
        found = self._by_source.get(source)
        return found if found is not None or not self._of_others else self._of_others[0]

    def versions(self) -> Iterator[tuple[str, Contract]]:
        """Every contract by the version that events carry."""
        for contract in self.contracts:
            yield contract.version, contract


NO_CONTRACTS = ContractsPlan()
