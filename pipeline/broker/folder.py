"""The folder of a Kafka that was started here: who runs it, and at which address."""

import fcntl
import json
import os
import time
from pathlib import Path

from pipeline.errors import BrokerError

_ADDRESS = "address.json"


def announce(folder: Path, bootstrap_servers: str) -> None:
    """Leave the address of a running Kafka in its folder, for other processes of this machine."""
    fresh = folder / f"{_ADDRESS}.{os.getpid()}"
    fresh.write_text(json.dumps({"bootstrap_servers": bootstrap_servers}))
    fresh.replace(folder / _ADDRESS)


def withdraw(folder: Path) -> None:
    """Take the address back."""
    (folder / _ADDRESS).unlink(missing_ok=True)


def announced(folder: Path) -> str | None:
    """The address of the Kafka that runs in this folder; None if none does, or it is just starting. BrokerError."""
    if not is_locked(folder):
        return None  # what it left behind when it was killed does not count
    try:
        return str(json.loads((folder / _ADDRESS).read_text())["bootstrap_servers"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def lock_folder(folder: Path, within_s: float) -> int:
    """Lock a Kafka's folder; the descriptor that holds the lock. It waits a little for a predecessor that is ending.

    BrokerError if another process keeps it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + within_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise BrokerError(
                    "Another process runs the Kafka of this folder.", str(folder), "use that one, or end it"
                ) from None
            time.sleep(0.1)


def is_locked(folder: Path) -> bool:
    """Whether a process runs a Kafka in this folder (or is just ending one). BrokerError: it may not be looked into."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BrokerError(
            f"Whether a Kafka runs here cannot be seen: {error.strerror}.",
            str(folder),
            "run this as the user of the state folder, or name another: HEADWATER_STATE_DIR",
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
