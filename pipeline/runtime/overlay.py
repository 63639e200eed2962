"""A task's state: committed values under the overlay of the running batch, and the outputs of the batch.

A stored value is its wake-up time (8 bytes, big-endian, 0 for none) and the stage's own encoding. The time index is
derived from that header. A row of it can be stale where a value was replaced unread (a blind `put`, a restore):
every row is therefore compared with the header before anyone is told of it, and dropped with the next commit if stale.

Values live in two dictionaries: what was used lately, and what was used before that. When the first is full it becomes
the second, and what the second held is forgotten: the least recently used go, at no cost per use. They go bit by bit,
with each commit twice as many as have come since the last one: 25,000 at once would be a pause of 10 ms.

A stage that calls `rest` between its steps keeps only the last few values awake, as objects; all others are at rest, as
the bytes they are stored as. A value is encoded while it is still in the processor's cache: a hundred objects that have
gone cold cost more to visit than to make anew of bytes that lie side by side. A stage that makes more of one is told
when the value goes to rest, and when it is forgotten.

Where many values are only in the store, a stage says which ones it is going to ask for (`ahead`): a thread reads the
next ones while those before are worked on.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from pipeline.runtime.adapters import CHOOSE_BY_KEY, Outgoing, Store
from pipeline.runtime.errors import WorkerStopped

HEADER = 8
RESERVED = b"\x00"
"""State keys that begin with this byte are the runtime's own."""

_UNKNOWN = -1
# So many values are read ahead at first, then twice as many each time: the first are waited for. Fewer than the least
# are read by the time another thread has heard of them.
FIRST_AHEAD = 125
MOST_AHEAD = 2_000
LEAST_AHEAD = 32
# If fewer than one of so many values was missing in the last batch, to look for those that are costs more.
MANY = 8
# How many values stay awake: their objects, and what a step makes of them, fit into a core's own cache.
AWAKE = 32
# So many values at least are forgotten with a commit, where there are any to be forgotten.
FORGOTTEN_AT_ONCE = 256
# What was said in so many places is fetched from memory at once.
FETCHED = 32
# What is kept besides the bytes of a value: the key, the entry, and what the stage has made of it.
BESIDE_BYTES = 3_000
_Row = tuple[int, bytes]


class _Entry:
    """A value: awake (`value`), at rest (`data`, as it is stored), both, or neither where there is none; `data` is None
    while it is not that of the value. Its wake-up time, the one in the store (-1: unknown), its size in memory; whether
    it has been at rest before, is to go to rest, and was changed by the running batch."""

    __slots__ = ("data", "has_rested", "is_awake", "is_dirty", "key", "size", "stored_wake", "value", "wake")

    def __init__(self, key: bytes, value: Any, data: bytes | None, wake: int, stored_wake: int, size: int) -> None:
        self.key = key
        self.value = value
        self.data = data
        self.wake = wake
        self.stored_wake = stored_wake
        self.size = size
        self.has_rested = False
        self.is_awake = False
        self.is_dirty = False

    @property
    def is_there(self) -> bool:
        """Whether there is a value."""
        return self.value is not None or self.data is not None


class Changes:
    """What a batch changes in the store: encoded values, and rows of the time index that go and come."""

    __slots__ = ("scrubs", "timers_gone", "timers_new", "values")

    def __init__(
        self,
        values: list[tuple[bytes, bytes | None]],
        timers_gone: list[_Row],
        timers_new: list[_Row],
        scrubs: frozenset[bytes] = frozenset(),
    ) -> None:
        self.values = values
        self.scrubs = scrubs
        self.timers_gone = timers_gone
        self.timers_new = timers_new


