"""What the deliver role needs of the log: one destination's deliveries, the group's positions, the dead letters."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.runtime.ports import Record

DeadLetterRecord = tuple[int, bytes | None, bytes]
"""(partition, key, value)"""


class Listener(Protocol):
    """Told of a rebalance, always from within `read` or `close`."""

    def assigned(self, positions: Mapping[int, tuple[int, str]]) -> None:
        """These partitions are this worker's, from these positions, with the notes that stood beside them."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """These partitions go elsewhere once this returns; `commit` still works for them."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """These partitions have gone elsewhere already."""
        ...


class DeliveryLog(Protocol):
    """A member of one destination's group."""

    def subscribe(self, listener: Listener) -> None:
        """Join the group."""
        ...

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        """Up to `limit` committed records, those that wait first; perhaps none. To be called again and again, also
        while paused: it keeps the membership."""
        ...

    def pause(self) -> None:
        """Give no records until `resume`."""
        ...

    def resume(self) -> None: ...

    def commit(self, positions: Mapping[int, tuple[int, str]], wait: bool = False) -> None:
        """Keep positions and their notes for the group. An error only means that more is repeated after a restart."""
        ...

    def put_aside(self, letters: Sequence[DeadLetterRecord]) -> None:
        """Write dead letters; returns when they are safe. Raises BrokerError."""
        ...

    def tell_progress(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write (key, value) to `privacy-progress`; returns when they are safe. Raises BrokerError."""
        ...

    def tell_outcomes(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Write raw events (key, value) to the first source; returns when they are safe. Raises BrokerError."""
        ...

    def close(self) -> None:
        """Leave."""
        ...
