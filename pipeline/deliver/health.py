"""How a destination answers, as its worker last saw it: a small file in the state folder, for who asks from outside."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

_FOLDER = "deliver"


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
        except (OSError, msgspec.MsgspecError):
            continue
        known = found.get(health.destination)
        if known is None or (known.up and not health.up) or (known.up is health.up and known.at_ms < health.at_ms):
            found[health.destination] = health
    return found
