"""The topic `definitions`, folded: every version that was ever applied, every generation, and the plan of each."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from pipeline.activation import ActivationPlan
from pipeline.cleaning import CleaningPlan
from pipeline.contracts import ContractsPlan
from pipeline.definitions.kinds import THE_IDENTITY_RULES
from pipeline.errors import DefinitionError, DefinitionsNotThere
from pipeline.identity import IdentityRules
from pipeline.ingest import MappingPlan
from pipeline.plans import GenerationPlan
from pipeline.records import Definition, Generation

_decode_definition = msgspec.json.Decoder(Definition).decode
_decode_generation = msgspec.json.Decoder(Generation).decode
_encode = msgspec.json.Encoder(order="deterministic").encode

NOTHING = Generation(number=0, members={})
"""Generation 0, built in: the built-in identity rules, no segments, no destinations."""


def definition_key(definition: Definition) -> bytes:
    """The record key of a definition."""
    return f"{definition.kind}/{definition.name}/{definition.version}".encode()


def generation_key(generation: Generation) -> bytes:
    """The record key of a generation."""
    return f"generation/{generation.number}".encode()


def records(definitions: Iterable[Definition], generation: Generation | None) -> list[tuple[bytes, bytes]]:
    """The (key, value) records of `definitions`: a generation after all it names."""
    found = [(definition_key(each), _encode(each)) for each in definitions]
    if generation is not None:
        found.append((generation_key(generation), _encode(generation)))
    return found


class Catalog:
    """Everything in `definitions`. A catalogue grows by `add`, record by record."""

    def __init__(self) -> None:
        self._definitions: dict[tuple[str, int], Definition] = {}
        self._highest: dict[str, int] = {}
        self._generations: dict[int, Generation] = {0: NOTHING}

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take in one record. A tombstone is ignored: what was once in force may be replayed. Raises
        DefinitionsNotThere: it is of a kind, or in a form, that this version does not know."""
        if value is None:
            return
        try:
            if key.startswith(b"generation/"):
                generation = _decode_generation(value)
                self._generations[generation.number] = generation
            else:
                self._put(_decode_definition(value))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DefinitionsNotThere(
                f"What was applied as {key.decode(errors='replace')} cannot be read here: {error}.",
                "topic definitions",
                "start this in the version that applied it, or in a later one",
            ) from error

    def _put(self, definition: Definition) -> None:
        name = f"{definition.kind}/{definition.name}"
        self._definitions[name, definition.version] = definition
        self._highest[name] = max(self._highest.get(name, 0), definition.version)

    def with_definitions(self, definitions: Iterable[Definition]) -> "Catalog":
        """A copy that also knows these."""
        copy = Catalog()
        copy._definitions, copy._highest = dict(self._definitions), dict(self._highest)
        copy._generations = dict(self._generations)
        for definition in definitions:
            copy._put(definition)
        return copy

    @property
    def latest(self) -> Generation:
        """The generation with the highest number; `NOTHING` before the first apply."""
        return self._generations[max(self._generations)]

    def generation(self, number: int) -> Generation | None:
        """A generation by number, or None if it is not known (yet)."""
        return self._generations.get(number)

    def highest_version(self, kind: str, name: str) -> int:
        """The highest version a definition ever had, in force or not; 0 for none."""
        return self._highest.get(f"{kind}/{name}", 0)

    def versions(self, kind: str, name: str) -> list[Definition]:
        """Every version a definition ever had, the newest first."""
        key = f"{kind}/{name}"
        numbers = range(self.highest_version(kind, name), 0, -1)
        return [found for number in numbers if (found := self._definitions.get((key, number))) is not None]

    def in_force(self, generation: Generation, key: str) -> Definition | None:
        """The definition "kind/name" as it is in a generation, or None."""
        version = generation.members.get(key)
        return None if version is None else self._required(key, version, generation.number)

    def of_kind(self, generation: Generation, kind: str) -> list[Definition]:
        """The definitions of a kind in a generation, by name."""
        keys = sorted(key for key in generation.members if key.startswith(f"{kind}/"))
        return [self._required(key, generation.members[key], generation.number) for key in keys]

    def paused(self, generation: Generation, kind: str) -> frozenset[str]:
        """The names of the paused definitions of a kind."""
        return frozenset(key.partition("/")[2] for key in generation.paused if key.startswith(f"{kind}/"))

    def pauses(self, key: str) -> list[tuple[int, int | None]]:
        """When "kind/name" was paused: from and to (None: still), in ms."""
        found: list[tuple[int, int | None]] = []
        for number in sorted(self._generations):
            generation = self._generations[number]
            paused, open_pause = key in generation.paused, bool(found) and found[-1][1] is None
            if paused and not open_pause:
                found.append((generation.applied_at, None))
            elif open_pause and not paused:
                found[-1] = (found[-1][0], generation.applied_at)
        return found

    def _required(self, key: str, version: int, generation: int) -> Definition:
        found = self._definitions.get((key, version))
        if found is None:
            raise DefinitionError(
                f"Generation {generation} names version {version} of {key}, which is not there.",
                "topic definitions",
                "the topic has lost a record: check that its cleanup.policy is compact, and apply again",
            )
        return found


