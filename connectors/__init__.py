"""Connectors: one module for each kind of destination. Third parties add theirs by an entry point of the group
`headwater.destinations`, whose name is the kind and whose object is a `Connector` class."""

from connectors.base import Connector, Options, Outcome, SecretReference, delivered, rejected, retry
from connectors.registry import UnknownKindError, connector_kind, connector_kinds

__all__ = [
    "Connector",
    "Options",
    "Outcome",
    "SecretReference",
    "UnknownKindError",
    "connector_kind",
    "connector_kinds",
    "delivered",
    "rejected",
    "retry",
]
