"""What the worker needs of the world, as ports. `kafka`, `rocksdb` and `memory` stand behind them.

Every topic name here is the logical one, without the workspace's prefix. A partition is the pair (topic, number);
a position is the offset of the next record to read. Calls raise the errors of `errors.py` and nothing else.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from pipeline.runtime.ports import Record

Partition = tuple[str, int]
Outgoing = tuple[str, bytes | None, bytes | None, int | bytes]
"""(topic, value, key, partition); partition -1: murmur2 of the key chooses it; bytes: murmur2 of these does."""

Change = tuple[bytes | None, bytes | None]
"""(key, value) of a changelog record; None: a tombstone."""

Clock = Callable[[], int]
"""Milliseconds since the epoch."""

CHOOSE_BY_KEY = -1
NO_NOTES: Mapping[Partition, str] = {}


class Committed(NamedTuple):
    """A group's position in a partition, and what is kept beside it: of an input, the id that the topic had when it was
    committed; of a changelog, how far its task had come in time. "": not known."""

    position: int
    note: str = ""


class Membership(NamedTuple):
    """The proof of group membership that goes with the offsets of a transaction; `generation` -1 proves nothing."""

    token: Any
    generation: int


class Listener(Protocol):
    """Told of a rebalance, always from within `Consumer.consume`."""

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These partitions are this member's; all of them are held until `Consumer.start`."""
        ...

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These partitions will go elsewhere once this returns."""
        ...

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These partitions have gone elsewhere already."""
        ...


