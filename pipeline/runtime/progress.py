"""How far a worker has come with restoring its state: a small file in the state folder, for who asks from outside.

The worker writes it once a second while it restores, and once when everything is ready; `headwater doctor` reads it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

PATTERN = "progress-*.json"


class RestoringPartition(msgspec.Struct):
    """A partition whose state is read back: changelog offsets. `target` is None until its end is known."""

    partition: int
    start: int
    position: int
    target: int | None


class Progress(msgspec.Struct):
    """One worker. `began_ms` is its last assignment, `ready_ms` when every partition of it was ready (0: not yet);
    `seconds_left` is a guess from the rate so far, None while there is none."""

    role: str
    slot: str
    pid: int
    at_ms: int
    began_ms: int
    ready: list[int]
    restoring: list[RestoringPartition]
    ready_ms: int = 0
    seconds_left: float | None = None
    records_per_second: float = 0.0


Report = Callable[[Progress], None]


def reporter(folder: Path, slot: str) -> Report:
    """Writes the progress of a worker's slot into `folder`; a folder that cannot be written is no reason to stop."""
    path = folder / f"progress-{slot}.json"
    before = path.with_suffix(f".{os.getpid()}.new")

    def report(progress: Progress) -> None:
        progress.slot, progress.pid = slot, os.getpid()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before.write_bytes(msgspec.json.encode(progress))
            before.replace(path)
        except OSError:
            pass

    return report


def reports_in(folder: Path) -> list[Progress]:
    """What workers of a role have reported in `folder`, by slot; files that cannot be read are left out."""
    found = []
    for path in sorted(folder.glob(PATTERN)):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=Progress))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
    return found
