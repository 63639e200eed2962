"""What one `headwater up` needs for itself, looked at before anything is started: its state folder, its ports."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import sockets
from pipeline.collector.settings import CollectorSettings
from pipeline.errors import InputError, SettingsError
from pipeline.settings import Settings

_LAST_PORT = 65_535


@contextmanager
def alone(state_dir: Path) -> Iterator[None]:
    """Nobody else runs `headwater up` on this state folder while the block runs: the roles of two of them would end
    each other again and again, those of the first one too.

    Raises:
        InputError: somebody does.
        SettingsError: the folder cannot be had.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(state_dir / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(
            f"The state folder cannot be used: {error.strerror}.",
            str(state_dir.absolute()),
            "go to a folder that can be written, or set HEADWATER_STATE_DIR to one",
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held_by = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise InputError(
                f"`headwater up` runs here already{f', as process {held_by}' if held_by else ''}.",
                str(state_dir.absolute()),
                "use that one (`headwater address` says where its Kafka is), or stop it; a second workspace needs a "
                "folder of its own",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def see_that_port_is_free(collector: CollectorSettings) -> None:
    """Collectors share a port, so that one of another workspace would be given half of what is sent to this one.

    Raises:
        InputError: somebody listens there.
    """
    if collector.write_keys and collector.port:
        advice = "`collector.port` in headwater.yaml to a free one, or end what listens there"
        sockets.listen(collector.host, collector.port, advice).close()


def see_that_metrics_have_ports(settings: Settings, roles: int) -> None:
    """Each role serves its metrics on a port of its own, from `metrics_port` on.

    Raises:
        SettingsError: there are not so many, or the collector is to listen on one of them.
    """
    if not settings.metrics_port:
        return
    last = settings.metrics_port + roles - 1
    collector = settings.collector
    if last > _LAST_PORT:
        what = (
            f"{roles} roles serve their metrics from {settings.metrics_port} on, and the last port is {_LAST_PORT:,}."
        )
    elif collector.write_keys and settings.metrics_port <= collector.port <= last:
        what = f"Metrics are served on the ports {settings.metrics_port} to {last}, among them that of the collector."
    else:
        return
    raise SettingsError(
        what, "metrics_port", f"set HEADWATER_METRICS_PORT so that {roles} ports from there on are free"
    )
