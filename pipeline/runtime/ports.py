"""What a stage may see of the runtime.

A stage is a pure function of the records it consumed. It meets the world through three things only: the `Record` it
is given, the `State` it reads and writes, and the `Outputs` it sends. The same protocols stand before Kafka and
RocksDB, and before the memory adapters of the tests.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol


class Record(NamedTuple):
    """One consumed record. `topic` is the logical name, without the workspace's prefix; `timestamp_ms` is Kafka's.
    `appended_ms` is the same where the broker stamped it when it took the record in; 0 where its producer did."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()
    appended_ms: int = 0


class State(Protocol):
    """A task's state as a stage sees it: committed values under the overlay of the running batch.

    Values are decoded objects, kept in a bounded cache across batches. An object that `get` returned may be changed
    in place, if it is `put` again in the same step: the runtime encodes what was put, once per batch, and forgets
    every object the batch touched when the batch is aborted.
    """

    def get(self, key: bytes) -> Any | None:
        """The value under `key`, or None."""
        ...

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        """Keep `value` under `key`; `wake_at` (ms, 0 for never) enters `key` in the time index, replacing its entry."""
        ...

    def delete(self, key: bytes) -> None:
        """Remove `key` and its entry in the time index."""
        ...

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        """These keys, one after the other, each to be asked for behind `prefix` before the next one is taken: what the
        store has of the next ones is read meanwhile. What is read so is as it was before this batch."""
        ...

    def rest(self, prefix: bytes) -> None:
        """Between two steps: all but the last few values under keys with this prefix may go to rest. What `get` gives
        afterwards is equal to what it gave before, but need not be the same object. Always the same prefix."""
        ...

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        """All keys that start with `prefix`, in byte order, the overlay included."""
        ...

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to `limit` entries (wake_at, key) of the time index with wake_at <= until_ms, earliest first, then by key.
        An entry stays until its key is put again or deleted."""
        ...

    def first_wake(self) -> int | None:
        """The earliest wake_at in the time index, or None."""
        ...

    def scrub(self, prefix: bytes) -> None:
        """What stood under keys with this prefix before this batch is to go from the disk too, in a while. A store only
        ever appends: a value that was replaced or deleted stays in its files until they are rewritten."""
        ...


class Outputs(Protocol):
    """What a stage sends. Everything sent in a batch becomes visible in one transaction, or not at all."""

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        """Append a record to a log topic; without a partition, murmur2 of the key chooses it."""
        ...

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        """Set the value of a key in a compacted topic (None: a tombstone). The last one of a transaction is written.
        murmur2 of `by` chooses the partition, where it is not the key itself that does: always the same of a key."""
        ...


class PlacedOutputs(Outputs, Protocol):
    """Outputs of records that are not taken in their order."""

    def at(self, place: int) -> None:
        """What is logged from here on is said of the record at this place in the batch. It stands in the log in the
        order of places, whatever the order is in which it is said."""
        ...


class Stage(Protocol):
    """One stage of the pipeline, as one task runs it. Pure: no clock, no random number, no I/O.

    The runtime makes one stage object per task. What a stage keeps in its own attributes must be a cache: after a
    crash it is made anew, from the state alone; after an abort `forget` is called.
    """

    def step(self, record: Record, state: State, out: Outputs) -> None:
        """Consume one record."""
        ...

    def finish(self, state: State, out: Outputs) -> None:
        """End a micro-batch: send what is sent once per batch (the compacted topics)."""
        ...

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        """Called between batches by the door that owns the clock; may send a tick to the stage's own input."""
        ...

    def forget(self) -> None:
        """Drop every cache: the batch was aborted and its changes to the state never happened."""
        ...

    def encode(self, key: bytes, value: Any) -> bytes:
        """The stored form of a value."""
        ...

    def decode(self, key: bytes, data: bytes) -> Any:
        """The value of a stored form."""
        ...


class StepsMany(Protocol):
    """What a stage has besides, if several records at once cost it less than one after the other."""

    def step_many(self, records: list[Record], places: Sequence[int], state: State, out: PlacedOutputs) -> None:
        """Consume those of a batch's `records` that stand at these places: all are of one partition, in their order,
        which may be taken in any other that leads to the same: the same state, and the same records in the same order.
        `out.at` is told the place of each before anything is done about it."""
        ...


class KeepsTime(Protocol):
    """What a stage has besides, if others of its role rely on how far it has come in time."""

    def in_time(self) -> tuple[int, int]:
        """A clock: everything it consumes that was received up to then (ms), it has consumed. And the first instant up
        to that at which it has still to do something, 0 if there is none. As of the batch that is stepped: they are
        kept with the batch's positions, for the whole group to see (`runtime/watermark.py`)."""
        ...


class KeepsMore(Protocol):
    """What a stage has besides, if it keeps more of a value than the value itself."""

    def resting(self, key: bytes, again: bool) -> None:
        """The value of this key goes to rest: hold it no longer. Outputs may still be sent. `again`: it has been at
        rest before, and came again while it was still in memory, as it may once more."""
        ...

    def let_go(self, keys: Iterable[bytes]) -> None:
        """The runtime keeps the values of these keys in memory no longer: forget what was made of them."""
        ...


class CanWait(Protocol):
    """What a stage has besides, if its role has a `patient` input."""

    def can_wait(self, record: Record) -> bool:
        """Whether a record of that input is long work that nobody waits for. What comes while it is stepped goes with
        it, into one transaction; and a batch has one turn of it: what else can wait, and what stands behind that in its
        partition, is of the next."""
        ...


class ReadsHistory(Protocol):
    """What a stage has besides, if its role has a `history`: it may ask for the past of that input."""

    def history(self, state: State) -> tuple[int, int] | None:
        """The positions between which the partition's past is to be read now; None if there is nothing to read."""
        ...

    def fold_history(self, records: Sequence[Record], reached: int, state: State, out: Outputs) -> None:
        """Take in the next slice of the past, which ends at the position `reached`; `finish` follows. It may be given
        twice, if it was not committed: how far it has come is part of the state."""
        ...

    def put_aside(self, record: Record, state: State, out: Outputs) -> None:
        """A record of the input, which `step` had refused, became a dead letter."""
        ...
