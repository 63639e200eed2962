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
    """All contracts in force. A source has one contract at most.

    `keeps_traits`: trait → how long its value may be kept (ms); `keeps_events`: event → how long it is remembered that
    it was done; `keeps_parts`: event and path in it, its section first → how long what stands there is. Of several
    contracts that speak of one, the shortest holds.
    """

    contracts: tuple[Contract, ...] = ()
    keeps_traits: dict[str, int] = field(init=False, compare=False, default_factory=dict)
    keeps_events: dict[str, int] = field(init=False, compare=False, default_factory=dict)
    keeps_parts: dict[tuple[str, tuple[str, ...]], int] = field(init=False, compare=False, default_factory=dict)
    _by_source: dict[str, Contract] = field(init=False, compare=False, default_factory=dict)
    _of_others: list[Contract] = field(init=False, compare=False, default_factory=list)

    def __post_init__(self) -> None:
        for contract in self.contracts:
            if contract.sources is None:
                self._of_others.append(contract)
            for source in contract.sources or ():
                self._by_source[source] = contract
            for event in contract.events.values():
                self._keep(event)

    def _keep(self, event: EventContract) -> None:
        whole = event.retention_ms
        if whole is not None:
            _shorten(self.keeps_events, event.event, whole)
            for name in event.planned.get("traits", ()):
                _shorten(self.keeps_traits, name, whole)
        for found in event.fields:
            if found.section == "traits" and found.path and found.retention_ms is not None:
                # A trait is kept whole: what is in it may be kept no longer than the shortest of it.
                _shorten(self.keeps_traits, found.path[0], found.retention_ms)
            if found.retention_ms is not None:
                place = (event.event, (found.section, *found.path))
                self.keeps_parts[place] = min(found.retention_ms, self.keeps_parts.get(place, found.retention_ms))

    def of_source(self, source: str) -> Contract | None:
        """The contract that the events of a source must meet: one that names it, else the one that names none."""
        found = self._by_source.get(source)
        return found if found is not None or not self._of_others else self._of_others[0]

    def versions(self) -> Iterator[tuple[str, Contract]]:
        """Every contract by the version that events carry."""
        for contract in self.contracts:
            yield contract.version, contract


def _shorten(kept: dict[str, int], name: str, ms: int) -> None:
    kept[name] = min(ms, kept.get(name, ms))


NO_CONTRACTS = ContractsPlan()
