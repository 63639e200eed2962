"""What holds of people's consent where they said nothing, as people write it: docs/privacy.md.

consent: default
purposes:                                   # every purpose there is, and its lawful basis
  marketing: consent
  fraud_prevention: legitimate_interests
  fulfilment: contract
regions:
  eu: {countries: [DE, FR, IT]}             # nothing is granted by those who said nothing
  us: {countries: [US], granted: [marketing]}
region_trait: region                        # where somebody says they live
country_trait: country                      # two letters
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.activation import Basis, ConsentPolicy, Region
from pipeline.activation.consent import NO_POLICY
from pipeline.definitions.catalog import Catalog
from pipeline.definitions.comparisons import Model
from pipeline.definitions.contracts import Word, Words
from pipeline.records import Generation

THE_POLICY = "default"
"""There is one policy; this is its name."""

_COUNTRY = re.compile(r"[A-Z]{2}")


def _country(value: Any) -> str:
    if not isinstance(value, str) or not _COUNTRY.fullmatch(value):
        raise ValueError("write a country as two capital letters, like DE")
    return value


Country = Annotated[str, BeforeValidator(_country)]
TraitName = Annotated[str, Field(min_length=1, max_length=200)]


class RegionDefinition(Model):
    """One region: its countries, and the purposes that are granted there until somebody denies them."""

    countries: list[Country] = Field(default=[], max_length=300)
    granted: Words = []


class ConsentDefinition(Model):
    """The defaults of a workspace."""

    consent: Literal["default"]
    description: str = Field(default="", max_length=2_000)
    purposes: dict[Word, Basis] = Field(default={}, max_length=200)
    regions: dict[Word, RegionDefinition] = Field(default={}, max_length=300)
    region_trait: TraitName = "region"
    country_trait: TraitName = "country"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        owners: dict[str, str] = {}
        for name, region in self.regions.items():
            for country in region.countries:
                if owners.setdefault(country, name) != name:
                    raise ValueError(f"regions: {country} cannot be in {owners[country]} and in {name}")
            unknown = sorted(set(region.granted) - set(self.purposes)) if self.purposes else []
            if unknown:
                raise ValueError(f"regions: {name} grants {unknown[0]}, which is not among `purposes`")
        return self

    def compiled(self) -> ConsentPolicy:
        """The policy as the room takes it. Regions stand in the order of their names."""
        return ConsentPolicy(
            regions=tuple(
                Region(name, frozenset(region.countries), frozenset(region.granted))
                for name, region in sorted(self.regions.items())
            ),
            region_trait=self.region_trait,
            country_trait=self.country_trait,
            bases=dict(self.purposes),
        )


def consent_policy(catalog: Catalog, generation: Generation) -> ConsentPolicy:
    """The policy of a generation; without one, or while it is paused, every purpose has to be granted."""
    written = catalog.of_kind(generation, "consent")
    if not written or THE_POLICY in catalog.paused(generation, "consent"):
        return NO_POLICY
    return ConsentDefinition.model_validate(written[0].body).compiled()
