"""Contracts: what events of a source must look like, compiled; and what becomes of one that does not."""

from pipeline.contracts.checking import Checked, Violation, check
from pipeline.contracts.inference import infer
from pipeline.contracts.plan import NO_CONTRACTS, Contract, ContractsPlan, EventContract, LabelledField, Validator

__all__ = [
    "NO_CONTRACTS",
    "Checked",
    "Contract",
    "ContractsPlan",
    "EventContract",
    "LabelledField",
    "Validator",
    "Violation",
    "check",
    "infer",
]
