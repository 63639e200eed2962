"""Connectors: one module for each kind of destination. Third parties add theirs by an entry point of the group
`headwater.destinations`, whose name is the kind and whose object is a `Connector` class; sources likewise, by one of
the group `headwater.sources`, a `Source` class."""

from connectors.base import Connector, Options, Outcome, SecretReference, delivered, rejected, retry
from connectors.registry import UnknownKindError, connector_kind, connector_kinds
from connectors.sources import Pulled, Source, source_kind, source_kinds

__all__ = [
    "Connector",
    "Options",
    "Outcome",
    "Pulled",
    "SecretReference",
    "Source",
    "UnknownKindError",
    "connector_kind",
    "connector_kinds",
    "delivered",
    "rejected",
    "retry",
    "source_kind",
    "source_kinds",
]
