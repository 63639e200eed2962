"""The clients of commands and live views: what librdkafka says goes to Python's log, not to a person's terminal.

It warns of what passes by itself (a coordinator that is only just coming up, a connection the broker closed), in lines
that look like failures. What matters comes as an error of the call. At the level debug (`headwater -v`) they are shown.
"""

import logging
from typing import Any

from pipeline.settings import Settings

_log = logging.getLogger("librdkafka")


class _AtDebug:
    """Stands where confluent-kafka wants a logger: takes every level for debug."""

    def log(self, level: int, message: str, *parts: object) -> None:
        _log.debug(message, *parts)


def quiet_properties(settings: Settings) -> dict[str, Any]:
    """What every Kafka client of a command starts from."""
    return {**settings.client_properties(), "logger": _AtDebug()}