class TaskState:
    """`State` of one task over its store. `cache_objects` and `cache_bytes` bound the decoded values kept: how many,
    and the memory they are reckoned to take. `let_go` is told the keys of those that were forgotten, `resting`
    the key of one that goes to rest: just before, while it is awake."""

    def __init__(
        self,
        store: Store,
        encode: Callable[[bytes, Any], bytes],
        decode: Callable[[bytes, bytes], Any],
        cache_objects: int,
        cache_bytes: int,
        let_go: Callable[[Iterable[bytes]], None] | None = None,
        resting: Callable[[bytes, bool], None] | None = None,
    ) -> None:
        self.loads = 0
        self.hits = 0
        self._missed = 0
        self._many_missed = True
        self._let_go = let_go
        self._resting = resting
        self._rests = b""
        self._awake: deque[_Entry] = deque()
        self._store = store
        self._encode = encode
        self._decode = decode
        self._half_objects = max(1, cache_objects // 2)
        self._half_bytes = max(1, cache_bytes // 2)
        self._recent: dict[bytes, _Entry] = {}
        self._older: dict[bytes, _Entry] = {}
        self._leaving: dict[bytes, _Entry] = {}
        self._recent_bytes = 0
        self._recent_before = 0
        # Each of these is among the recent ones too.
        self._dirty: list[_Entry] = []
        self._stale: set[_Row] = set()
        self._scrubs: set[bytes] = set()
        # No stored row is before this one: rows deleted at the head of the index are not walked over again.
        self._floor: _Row = (0, b"")

    # -------------------------------------------------------------------------------------- what a stage calls

    def get(self, key: bytes) -> Any | None:
        entry = self._recent.get(key)
        if entry is None:
            entry = self._find(key)
            if entry is None:
                return None
        value = entry.value
        if value is None and entry.data is not None:
            value = entry.value = self._decode(key, entry.data[HEADER:])
            self._wake(entry)
        return value

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        entry = self._recent.get(key) or self._promote(key)
        if entry is None:
            entry = self._recent[key] = _Entry(key, value, None, wake_at, _UNKNOWN, 0)
        if not entry.is_dirty:
            entry.is_dirty = True
            self._dirty.append(entry)
        entry.value = value
        entry.data = None
        entry.wake = wake_at
        self._wake(entry)

    def _wake(self, entry: _Entry) -> None:
        """Its value is an object now: if it is one that rests, it has its turn."""
        if not entry.is_awake and self._rests and entry.key.startswith(self._rests):
            entry.is_awake = True
            self._awake.append(entry)

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        if not self._many_missed or len(keys) < FIRST_AHEAD:
            return iter(keys)
        return self._reading_ahead(prefix, keys)

    def _reading_ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        at, size = 0, FIRST_AHEAD
        reading = self._read(prefix, keys[:size])
        while at < len(keys):
            these = keys[at : at + size]
            at += len(these)
            size = min(2 * size, MOST_AHEAD)
            for key, data in reading():
                if key not in self._recent:
                    self._keep_stored(key, data)
            reading = self._read(prefix, keys[at : at + size])
            yield from these

    def rest(self, prefix: bytes) -> None:
        self._rests = prefix
        awake = self._awake
        while len(awake) > AWAKE:
            entry = awake.popleft()
            entry.is_awake = False
            value = entry.value
            if value is None:
                continue
            if self._resting is not None:
                self._resting(entry.key, entry.has_rested)
            entry.has_rested = True
            if entry.data is None:
                entry.data = entry.wake.to_bytes(HEADER, "big") + self._encode(entry.key, value)
            entry.value = None

    def delete(self, key: bytes) -> None:
        self.put(key, None, 0)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        changed = sorted(entry.key for entry in self._dirty if entry.key.startswith(prefix))
        index = 0
        for key, data in self._store.scan(prefix):
            while index < len(changed) and changed[index] < key:
                yield from self._changed(changed[index])
                index += 1
            if index < len(changed) and changed[index] == key:
                yield from self._changed(key)
                index += 1
            else:
                known = self._recent.get(key) or self._older.get(key)
                if known is None or (known.value is None and not known.is_dirty):
                    yield key, self._decode(key, data[HEADER:])
                elif not known.is_dirty:
                    yield key, known.value
        for key in changed[index:]:
            yield from self._changed(key)

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        found: list[_Row] = [
            (entry.wake, entry.key) for entry in self._dirty if 0 < entry.wake <= until_ms and entry.is_there
        ]
        for row in islice(self._stored_rows(), limit):
            if row[0] > until_ms:
                break
            found.append(row)
        found.sort()
        return found[:limit]

    def first_wake(self) -> int | None:
        changed = [entry.wake for entry in self._dirty if entry.wake > 0 and entry.is_there]
        stored = next(self._stored_rows(), None)
        if stored is not None:
            changed.append(stored[0])
        return min(changed, default=None)

    def scrub(self, prefix: bytes) -> None:
        self._scrubs.add(prefix)

    # ------------------------------------------------------------------------------------- what the task calls

    @property
    def is_dirty(self) -> bool:
        """Whether the running batch has changed anything."""
        return bool(self._dirty)

    def changes(self) -> Changes:
        """Encode everything the batch has changed, each key once."""
        encode = self._encode
        values: list[tuple[bytes, bytes | None]] = []
        gone = list(self._stale)
        new: list[_Row] = []
        for entry in self._dirty:
            key = entry.key
            if entry.value is not None and entry.data is None:
                entry.data = entry.wake.to_bytes(HEADER, "big") + encode(key, entry.value)
            data = entry.data
            values.append((key, data))
            if data is not None:
                size = BESIDE_BYTES + len(data)
                self._recent_bytes += size - entry.size
                entry.size = size
            if entry.wake != entry.stored_wake:
                if entry.stored_wake > 0:
                    gone.append((entry.stored_wake, key))
                if entry.wake > 0:
                    new.append((entry.wake, key))
        if new:
            self._floor = min(self._floor, *new)
        return Changes(values, gone, new, frozenset(self._scrubs))

    def committed(self) -> None:
        """The batch is in the store: its values are the committed ones."""
        self.hits += max(0, len(self._dirty) - self._missed)
        self._many_missed = self._missed * MANY > len(self._dirty)
        self._missed = 0
        for entry in self._dirty:
            entry.is_dirty = False
            entry.stored_wake = entry.wake
            if not entry.is_there:
                self._recent.pop(entry.key, None)
        self._dirty.clear()
        self._stale.clear()
        self._scrubs.clear()
        count = max(FORGOTTEN_AT_ONCE, 2 * (len(self._recent) - self._recent_before))
        if len(self._recent) > self._half_objects or self._recent_bytes > self._half_bytes:
            self._forget(len(self._leaving))
            self._leaving, self._older = self._older, self._recent
            self._recent = {}
            self._recent_bytes = 0
        self._recent_before = len(self._recent)
        if self._leaving:
            self._forget(count)

    def _forget(self, count: int) -> None:
        forgotten = list(islice(self._leaving, count))
        if self._let_go is not None:
            self._let_go(forgotten)
        for key in forgotten:
            # It need not go to rest any more.
            self._leaving.pop(key).value = None

    def drop(self) -> None:
        """The batch was aborted. Everything decoded goes: whatever was only read may have been changed in place."""
        self._dirty.clear()
        self._stale.clear()
        self._scrubs.clear()
        self._recent.clear()
        self._older.clear()
        self._leaving.clear()
        self._awake.clear()
        self._recent_bytes = 0
        self._recent_before = 0
        self._missed = 0

    def due_by(self, until_ms: int, most: int) -> tuple[int, int]:
        """How many rows of the stored time index are due, `most` at most, and the earliest of them (0: none). Rows are
        counted as they stand: what a row leads to is not read for it."""
        count = first = 0
        for row in islice(self._store.timers(self._floor), most):
            if row[0] > until_ms:
                break
            first = first or row[0]
            count += 1
        return count, first

    @property
    def cached(self) -> int:
        """How many decoded values are kept."""
        return len(self._recent) + len(self._older) + len(self._leaving)

    # ------------------------------------------------------------------------------------------------- inside

    def _promote(self, key: bytes) -> _Entry | None:
        entry = self._older.pop(key, None) or self._leaving.pop(key, None)
        if entry is not None:
            self._recent[key] = entry
            self._recent_bytes += entry.size
        return entry

    def _find(self, key: bytes) -> _Entry | None:
        entry = self._promote(key)
        if entry is not None:
            return entry
        self._missed += 1
        data = self._store.get(key)
        return self._keep_stored(key, data) if data is not None else None

    def _keep_stored(self, key: bytes, data: bytes | None) -> _Entry:
        """Keep a value as it is in the store, or that there is none."""
        wake = size = 0
        if data is not None:
            self.loads += 1
            wake = int.from_bytes(data[:HEADER], "big")
            size = BESIDE_BYTES + len(data)
        entry = self._recent[key] = _Entry(key, None, data, wake, wake, size)
        self._recent_bytes += size
        return entry

    def _read(self, prefix: bytes, keys: Sequence[bytes]) -> Callable[[], Iterable[tuple[bytes, bytes | None]]]:
        """Begin to read those of these that are not in memory."""
        missing = []
        for one in keys:
            key = prefix + one
            if key not in self._recent and key not in self._older and key not in self._leaving:
                missing.append(key)
        if len(missing) < LEAST_AHEAD:
            return tuple
        self._missed += len(missing)
        values = self._store.reading(missing)
        return lambda: zip(missing, values(), strict=True)

    def _changed(self, key: bytes) -> Iterator[tuple[bytes, Any]]:
        if self._recent[key].is_there:
            yield key, self.get(key)

    def _stored_rows(self) -> Iterator[_Row]:
        """The rows of the store that hold, without those of keys the batch has changed."""
        first = True
        for row in self._store.timers(self._floor):
            if first:
                first = False
                self._floor = row
            if row in self._stale:
                continue
            entry = self._recent.get(row[1]) or self._find(row[1])
            if entry is not None and entry.is_dirty:
                continue
            if entry is None or entry.wake != row[0]:
                self._stale.add(row)
            else:
                yield row


class NoState:
    """The state of a role that keeps none. Any use is a programmer's error."""

    def get(self, key: bytes) -> Any | None:
        raise WorkerStopped("this role has no state; give it a changelog to let it keep some")

    def put(self, key: bytes, value: Any, wake_at: int = 0) -> None:
        self.get(key)

    def delete(self, key: bytes) -> None:
        self.get(key)

    def ahead(self, prefix: bytes, keys: Sequence[bytes]) -> Iterator[bytes]:
        return iter(keys)

    def rest(self, prefix: bytes) -> None:
        """Nothing is awake."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, Any]]:
        self.get(prefix)
        return iter(())

    def due(self, until_ms: int, limit: int) -> list[tuple[int, bytes]]:
        return []

    def first_wake(self) -> int | None:
        return None

    def scrub(self, prefix: bytes) -> None:
        self.get(prefix)


def fetch(said: list[Outgoing | list[Outgoing] | None]) -> int:
    """Look at what was said, one after the other: it lies all over the memory, and where it is only looked at the
    processor need not wait for each before it fetches the next. Gives the size of the values."""
    size = 0
    for one in said:
        if one is not None and not isinstance(one, list):
            value = one[1]
            if value is not None:
                size += len(value)
    return size


class Outbox:
    """`Outputs` of the running batch. `place` is that of the record at hand, -1 before the first."""

    def __init__(self) -> None:
        self.place = -1
        self.upserts: dict[tuple[str, bytes], tuple[bytes | None, int | bytes]] = {}
        # What was said at each place, from -1 on.
        self._said: list[Outgoing | list[Outgoing] | None] = []
        self._count = 0

    def at(self, place: int) -> None:
        self.place = place

    def log(self, topic: str, key: bytes | None, value: bytes, partition: int | None = None) -> None:
        one = (topic, value, key, CHOOSE_BY_KEY if partition is None else partition)
        said, at = self._said, self.place + 1
        if at >= len(said):
            said.extend([None] * (at + 1 - len(said)))
        there = said[at]
        # Of most records one thing is said: a list for each would cost more than all else that is done here.
        if there is None:
            said[at] = one
        elif isinstance(there, list):
            there.append(one)
        else:
            said[at] = [there, one]
        self._count += 1

    def upsert(self, topic: str, key: bytes, value: bytes | None, by: bytes | None = None) -> None:
        self.upserts[(topic, key)] = (value, CHOOSE_BY_KEY if by is None else by)

    def take_logged(self) -> Iterator[Outgoing]:
        """What was logged, in the order of the places it was logged at. Each is let go of as soon as the next one is
        asked for: what is freed while it is at hand costs a fraction of what it costs later."""
        said, self._said = self._said, []
        for start in range(0, len(said), FETCHED):
            block = said[start : start + FETCHED]
            fetch(block)
            said[start : start + FETCHED] = [None] * len(block)
            for at in range(len(block)):
                there, block[at] = block[at], None
                if isinstance(there, list):
                    yield from there
                elif there is not None:
                    yield there

    def take_upserts(self) -> list[Outgoing]:
        """The last value of each key since they were last taken, as records."""
        taken, self.upserts = self.upserts, {}
        self._count += len(taken)
        return [(topic, value, key, partition) for (topic, key), (value, partition) in taken.items()]

    def __len__(self) -> int:
        return self._count + len(self.upserts)

    def clear(self) -> None:
        """Drop everything."""
        self.place = -1
        self.upserts = {}
        self._said = []
        self._count = 0
