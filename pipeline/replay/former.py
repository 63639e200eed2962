"""What the workspace that another one took over from has still to hand over.

The two have a queue each for a destination. What waits in the former's, because the destination is slow or away, came
before all that the new one has to say: delivered behind it, it would undo an exit, or name again who was erased. So the
new deliver begins with a destination when nothing waits for it in the former workspace any more. Where it has begun it
goes on, whatever is said there later: Kafka forgets the positions of a group a week after it ended, and then all waits.
"""

import logging
import time

from pipeline.admin import topic_partitions
from pipeline.definitions.log import read_catalog
from pipeline.errors import BrokerError
from pipeline.runtime.kafka.doors import KAFKA_FAILURES, committed_positions
from pipeline.runtime.kafka.sources import Beside, SourcesAtEnd
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES
from pipeline.workspace_view import view_of

_SAY_EVERY_S = 30.0
_TAKEN_AWAY_EVERY_S = 5.0
_CANNOT_SAY: tuple[type[Exception], ...] = (BrokerError, *KAFKA_FAILURES)

_log = logging.getLogger(__name__)


class Former:
    """Asked destination by destination, again and again, by whoever is to deliver after it."""

    def __init__(self, settings: Settings, new: Settings) -> None:
        """The settings of the former workspace, and of the one that took over."""
        self._settings, self._new = settings, new
        self._asked: dict[str, Beside[bool]] = {}
        self._done: set[str] = set()
        self._looked_s = self._said_s = -_SAY_EVERY_S
        self._waited_for: set[str] | None = None

    def has_handed_over(self, destination: str) -> bool:
        """Whether nothing waits there for a destination, it has none of that name, or the new one has begun with it."""
        if destination in self._done:
            return True
        waited_for = self._destinations()
        if waited_for is None:
            return False
        if destination not in waited_for:
            return True
        group, topic = f"deliver-{destination}", DELIVERIES.name + destination
        if destination not in self._asked:
            self._asked[destination] = Beside(SourcesAtEnd(self._settings, group, [topic]))
        if self._asked[destination]():
            self._done.add(destination)
            return True
        if time.monotonic() - self._said_s >= _SAY_EVERY_S:
            self._said_s = time.monotonic()
            _log.warning(
                "%s waits: deliver of %s may have something to hand over to it first; let that run until nothing waits",
                destination,
                self._settings.prefix,
            )
        return False

    def _destinations(self) -> set[str] | None:
        """Those in force there whose topics are still there, and which have not begun here, as they were last known;
        None: they are not."""
        if time.monotonic() - self._looked_s >= _TAKEN_AWAY_EVERY_S:
            try:
                there = topic_partitions(self._settings)
                named: list[str] = []
                if self._settings.topic("definitions") in there:
                    catalog = read_catalog(self._settings)
                    named = [each.name for each in catalog.of_kind(catalog.latest, "destination")]
                has = {name for name in named if self._settings.topic(DELIVERIES.name + name) in there}
                self._waited_for = has - self._begun(has)
                self._looked_s = time.monotonic()
            except _CANNOT_SAY as error:
                _log.warning("what waits in %s cannot be read: %s", self._settings.prefix, str(error).split("\n")[0])
        return self._waited_for

    def _begun(self, destinations: set[str]) -> set[str]:
        """Those with which the new workspace has come further than where the switch placed it."""
        successor = view_of(self._settings).successor
        starts = successor.starts if successor is not None else {}
        topics = {name: DELIVERIES.name + name for name in destinations}
        reached = committed_positions(self._new, {f"deliver-{name}": topic for name, topic in topics.items()})
        return {
            name
            for name, topic in topics.items()
            if any(reached.get((topic, number), 0) > at for number, at in enumerate(starts.get(topic, ())))
        }
