"""Cleaning: what is changed about events before anything is made of them, as people define it."""

from pipeline.cleaning.plan import NO_CLEANING, NO_TOOLS, Cleaning, CleaningPlan, Draft, Failed, Spoiled, Tools
from pipeline.cleaning.steps import (
    Call,
    Cast,
    Default,
    DeriveCampaign,
    DeriveReferrer,
    DeriveUserAgent,
    Drop,
    Hash,
    Mask,
    Rename,
    RenameEvent,
)

__all__ = [
    "NO_CLEANING",
    "NO_TOOLS",
    "Call",
    "Cast",
    "Cleaning",
    "CleaningPlan",
    "Default",
    "DeriveCampaign",
    "DeriveReferrer",
    "DeriveUserAgent",
    "Draft",
    "Drop",
    "Failed",
    "Hash",
    "Mask",
    "Rename",
    "RenameEvent",
    "Spoiled",
    "Tools",
]
