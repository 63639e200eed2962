"""What one `headwater up` needs for itself, looked at before anything is started: its state folder, its port."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline import serving
from pipeline.collector.settings import CollectorSettings
from pipeline.errors import InputError, SettingsError


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
        serving.listen(collector.host, collector.port, advice).close()
