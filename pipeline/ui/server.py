"""The role `ui`: the pages, and the server that serves them."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from pipeline import serving, sockets
from pipeline.api.client import ApiClient
from pipeline.errors import SettingsError
from pipeline.observed import served
from pipeline.settings import Settings
from pipeline.ui.drafts import Drafts
from pipeline.ui.pages import accounts, debugger, destinations, operations, people
from pipeline.ui.pages.builder import Builder
from pipeline.ui.pages.segments import Segments
from pipeline.ui.sessions import Sessions
from pipeline.ui.users import read_users
from pipeline.ui.web import Desk

NAVIGATION = (
    ("/segments", "Segments"),
    ("/people", "People"),
    ("/accounts", "Accounts"),
    ("/destinations", "Destinations"),
    ("/debugger", "Debugger"),
    ("/operations", "Operations"),
)
_LOOK_EVERY_S = 0.2
_STOP_WITHIN_S = 5
_MAX_CONNECTIONS = 1_000

_log = logging.getLogger(__name__)


def users_file(settings: Settings) -> Path:
    """Where the users are kept."""
    return settings.ui.users or settings.state_dir / "users.yaml"


def build_desk(sessions: Sessions, drafts: Drafts, behind_tls: bool = False) -> Desk:
    """All pages."""
    rooms = (people, accounts, destinations, debugger, operations)
    entries = [*Builder(drafts).entries(), *Segments(drafts).entries()]
    entries += [entry for room in rooms for entry in room.entries()]
    return Desk(sessions, tuple(entries), NAVIGATION, behind_tls)


def run(settings: Settings, until: Callable[[], bool]) -> None:
    """Serve until `until()`.

    Raises:
        SettingsError: there are no users. InputError: the address cannot be listened on.
    """
    own = settings.ui
    users = users_file(settings)
    if not read_users(users):
        raise SettingsError(
            "There are no users, so nobody could sign in.",
            str(users),
            "make one with `headwater users create NAME --role operator`",
        )
    sessions = Sessions(users, lambda token: ApiClient(own.api, token), own.session_hours * 3_600, own.max_sessions)
    desk = build_desk(sessions, Drafts(settings.state_dir / "ui" / "drafts"), own.behind_tls)
    served(settings)
    listening = sockets.listen(own.host, own.port, "HEADWATER_UI__PORT")
    try:
        with listening, serving.runner() as runner:
            runner.run(_serve(desk, listening, until))
    finally:
        sessions.close()


async def _serve(desk: Desk, listening: socket.socket, until: Callable[[], bool]) -> None:
    server = serving.server(
        desk.app, most_connections=_MAX_CONNECTIONS, timeout_keep_alive=30, timeout_graceful_shutdown=_STOP_WITHIN_S
    )

    async def watch() -> None:
        while not until():
            await asyncio.sleep(_LOOK_EVERY_S)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    _log.info("the room for people is open at %s", sockets.address(listening))
    try:
        await server.serve(sockets=[listening])
    finally:
        watching.cancel()