class Consumer(Protocol):
    """A member of the group that reads committed records."""

    def subscribe(self, topics: Sequence[str], listener: Listener) -> None:
        """Join the group."""
        ...

    def consume(self, limit: int, timeout_s: float) -> list[Record]:
        """Up to `limit` records: those that wait now, or, when none does, the first to come within `timeout_s`."""
        ...

    def start(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these positions on: releases held ones, rewinds others."""
        ...

    def hold(self, partitions: Iterable[Partition]) -> None:
        """Give nothing of these partitions until `start`."""
        ...

    def committed(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, Committed | None]:
        """The group's positions (None: none). Retriable while a transaction that may change them is open."""
        ...

    def membership(self) -> Membership:
        """The present membership; to be taken before the records of a batch are processed."""
        ...

    def lag(self, partition: Partition) -> int | None:
        """Offsets that wait in a started partition, as last seen while reading (up to 100 ms ago); None if unknown."""
        ...

    def end(self, partition: Partition) -> int | None:
        """The end of a partition, as last seen while reading or when it was assigned; None if unknown."""
        ...

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        """(first position that still exists, end of the committed records)."""
        ...

    def close(self) -> None: ...


class Producer(Protocol):
    """The transactional producer of a worker slot."""

    def init(self, timeout_s: float) -> None:
        """Fence every former producer of this slot and end what it left open."""
        ...

    def begin(self) -> None: ...

    def send(self, records: Iterable[Outgoing]) -> None:
        """Hand records over, in order."""
        ...

    def send_changelog(self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Hand the (key, value) pairs of a task's changes over, in order; `flush` tells where the last one came to."""
        ...

    def flush(self, timeout_s: float) -> dict[Partition, int]:
        """Wait until everything handed over is in the log. Gives the highest offset per changelog partition of this
        transaction; one that the broker did not tell is missing."""
        ...

    def send_offsets(
        self,
        positions: Mapping[Partition, int],
        membership: Membership,
        timeout_s: float,
        notes: Mapping[Partition, str] = NO_NOTES,
    ) -> None:
        """Let positions be committed with the transaction; a note is kept beside its position."""
        ...

    def commit(self, timeout_s: float) -> None: ...

    def abort(self, timeout_s: float) -> None: ...

    def close(self) -> None: ...


class LogReader(Protocol):
    """Reads partitions back: committed records only, where nothing else is said of it."""

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        """(first position that still exists, high watermark as an uncommitted reader sees it)."""
        ...

    def open(self, partition: Partition, position: int) -> None: ...

    def read(self, limit: int, timeout_s: float) -> list[Record]:
        """Up to `limit` records of the open partitions."""
        ...

    def read_changes(self, limit: int, timeout_s: float) -> dict[int, list[Change]]:
        """The same of a changelog, by partition, and no more than a restore needs: all partitions that are open must be
        of one topic."""
        ...

    def position(self, partition: Partition) -> int:
        """How far a partition has been read; passes control and aborted records."""
        ...

    def close_partition(self, partition: Partition) -> None: ...

    def close(self) -> None: ...


class Admin(Protocol):
    """The requests a running worker makes beside its loop."""

    def partition_counts(self, topics: Sequence[str], timeout_s: float) -> dict[str, int]: ...

    def topic_ids(self, topics: Sequence[str], timeout_s: float) -> dict[str, str]:
        """The ids by which the broker tells a topic from a former one of the same name; without those it does not tell
        or may not tell this user."""
        ...

    def topic_ids_lately(self, topics: Sequence[str]) -> dict[str, str]:
        """The same, without waiting: what was answered last, while it is asked again."""
        ...

    def ends(self, topics: Sequence[str], timeout_s: float) -> dict[Partition, tuple[int, int]]:
        """(last stable offset, high watermark) of every partition of these topics that is there; a name that ends in a
        dot stands for all that begin with it. They differ where a transaction is open."""
        ...

    def positions_at(self, partitions: Sequence[Partition], time_ms: int, timeout_s: float) -> dict[Partition, int]:
        """The first position whose record was written at this time or later; one past the end where there is none."""
        ...

    def delete_records(self, positions: Mapping[Partition, int]) -> None:
        """Let records below these positions go; need not have happened when this returns, nor at all."""
        ...


@dataclass(slots=True)
class StoreMeta:
    """Where a store stands: written with the values, in one atomic write.

    `changelog` is the position up to which the changelog is in the store, `inputs` the positions of the input topics
    after the last committed batch, `written_ms` the wall clock of the last write. `topic_ids` are those that the input
    topics and the changelog had then, as far as they were known. `of` is the partition of the changelog that it is
    kept for: topic/number.
    """

    changelog: int = 0
    inputs: dict[str, int] = field(default_factory=dict)
    written_ms: int = 0
    format: int = 1
    topic_ids: dict[str, str] = field(default_factory=dict)
    of: str = ""


class Store(Protocol):
    """The local state of one task: values and a time index, changed only by whole batches."""

    def meta(self) -> StoreMeta | None:
        """Where the store stands, or None for a new one."""
        ...

    def get(self, key: bytes) -> bytes | None: ...

    def reading(self, keys: list[bytes]) -> Callable[[], list[bytes | None]]:
        """Begin to read the values of these keys, beside whatever goes on. What is given waits for them; where it is
        never called, `close` does."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key starts with `prefix`, in byte order."""
        ...

    def size(self) -> tuple[int, int]:
        """(keys, bytes), about."""
        ...

    def timers(self, start: tuple[int, bytes] = (0, b"")) -> Iterator[tuple[int, bytes]]:
        """The rows (wake_at, key) of the time index from `start` on, in order."""
        ...

    def write(
        self,
        values: Iterable[tuple[bytes, bytes | None]],
        timers_gone: Iterable[tuple[int, bytes]],
        timers_new: Iterable[tuple[int, bytes]],
        meta: StoreMeta,
    ) -> None:
        """Apply one batch, all of it or nothing. Rows of the time index go before new ones come."""
        ...

    def restore(self, values: Mapping[bytes, bytes | None], meta: StoreMeta) -> None:
        """Apply a slice of the changelog, all of it or nothing; rows of the time index come with the wake-up times that
        the values begin with. Rows that do not hold any more are left: whoever reads the index compares them."""
        ...

    def scrub(self, prefixes: Iterable[bytes]) -> None:
        """Begin to rewrite the files that may hold former values under these prefixes; `close` waits for the end."""
        ...

    def is_scrubbing(self) -> bool:
        """Whether that is still under way."""
        ...

    def close(self) -> None: ...


class Stores(Protocol):
    """Opens the store of a partition of this role."""

    def open(self, partition: int) -> Store: ...

    def wipe(self, partition: int) -> None:
        """Delete a closed store."""
        ...


@dataclass(frozen=True, slots=True)
class Adapters:
    """Everything a worker is plugged into. A role without a changelog needs neither `reader` nor `stores`; `history`
    makes a reader of its own for a role that has one. `look` makes a reader for a while: with True of what is
    committed, with False of everything, that of open and of aborted transactions too."""

    consumer: Consumer
    producer: Producer
    admin: Admin
    clock: Clock
    reader: LogReader | None = None
    stores: Stores | None = None
    history: Callable[[], LogReader] | None = None
    look: Callable[[bool], LogReader] | None = None
