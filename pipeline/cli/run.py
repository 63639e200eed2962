"""`headwater run`: one role, for a container."""

import ctypes
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer

from pipeline import settings as settings_module
from pipeline.admin import refuse_other_partitions
from pipeline.broker import find_kafka
from pipeline.errors import HeadwaterError, InputError, SettingsError
from pipeline.replay.turns import WAITING, Turns
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.failpoints import failpoints_from
from pipeline.secret_check import refuse_another_secret
from pipeline.settings import Settings

_PR_SET_PDEATHSIG = 1
# Roles that are doors: the module with `run`; each has an extra of its own name.
DOORS = {"api": "pipeline.api.server", "collector": "pipeline.collector.server", "ui": "pipeline.ui.server"}
# It asks the API, and no Kafka.
_WITHOUT_KAFKA = "ui"
# Each of these must hear from, or tell, every partition.
_COUNTS_PARTITIONS = frozenset(("ingest", "identity", "unify"))
_KEEPS_STATE = frozenset(("identity", "unify", "api"))
_DERIVES_KEYS = frozenset(("ingest", "identity", "unify", "deliver", "privacy", "api", "collector"))
ROLES = ("ingest", "identity", "unify", "deliver", "privacy", "archive", "source", *DOORS)


class RoleStopped(HeadwaterError):
    """A worker cannot go on; what it had committed stands, and a new process takes up from there."""


def command(
    role: Annotated[str, typer.Argument(help=f"One of {', '.join(ROLES)}.")],
    name: Annotated[
        str | None, typer.Argument(help="deliver: only this destination; source: only this source.")
    ] = None,
    slot: Annotated[str | None, typer.Option(help="The worker's place; unique per role, the same at restarts.")] = None,
    end_with: Annotated[int | None, typer.Option(hidden=True, help="End when this parent process does.")] = None,
) -> None:
    """Run one role until SIGTERM or Ctrl-C. Several workers of a role share its partitions: give each its own --slot.

    A worker that ends with an error is to be started again, by whatever runs it: it recovers from what was committed.

    Example: headwater run unify --slot 1
    """
    if role not in ROLES:
        raise InputError(f"There is no role {role}.", "", f"roles are {', '.join(ROLES)}")
    if end_with is not None:
        _end_with(end_with)
    settings = settings_module.load(slot=slot)
    _log_as_much_as(settings.log_level)
    _see_that_metrics_have_a_place(settings)
    if role in _KEEPS_STATE:
        _see_that_state_has_a_place(settings)
    if role != _WITHOUT_KAFKA:
        settings = find_kafka(settings)
    if role in _DERIVES_KEYS:
        refuse_another_secret(settings)
    if role in _COUNTS_PARTITIONS:
        refuse_other_partitions(settings)
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        _run(role, settings, name, lambda: bool(asked))
    except WorkerStopped as stopped:
        raise RoleStopped(f"{role} stopped: {stopped}", f"slot {settings.slot}", "start it again") from stopped


def _log_as_much_as(level: str) -> None:
    """What `log_level` says holds for a role; `--verbose` is above it."""
    root = logging.getLogger()
    if root.level != logging.DEBUG:
        root.setLevel(level.upper())


def _see_that_metrics_have_a_place(settings: Settings) -> None:
    """Raises InputError: somebody else listens on `metrics_port`, or `metrics_host` is no address of this machine."""
    if settings.metrics_port is None:
        return
    family = socket.AF_INET6 if ":" in settings.metrics_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((settings.metrics_host, settings.metrics_port))
        except OSError as error:
            raise InputError(
                f"The metrics cannot be served: {error.strerror or error}.",
                f"{settings.metrics_host}:{settings.metrics_port}",
                "give each role of a machine a HEADWATER_METRICS_PORT of its own",
            ) from None


def _see_that_state_has_a_place(settings: Settings) -> None:
    """Raises SettingsError: `state_dir` is no folder that can be written."""
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        said = None if os.access(settings.state_dir, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        said = error.strerror or str(error)
    if said is not None:
        raise SettingsError(
            f"The state cannot be kept: {said}.",
            str(settings.state_dir),
            "set HEADWATER_STATE_DIR to a folder that can be written",
        )


def _door(role: str) -> Any:
    return _imported(role, DOORS[role])


def _archive() -> Any:
    return _imported("archive", "pipeline.archive.role")


def _imported(role: str, module: str) -> Any:
    try:
        return import_module(module).run
    except ModuleNotFoundError as missing:
        raise InputError(
            f"The role {role} needs a package that is not installed: {missing.name}.",
            "",
            f"pip install 'headwater[{role}]'",
        ) from None


def _run(role: str, settings: Settings, name: str | None, until: Callable[[], bool]) -> None:
    turns = Turns(settings, role) if role in WAITING else None
    if turns is not None:
        turns.wait(until)
        if until():
            return
    if role == "deliver":
        from pipeline.deliver import run_deliver

        assert turns is not None
        former = turns.former()
        run_deliver(settings, name, until, former.has_handed_over if former is not None else None)
    elif role == "privacy":
        from pipeline.privacy.role import run as run_privacy

        run_privacy(settings, until=until)
    elif role == "source":
        from pipeline.sources.role import run as run_sources

        assert turns is not None
        if not turns.is_over():
            run_sources(settings, name, until=lambda: until() or turns.is_over())
        turns.rest(until)
    elif role == "archive":
        _archive()(settings, until=until)
    elif role in DOORS:
        _door(role)(settings, until=until)
    elif turns is None:
        from pipeline.roles import run_stage

        run_stage(role, settings, until, failpoints_from(os.environ))
    else:
        from pipeline.roles import run_stage

        if not turns.is_over():
            run_stage(role, settings, lambda: until() or turns.is_over(), failpoints_from(os.environ))
        turns.rest(until)


def _end_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before this process could ask to be told
        sys.exit(1)
