"""Whether a workspace is the one to decide in: it may go on in another one, or still be a copy of one.

Where one goes on in another, nobody hears any more of what is decided. And a copy lives through the past: what is
decided in it now, with the time that it is now, would take it to the present at once, in which people expire before
their own history has come.
"""

import time

from pipeline.errors import HeadwaterError
from pipeline.settings import Settings
from pipeline.workspace_view import view_of

_AT_PRESENT_MS = 60_000


class NotInChargeError(HeadwaterError):
    """Something was decided in a workspace that goes on in another one, or is a copy."""

    exit_code = 2


def refuse_decisions(settings: Settings) -> None:
    """What is decided about people: not where nobody lives on, and not in a copy, to which it comes from the original.
    Raises NotInChargeError, BrokerError."""
    view = view_of(settings)
    successor = view.successor
    if successor is not None and successor.starts:
        raise NotInChargeError(
            f"{settings.prefix} goes on in {successor.prefix}: there, nobody would hear of what is decided here.",
            settings.prefix,
            f"ask it of {successor.prefix}, with its settings",
        )
    origin, position = view.origin, view.position
    if origin is not None and (position is None or not (position.ended or position.starts)):
        raise NotInChargeError(
            f"{settings.prefix} is a copy of {origin.prefix}, which is in charge.",
            settings.prefix,
            f"ask it of {origin.prefix}, with its settings: it comes along",
        )


def refuse_definitions(settings: Settings) -> None:
    """Definitions: not in a copy that is still in the past. Raises NotInChargeError, BrokerError."""
    view = view_of(settings)
    origin, position = view.origin, view.position
    if origin is None or (position is not None and position.ended):
        return
    if position is None or position.clock < time.time_ns() // 1_000_000 - _AT_PRESENT_MS:
        raise NotInChargeError(
            f"{settings.prefix} is a copy of {origin.prefix}, and has not come to the present.",
            settings.prefix,
            "apply them when `headwater replay status` says that it has, or after the switch; or begin another replay"
            " with them: headwater replay begin NEW_PREFIX --definitions FILE",
        )
