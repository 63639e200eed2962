"""Whether a person may be acted upon: what they said, and where they said nothing, what holds where they live.

    they said no to everything (`*`)                  no, for every destination
    they closed the channel                           no
    they said yes or no to the purpose                that
    they said nothing, and its basis is consent       the default of the region they declared, else of their country,
                                                      else of the strictest region
    ... and its basis is a legitimate interest        yes: they may object
    the basis is another (a contract, a law)          yes, whatever they said

A purpose that a region does not grant is denied there. A destination without purposes and channel gets everybody but
those who said no to everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pipeline.records import CHANNEL, EVERYTHING

Basis = Literal["consent", "legitimate_interests", "contract", "legal_obligation", "vital_interests", "public_task"]


@dataclass(frozen=True, slots=True)
class Region:
    """A region: the countries that are in it (two capital letters), and the purposes granted there by those who said
    nothing."""

    name: str
    countries: frozenset[str] = frozenset()
    granted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """What holds where nobody said anything. `region_trait` and `country_trait` name the traits that say where somebody
    lives; `bases` gives the lawful basis of purposes (not there: consent)."""

    regions: tuple[Region, ...] = ()
    region_trait: str = "region"
    country_trait: str = "country"
    bases: Mapping[str, Basis] = field(default_factory=dict)

    @property
    def reads(self) -> frozenset[str]:
        """The traits that a decision may depend on."""
        return frozenset((self.region_trait, self.country_trait)) if self.regions else frozenset()

    def default(self, purpose: str, traits: Mapping[str, Any]) -> tuple[bool, str]:
        """What holds of a purpose for somebody who said nothing, and by which region."""
        declared, country = traits.get(self.region_trait), traits.get(self.country_trait)
        if isinstance(declared, str):
            for region in self.regions:
                if region.name == declared.strip().lower():
                    return purpose in region.granted, f"the default of the region {region.name}, which they declared"
        if isinstance(country, str):
            for region in self.regions:
                if country.strip().upper() in region.countries:
                    return purpose in region.granted, f"the default of the region {region.name}, by their country"
        if not self.regions:
            return False, "they said nothing"
        strictest = all(purpose in region.granted for region in self.regions)
        return strictest, "the strictest default, for nobody knows where they live"

    def refusal(
        self, purposes: tuple[str, ...], channel: str | None, consents: Mapping[str, Any], traits: Mapping[str, Any]
    ) -> str:
        """Why a destination with these purposes, on this channel, may not have the person; empty if it may."""
        if granted(consents.get(EVERYTHING)) is False:
            return "they said no to everything"
        if channel is not None and granted(consents.get(CHANNEL + channel)) is False:
            return f"they closed the channel {channel}"
        for purpose in purposes:
            basis = self.bases.get(purpose, "consent")
            if basis not in ("consent", "legitimate_interests"):
                continue
            said = granted(consents.get(purpose))
            if said is False:
                return f"they denied the purpose {purpose}"
            if said is None and basis == "consent":
                allowed, why = self.default(purpose, traits)
                if not allowed:
                    return f"the purpose {purpose} is not granted: {why}"
        return ""


NO_POLICY = ConsentPolicy()


def granted(consent: Any) -> bool | None:
    """Whether a consent says yes; None if it says nothing. Only what plainly says yes is a yes."""
    if isinstance(consent, Mapping):
        consent = consent.get("granted")
    if consent is None:
        return None
    return consent is True or consent == "granted"
