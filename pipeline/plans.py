"""The frozen plans of one generation of the definitions, as the stages receive them."""

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.accounts import GROUPS_ONLY, AccountRules
from pipeline.activation import ActivationPlan
from pipeline.cleaning import NO_CLEANING, CleaningPlan
from pipeline.contracts import NO_CONTRACTS, ContractsPlan
from pipeline.identity import IdentityRules
from pipeline.ingest import NO_MAPPINGS, MappingPlan
from pipeline.segments import SegmentsPlan


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """Everything people defined, compiled: what a stage applies to the records of one generation."""

    generation: int
    identity: IdentityRules
    segments: SegmentsPlan
    activation: ActivationPlan
    contracts: ContractsPlan = NO_CONTRACTS
    cleaning: CleaningPlan = NO_CLEANING
    sources: MappingPlan = NO_MAPPINGS
    accounts: AccountRules = GROUPS_ONLY


Plans = Callable[[int], GenerationPlan]
"""Gives the plan of a generation; blocks until its definitions are loaded."""
