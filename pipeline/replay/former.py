"""What the workspace that another one took over from has still to hand over.

The two have a queue each for a destination. What waits in the former's, because the destination is slow or away, came
before all that the new one has to say: delivered behind it, it would undo an exit, or name again who was erased. So the
new deliver begins with a destination when nothing waits for it in the former workspace any more.
"""

import logging
import time

from pipeline.admin import topic_partitions
from pipeline.definitions.log import read_catalog
from pipeline.errors import BrokerError
from pipeline.runtime.kafka.sources import Beside, SourcesAtEnd
from pipeline.settings import Settings
from pipeline.topology import DELIVERIES

_SAY_EVERY_S = 30.0
_TAKEN_AWAY_EVERY_S = 5.0

_log = logging.getLogger(__name__)


class Former:
    """Asked destination by destination, again and again, by whoever is to deliver after it."""

    def __init__(self, settings: Settings) -> None:
        """`settings` are those of the former workspace."""
        self._settings = settings
        self._asked: dict[str, Beside] = {}
        self._done: set[str] = set()
        self._looked_s = self._said_s = -_SAY_EVERY_S
        self._has: set[str] | None = None

    def has_handed_over(self, destination: str) -> bool:
        """Whether nothing waits there for a destination, or it has none of that name."""
        if destination in self._done:
            return True
        there = self._destinations()
        if there is None:
            return False
        if destination not in there:
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
        """Those in force there whose topics are still there, as they were last known; None: they are not."""
        if time.monotonic() - self._looked_s >= _TAKEN_AWAY_EVERY_S:
            try:
                there = topic_partitions(self._settings)
                named: list[str] = []
                if self._settings.topic("definitions") in there:
                    catalog = read_catalog(self._settings)
                    named = [each.name for each in catalog.of_kind(catalog.latest, "destination")]
                self._has = {name for name in named if self._settings.topic(DELIVERIES.name + name) in there}
                self._looked_s = time.monotonic()
            except BrokerError as error:
                _log.warning("what waits in %s cannot be read: %s", self._settings.prefix, error.what)
        return self._has