def activation_plan(catalog: Catalog, generation: Generation, identity: IdentityRules | None = None) -> ActivationPlan:
    """The destinations of a generation, compiled, with what people and data have to allow. `identity`: its identity
    rules, if they are at hand.

    Raises:
        DefinitionError: a destination or a segment has a purpose that is none, or asks for data it may not have.
    """
    from pipeline.definitions.accounts import AlertDefinition
    from pipeline.definitions.consent import consent_policy
    from pipeline.definitions.data import described, refuse
    from pipeline.definitions.destinations import compile_destinations, purposes_known
    from pipeline.definitions.segments import segment
    from pipeline.definitions.traits import computed_trait

    bodies: dict[str, dict[str, Any]] = {each.name: each.body for each in catalog.of_kind(generation, "destination")}
    policy = consent_policy(catalog, generation)
    destinations = compile_destinations(bodies, catalog.paused(generation, "destination"))
    purposes_known("destination", {each.name: each.purposes for each in destinations}, policy)
    normalise = _normalise(identity or identity_rules(catalog, generation))
    contracts = contracts_plan(catalog, generation)
    segments = catalog.of_kind(generation, "segment")
    of_segments = {each.name: each.body["purposes"] for each in segments if each.body.get("purposes")}
    if not of_segments and not contracts.contracts:
        return ActivationPlan(destinations, policy, normalise=normalise)
    purposes_known("segment", of_segments, policy)
    known = described(
        contracts,
        [segment(each.body) for each in segments],
        [computed_trait(each.body) for each in catalog.of_kind(generation, "trait")],
        of_segments,
        [AlertDefinition.model_validate(each.body).compiled(1) for each in catalog.of_kind(generation, "alert")],
    )
    plan = ActivationPlan(destinations, policy, known.rules, normalise)
    refuse(plan, known)
    return plan


def _normalise(rules: IdentityRules) -> Callable[[str, str], str]:
    """What a hashed value is hashed as: an identifier's text where it is one of that name, else trimmed, small."""

    def normalise(name: str, text: str) -> str:
        found = rules.clean(name, text) if name in rules.namespaces else None
        return found if isinstance(found, str) else text.strip().lower()

    return normalise


def identity_rules(catalog: Catalog, generation: Generation) -> IdentityRules:
    """The identity rules of a generation; the built-in ones where none were applied, or while they are paused."""
    from pipeline.definitions import identity

    written = catalog.of_kind(generation, "identity")
    if not written or THE_IDENTITY_RULES in catalog.paused(generation, "identity"):
        return identity.identity_rules({})
    return identity.identity_rules(written[0].body)


def contracts_plan(catalog: Catalog, generation: Generation) -> ContractsPlan:
    """The contracts of a generation, compiled; a paused one is as if it were not there.

    Raises:
        DefinitionError: two contracts speak of the same source.
    """
    from pipeline.definitions.contracts import compile_contracts

    written = {each.name: (each.version, each.body) for each in catalog.of_kind(generation, "contract")}
    paused = catalog.paused(generation, "contract")
    return compile_contracts({name: found for name, found in written.items() if name not in paused})


def cleaning_plan(catalog: Catalog, generation: Generation) -> CleaningPlan:
    """The cleaning of a generation, compiled; what is paused is as if it were not there.

    Raises:
        DefinitionError: a step joins a reference that is not there.
    """
    from pipeline.definitions.cleaning import compile_cleaning

    paused = catalog.paused(generation, "cleaning")
    written = catalog.of_kind(generation, "cleaning")
    references = {each.name: each.body for each in catalog.of_kind(generation, "reference")}
    return compile_cleaning({each.name: each.body for each in written if each.name not in paused}, references)


def sources_plan(catalog: Catalog, generation: Generation) -> MappingPlan:
    """The sources of a generation, compiled. One that is paused maps as before: its topic is read all the same.

    Raises:
        DefinitionError: two sources read one topic.
    """
    from pipeline.definitions.sources import compile_sources

    return compile_sources({each.name: each.body for each in catalog.of_kind(generation, "source")})


def generation_plan(catalog: Catalog, generation: Generation) -> GenerationPlan:
    """Everything of a generation, compiled. Raises DefinitionError."""
    from pipeline.definitions.accounts import account_rules
    from pipeline.definitions.segments import segments_plan

    identity = identity_rules(catalog, generation)
    return GenerationPlan(
        generation.number,
        identity,
        segments_plan(catalog, generation),
        activation_plan(catalog, generation, identity),
        contracts_plan(catalog, generation),
        cleaning_plan(catalog, generation),
        sources_plan(catalog, generation),
        accounts=account_rules(catalog, generation, identity),
    )
