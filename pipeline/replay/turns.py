"""Whose turn it is: while one workspace is a replay of another, only one of the two ingests and delivers.

a copy        ingest, source and deliver wait until the switch: history is not delivered, what comes is ingested once
went on       ingest and source rest for good: the new workspace goes on with the sources where this one stopped

Who waits or rests is alive, and says so where metrics are asked for: else its supervisor would end it again and again.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

from pipeline.errors import BrokerError
from pipeline.replay.former import Former
from pipeline.replay.workspace import old_settings
from pipeline.settings import Settings
from pipeline.workspace_view import WorkspaceView

WAITING = frozenset({"ingest", "source", "deliver"})
_LOOK_EVERY_S = 0.5

_log = logging.getLogger(__name__)


class Turns:
    """Looks at the workspace now and then, at no cost in between."""

    def __init__(self, settings: Settings, role: str) -> None:
        self._settings = settings
        self._view = WorkspaceView(settings)
        self._prefix, self._role = settings.prefix, role
        self._looked_s = -_LOOK_EVERY_S

    def _look(self) -> WorkspaceView:
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_EVERY_S:
            self._looked_s = now_s
            try:
                self._view.look()
            except BrokerError as error:
                # What was known stands. Who does not know yet waits: a copy that were taken for none would deliver its
                # history, and ingest everything once more.
                _log.warning("whose turn it is cannot be read: %s", error.what)
        return self._view

    def wait(self, until: Callable[[], bool]) -> None:
        """Wait while the workspace is a copy that has not taken over, or nobody knows whether it is one."""
        said = is_waiting = False
        with ExitStack() as stack:
            while not until() and ((view := self._look()).is_copy or not view.is_known):
                if not said and view.is_known:
                    _log.info("%s is a replay: %s waits for `headwater replay switch`", self._prefix, self._role)
                    said = True
                if not is_waiting:
                    stack.enter_context(_alive(self._settings))
                    is_waiting = True
                time.sleep(_LOOK_EVERY_S / 2)

    def former(self) -> Former | None:
        """What the workspace has to wait for that it was made from, if it was made from one."""
        origin = self._look().origin
        return Former(old_settings(self._settings, origin), self._settings) if origin is not None else None

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
        with _alive(self._settings):
            while not until():
                time.sleep(_LOOK_EVERY_S)

    def close(self) -> None:
        """Let go of the connection."""
        self._view.close()


@contextmanager
def _alive(settings: Settings) -> Iterator[None]:
    """Serve the metrics of a process that does nothing, at the place of the role's own."""
    if settings.metrics_port is None:
        yield
        return
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError:
        # What this process did before it rested still answers there.
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
