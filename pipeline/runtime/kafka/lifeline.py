"""Notices a client that has lost every broker for good.

A broker that has only just come back may answer, for a moment, that there are no brokers. librdkafka (seen in 2.16; its
issue 5301) then lets go of all it knew, the bootstrap addresses among them, whatever `metadata.recovery.strategy` says,
and connects to nobody ever again. A consumer in that state reads nothing and says nothing. Its statistics show it:
what is left in them are only the places that are kept for coordinators. Nothing but a new client helps.
"""

from typing import Any

import msgspec
from msgspec import Struct

_EVERY_MS = 5_000
# One look may fall into the moment between two addresses.
_LOOKS = 2
# Not brokers that were told of, but what librdkafka keeps for itself: for coordinators, and for its own messages.
_PLACES = frozenset(("logical", "internal"))


class _Broker(Struct):
    source: str = ""


class _Statistics(Struct):
    brokers: dict[str, _Broker] = {}


_decode = msgspec.json.Decoder(_Statistics).decode


class Lifeline:
    """What one client's statistics say of its brokers. They come while the client is polled."""

    def __init__(self) -> None:
        self._without = 0

    @property
    def properties(self) -> dict[str, Any]:
        """What the client has to be made with."""
        return {"statistics.interval.ms": _EVERY_MS, "stats_cb": self.heard}

    def heard(self, text: str) -> None:
        """Statistics have come."""
        brokers = _decode(text).brokers.values()
        self._without = 0 if any(one.source not in _PLACES for one in brokers) else self._without + 1

    @property
    def is_cut(self) -> bool:
        """Whether the client has had no broker to connect to for `_LOOKS` looks, 5 s apart."""
        return self._without >= _LOOKS


LOST = "the client has lost every broker for good (librdkafka issue 5301); only a new one finds them again"
