"""A workspace that goes on in another one: what is decided here is heard by nobody there."""

from pipeline.errors import HeadwaterError, TopicMissing
from pipeline.runtime.kafka.doors import current_value
from pipeline.settings import Settings
from pipeline.workspaces import SUCCESSOR_KEY, TOPIC, Successor, decode_workspace_record


class GoneOnError(HeadwaterError):
    """Something was asked of a workspace that goes on in another one."""

    exit_code = 2


def refuse_if_gone_on(settings: Settings) -> None:
    """Raises GoneOnError: the workspace goes on in another one, and what it had decided is copied. BrokerError."""
    try:
        said = current_value(settings, TOPIC, SUCCESSOR_KEY)
    except TopicMissing:
        return  # made by an earlier release
    successor = decode_workspace_record(said) if said is not None else None
    if isinstance(successor, Successor) and successor.starts:
        raise GoneOnError(
            f"{settings.prefix} goes on in {successor.prefix}: there, nobody would hear of what is decided here.",
            settings.prefix,
            f"ask it of {successor.prefix}, with its settings",
        )
