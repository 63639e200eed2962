"""How a destination answers, as its worker last saw it, for who asks from outside.

It stands in two places: whole, in a small file of the state folder, for who is on the same machine, until somebody is
erased; and in the note that Kafka keeps beside the group's committed position, for everybody else. There it is only
the beginning of what the destination said: the rest might repeat whom it was about, and notes are nobody's to erase.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

_FOLDER = "deliver"
_BEGINS = "|"
_BRIEFLY = 120


class Health(msgspec.Struct):
    """What a worker says of its destination. `failure` is what it answered last where `up` is false."""

    destination: str
    up: bool
    at_ms: int
    failure: str = ""


TellHealth = Callable[[Health], None]


def health_file(state_dir: Path, slot: str) -> TellHealth:
    """Writes what the worker of a slot says; a folder that cannot be written is no reason to stop."""
    folder = state_dir / _FOLDER

    def tell(health: Health) -> None:
        path = folder / f"health-{health.destination}-{slot}.json"
        before = path.with_suffix(f".{os.getpid()}.new")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            before.touch(mode=0o600)
            before.write_bytes(msgspec.json.encode(health))
            before.replace(path)
        except OSError:
            pass

    return tell


def healths_in(state_dir: Path) -> dict[str, Health]:
    """What was last said of each destination on this machine; of several slots the one that is in trouble."""
    found: dict[str, Health] = {}
    for path in sorted((state_dir / _FOLDER).glob("health-*.json")):
        try:
            health = msgspec.json.decode(path.read_bytes(), type=Health)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        known = found.get(health.destination)
        if known is None or (known.up and not health.up) or (known.up is health.up and known.at_ms < health.at_ms):
            found[health.destination] = health
    return found


def noted(note: str, health: Health) -> str:
    """The note beside a position, and that the destination fails, where it does."""
    if health.up:
        return note
    return f"{note}{_BEGINS}{health.at_ms}{_BEGINS}{briefly(health.failure)}"


def briefly(failure: str) -> str:
    """What a destination answered without its own words, which might repeat whom it was about: "HTTP 503"."""
    return "".join(c for c in failure.partition(": ")[0] if c.isprintable())[:_BRIEFLY]


def split_note(text: str) -> tuple[str, str]:
    """What was committed beside a position: the note, and what is said of the destination ("" while it is well)."""
    note, _, said = text.partition(_BEGINS)
    return note, said


def health_in_notes(destination: str, notes: Iterable[str]) -> Health | None:
    """What workers say of a destination beside their positions; None if none of them says anything."""
    found: Health | None = None
    for text in notes:
        at, _, failure = split_note(text)[1].partition(_BEGINS)
        if at.isdigit() and len(at) < 16 and (found is None or int(at) > found.at_ms):
            found = Health(destination, False, int(at), failure)
    return found
