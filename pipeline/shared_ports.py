"""Whose a port is that processes of one workspace share: the kernel would give another workspace's half of what comes.

Each holds a lock on a file of the machine while it lives, in which the workspace stands that the port belongs to.
"""

import fcntl
import os
import tempfile
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from pipeline.errors import InputError
from pipeline.settings import Settings

_held: list[int] = []


def claim(settings: Settings, host: str, port: int, setting: str) -> None:
    """Take the port for this workspace, until the process ends. Where there is no place for the file, nothing is held.

    Raises:
        InputError: another workspace has it; `setting` is where to choose another.
    """
    if not port:
        return
    # The secret tells apart what has the same prefix on two Kafkas; addresses of one are written in many ways.
    mine = blake2b(settings.prefix.encode(), digest_size=16, key=settings.secret_bytes()[:64]).hexdigest().encode()
    try:
        place = Path(tempfile.gettempdir()) / f"headwater-{os.getuid()}-{port}.port"
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, mine, 0)
    # Not at one stroke: who comes in between writes its own, and is who has it then.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.pread(descriptor, 100, 0) != mine:
        os.close(descriptor)
        raise InputError(
            "A process of another workspace listens there: each would be given half of what is asked.",
            f"{host}:{port}",
            f"set {setting}",
        )
    _held.append(descriptor)


def let_go() -> None:
    """Give back what this process has claimed."""
    while _held:
        os.close(_held.pop())
