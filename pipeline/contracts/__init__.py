"""Contracts: what events of a source must look like, compiled; and what becomes of one that does not."""

from pipeline.contracts.plan import NO_CONTRACTS, Contract, ContractsPlan, EventContract, LabelledField, Validator

__all__ = [
    "NO_CONTRACTS",
    "Contract",
    "ContractsPlan",
    "EventContract",
    "LabelledField",
    "Validator",
]
