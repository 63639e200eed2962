"""The kinds of destinations there are: those that come along, and those other packages bring by entry point."""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal

from connectors.base import Connector

GROUP = "headwater.destinations"
_BUILT_IN = {
    "file": "connectors.file:FileConnector",
    "http": "connectors.http:HttpConnector",
    "kafka": "connectors.kafka:KafkaConnector",
    "postgres": "connectors.postgres:PostgresConnector",
    "redis": "connectors.redis:RedisConnector",
    "tracking": "connectors.tracking:TrackingConnector",
    "webhook": "connectors.webhook:WebhookConnector",
}
_AUDIENCES = frozenset({"file", "kafka", "postgres", "redis"})


class UnknownKindError(ValueError):
    """A definition names a kind of destination that nothing installed provides."""


@cache
def connector_kind(kind: str) -> type[Connector]:
    """The connector class of a kind. Modules are imported when first asked for. Raises UnknownKindError."""
    if kind in _BUILT_IN:
        module, _, name = _BUILT_IN[kind].partition(":")
        try:
            found = getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            raise UnknownKindError(
                f"the kind {kind} needs a package that is not installed: pip install 'headwater[{kind}]'"
            ) from error
    else:
        entries = [entry for entry in entry_points(group=GROUP) if entry.name == kind]
        if not entries:
            raise UnknownKindError(f"there is no destination kind {kind!r}; known: {', '.join(connector_kinds())}")
        found = entries[0].load()
    if not (isinstance(found, type) and issubclass(found, Connector)):
        raise UnknownKindError(f"the destination kind {kind!r} is not a connectors.Connector class")
    return found


def mode_of(kind: str) -> Literal["audience", "trigger"]:
    """What a destination of this kind is that says nothing. What its connector needs has to be installed only where
    others brought the kind. Raises UnknownKindError."""
    if kind in _BUILT_IN:
        return "audience" if kind in _AUDIENCES else "trigger"
    return connector_kind(kind).mode


def is_built_in(kind: str) -> bool:
    """Whether the kind comes along with Headwater."""
    return kind in _BUILT_IN


def connector_kinds() -> list[str]:
    """The names of all kinds, sorted."""
    return sorted({*_BUILT_IN, *(entry.name for entry in entry_points(group=GROUP))})
