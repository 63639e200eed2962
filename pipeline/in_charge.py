"""Whether a workspace is the one to decide in: it may go on in another one, or still be a copy of one.

Where one goes on in another, nobody hears any more of what is decided. And a copy lives through the past: what is
decided in it now, with the time that it is now, would take it to the present at once, in which people expire before
their own history has come.
"""

import time
from typing import TypeVar

from pipeline.errors import HeadwaterError, TopicMissing
from pipeline.runtime.kafka.doors import current_values
from pipeline.settings import Settings
from pipeline.workspaces import (
    ORIGIN_KEY,
    POSITION_KEY,
    SUCCESSOR_KEY,
    TOPIC,
    ReplayOrigin,
    ReplayPosition,
    Successor,
    decode_workspace_record,
)

_AT_PRESENT_MS = 60_000
_Kind = TypeVar("_Kind", ReplayOrigin, ReplayPosition, Successor)


class NotInChargeError(HeadwaterError):
    """Something was decided in a workspace that goes on in another one, or is a copy."""

    exit_code = 2


def refuse_decisions(settings: Settings) -> None:
    """What is decided about people: not where nobody lives on, and not in a copy, to which it comes from the original.
    Raises NotInChargeError, BrokerError."""
    said = _said(settings)
    successor = _of(said, SUCCESSOR_KEY, Successor)
    if successor is not None and successor.starts:
        raise NotInChargeError(
            f"{settings.prefix} goes on in {successor.prefix}: there, nobody would hear of what is decided here.",
            settings.prefix,
            f"ask it of {successor.prefix}, with its settings",
        )
    origin, position = _of(said, ORIGIN_KEY, ReplayOrigin), _of(said, POSITION_KEY, ReplayPosition)
    if origin is not None and (position is None or not (position.ended or position.starts)):
        raise NotInChargeError(
            f"{settings.prefix} is a copy of {origin.prefix}, which is in charge.",
            settings.prefix,
            f"ask it of {origin.prefix}, with its settings: it comes along",
        )


def refuse_definitions(settings: Settings) -> None:
    """Definitions: not in a copy that is still in the past. Raises NotInChargeError, BrokerError."""
    said = _said(settings)
    origin, position = _of(said, ORIGIN_KEY, ReplayOrigin), _of(said, POSITION_KEY, ReplayPosition)
    if origin is None or (position is not None and position.ended):
        return
    if position is None or position.clock < time.time_ns() // 1_000_000 - _AT_PRESENT_MS:
        raise NotInChargeError(
            f"{settings.prefix} is a copy of {origin.prefix}, and has not come to the present.",
            settings.prefix,
            "apply them when `headwater replay status` says that it has, or after the switch; or begin another replay"
            " with them: headwater replay begin NEW_PREFIX --definitions FILE",
        )


def _said(settings: Settings) -> dict[bytes, bytes]:
    try:
        return current_values(settings, TOPIC)
    except TopicMissing:
        return {}  # made by an earlier release


def _of(said: dict[bytes, bytes], key: bytes, kind: type[_Kind]) -> _Kind | None:
    found = decode_workspace_record(said[key]) if key in said else None
    return found if isinstance(found, kind) else None
