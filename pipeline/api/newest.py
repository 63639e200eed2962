"""The newest events that a process of the API has read: what came just now, and where a message stands. In memory, and
without anything about who it was."""

from collections import OrderedDict, deque
from itertools import islice
from typing import NamedTuple

from pipeline.records import Event, source_name

_SHOWN = 200
_FOUND = 50_000


class Came(NamedTuple):
    """An event and its place in `events`."""

    partition: int
    offset: int
    message_id: str
    event: str
    type: str
    received: int
    source: str
    flags: int


class NewestEvents:
    """One thread adds, any asks."""

    def __init__(self) -> None:
        self._tail: deque[Came] = deque(maxlen=_SHOWN)
        self._places: OrderedDict[str, tuple[int, int]] = OrderedDict()

    def add(self, event: Event, partition: int, offset: int) -> None:
        """An event was read."""
        source = source_name(event.origin, event.source)
        self._tail.append(
            Came(partition, offset, event.message_id, event.event, event.type, event.received, source, len(event.flags))
        )
        self._places[event.message_id] = partition, offset
        if len(self._places) > _FOUND:
            self._places.popitem(last=False)

    def tail(self, limit: int) -> list[Came]:
        """The newest, first."""
        return list(islice(reversed(list(self._tail)), limit))

    def find(self, message_id: str) -> tuple[int, int] | None:
        """Where a message stands that came among the newest."""
        return self._places.get(message_id)
