"""What a copier is plugged into, and how fast it goes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.identifiers import Keys
from pipeline.identity import IdentityRules
from pipeline.runtime.adapters import Clock, LogReader, Producer
from pipeline.workspaces import ReplayPosition, UnlinkCopied


@dataclass(frozen=True, slots=True)
class CopySettings:
    """Paces of a copier, in records. `ahead`: how many may be on their way in the new workspace, besides the words
    that tell its partitions the time; `at_hand`: how many of one old partition may wait in memory for the others.
    `apart_ms`: how far apart in time what is on its way may be (None: a day, or a quarter of what pseudonyms live)."""

    batch: int = 4_000
    ahead: int = 16_000
    at_hand: int = 20_000
    read: int = 10_000
    wait_s: float = 0.05
    apart_ms: int | None = None

    @property
    def at_once(self) -> int:
        """How many are sent together, once there is room for so many: few enough not to wait for all others."""
        return max(1, min(self.batch, self.ahead // 2))


class Committed(NamedTuple):
    """How far former copiers came: their position, which erasures (actor's key → received) they copied, and which
    unlinks and undoings (the last by the old decision's key)."""

    position: ReplayPosition | None
    erasures: Mapping[bytes, int]
    unlinks: Mapping[bytes, UnlinkCopied]


def _as_it_is(actor: bytes, name: str, value: bytes) -> bytes:
    return value


@dataclass(frozen=True, slots=True)
class Ports:
    """What the copier is plugged into. `old` reads the old workspace's topics; `producer` writes the new one's.

    `committed` gives how far former ones came. `in_flight` counts what the new workspace has not taken in yet;
    `at_rest` tells whether nothing is left of it, loops included. `cuts` tells of actors that were erased up to where
    in the old `events`: (partition, offset); `names` which of them the new workspace knows, and by which names.
    `seal` puts an event (its route's actor, its name, its encoding) under the new workspace's keys; what `old` reads is
    open, and has no value where its key was destroyed.
    """

    old: Callable[[], LogReader]
    partitions: int
    new_partitions: int
    producer: Producer
    committed: Callable[[], Committed]
    in_flight: Callable[[], int]
    at_rest: Callable[[], bool]
    cuts: Callable[[Sequence[bytes]], Mapping[bytes, tuple[int, int]]]
    names: Callable[[Collection[bytes]], Mapping[bytes, str]]
    rules: Callable[[], IdentityRules]
    keys: Keys
    clock: Clock
    settings: CopySettings = field(default_factory=CopySettings)
    seal: Callable[[bytes, str, bytes], bytes] = _as_it_is
