"""What a stream's client has missed, read from the topics between two cursors."""

import time
from collections.abc import Callable, Iterable

from pipeline.api.problems import Problem
from pipeline.api.streams import CHANGES, Change, Places, changes
from pipeline.runtime.kafka.doors import TopicReader, positions_at
from pipeline.settings import Settings

_MOST_READ = 200_000
_MOST_TOLD = 5_000
_LONGEST_S = 20.0
_BEFORE_MS = 2_000


def read_missed(
    settings: Settings, since: Places, until: Places, concerns: Callable[[Change], bool]
) -> tuple[list[Change], bool]:
    """The changes from `since` up to `until` that are meant, and whether those are all: the first 5,000 are given, and
    who comes back with the last of them is given more. A place may be ahead of `until`: another process read further.

    Raises Problem 410: it was too long ago, or the id is none of these topics. 503. Raises BrokerError.
    """
    wanted = {place: until[place] for place, at in since.items() if at < until[place]}
    ahead = {place: at for place, at in since.items() if at > until[place]}
    if sum(at - since[place] for place, at in wanted.items()) > _MOST_READ:
        raise Problem(410, "That is too long ago. Read the present state, and begin again without an id.")
    if not wanted and not ahead:
        return [], True
    starts = {place: since[place] for place in (*wanted, *ahead)}
    with TopicReader(settings, sorted({topic for topic, _ in starts}), only=starts) as reader:
        bounds = reader.bounds()
        if any(at > bounds[place][1] for place, at in ahead.items()):
            raise Problem(410, "The topics end before this id: they were made anew. Begin again without an id.")
        if any(since[place] < bounds[place][0] for place in wanted):
            raise Problem(410, "The topic no longer has what came then. Read the present state, and begin again.")
        found: list[Change] = []
        give_up = time.monotonic() + _LONGEST_S
        while any(reader.positions[place] < at for place, at in wanted.items()):
            if time.monotonic() > give_up:
                raise Problem(503, "Kafka takes too long to say what was missed.", retry_after="5")
            for change in changes(reader.read(10_000, 0.1)):
                if change.offset < wanted.get((change.topic, change.partition), 0) and concerns(change):
                    found.append(change)
                    if len(found) == _MOST_TOLD:
                        return found, False
        return found, True


def places_at(settings: Settings, places: Iterable[tuple[str, int]], time_ms: int) -> Places:
    """Where changes of about this time stand, and a little before. Raises BrokerError."""
    found = positions_at(settings, CHANGES, time_ms - _BEFORE_MS)
    return {place: found[place] for place in places}
