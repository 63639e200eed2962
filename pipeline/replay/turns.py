"""Whose turn it is: while one workspace is a replay of another, only one of the two ingests and delivers.

a copy        ingest, source and deliver wait until the switch: history is not delivered, what comes is ingested once
went on       ingest and source rest for good: the new workspace goes on with the sources where this one stopped
"""

import logging
import time
from collections.abc import Callable

from pipeline.replay.workspace import WorkspaceView
from pipeline.settings import Settings

WAITING = frozenset({"ingest", "source", "deliver"})
_LOOK_EVERY_S = 0.5

_log = logging.getLogger(__name__)


class Turns:
    """Looks at the workspace now and then, at no cost in between."""

    def __init__(self, settings: Settings, role: str) -> None:
        self._view = WorkspaceView(settings)
        self._prefix, self._role = settings.prefix, role
        self._looked_s = -_LOOK_EVERY_S

    def _look(self) -> WorkspaceView:
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            self._view.look()
        return self._view

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait while the workspace is a copy that has not taken over."""
        said = False
        while not until() and self._look().is_copy:
            if not said:
                _log.info("%s is a replay: %s waits for `headwater replay switch`", self._prefix, self._role)
                said = True
            time.sleep(_LOOK_EVERY_S / 2)

    def is_over(self) -> bool:
        """Whether nothing is ingested here any more. Nothing else ends: what was ingested is still to be done."""
        return self._role in ("ingest", "source") and self._look().successor is not None

    def rest(self, until: Callable[[], bool]) -> None:
        """Do nothing for good: who started this role would only start it again."""
        if not self.is_over() or until():
            return
        successor = self._view.successor
        assert successor is not None
        _log.info("%s goes on in %s: nothing is ingested here any more", self._prefix, successor.prefix)
        while not until():
            time.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """Let go of the connection."""
        self._view.close()
