"""A task: one stage on one partition, its state, and how far it has read. A role without state has a single task
over everything assigned to its worker."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.runtime.adapters import Partition, Store, StoreMeta
from pipeline.runtime.errors import WorkerStopped
from pipeline.runtime.overlay import HEADER, RESERVED, Changes, NoState, TaskState
from pipeline.runtime.ports import Stage

SCRUBS_KEY = RESERVED + b"scrubs"
"""The key, in the store and the changelog, under which stands what is still to be scrubbed: it outlives a crash."""

SCRUB_LOG_KEY = RESERVED + b"scrubbed"
"""The key, there too, of how many prefixes were to be scrubbed so far, and the last of them. A store that was away
learns from it what it missed, however much of the changelog has been compacted."""

POSITIONS_KEY = RESERVED + b"positions"
"""The changelog key under which each transaction records the task's input positions."""

TOPICS_KEY = RESERVED + b"topics"
"""The changelog key of the ids that the input topics had: positions mean nothing in a topic that was made again."""

# Who missed more than these has all of its files rewritten.
_MOST_TOLD = 100
_EVERYTHING = b""

_encode_positions = msgspec.json.encode
_positions_decoder = msgspec.json.Decoder(dict[str, int])
_topics_decoder = msgspec.json.Decoder(dict[str, str])


def decode_positions(value: bytes) -> dict[str, int]:
    """Read the record under `POSITIONS_KEY`: input topic to position."""
    return _positions_decoder.decode(value)


def decode_topics(value: bytes) -> dict[str, str]:
    """Read the record under `TOPICS_KEY`: input topic to its id."""
    return _topics_decoder.decode(value)


def _decode_scrubs(value: bytes | None) -> frozenset[bytes]:
    return frozenset(msgspec.msgpack.decode(value[HEADER:], type=list[bytes])) if value is not None else frozenset()


def _encode_scrubs(prefixes: Collection[bytes]) -> bytes | None:
    return bytes(HEADER) + msgspec.msgpack.encode(sorted(prefixes)) if prefixes else None


def _decode_scrub_log(value: bytes | None) -> tuple[int, list[bytes]]:
    return (0, []) if value is None else msgspec.msgpack.decode(value[HEADER:], type=tuple[int, list[bytes]])


def _encode_scrub_log(log: tuple[int, list[bytes]]) -> bytes:
    return bytes(HEADER) + msgspec.msgpack.encode(log)


def keep_scrubs(store: Store, values: dict[bytes, bytes | None]) -> None:
    """Into a slice of the changelog that is to be restored: what this store is to scrub, whatever others have done with
    their files. That is what it had still to do, and what was asked for while it was away."""
    if SCRUBS_KEY not in values and SCRUB_LOG_KEY not in values:
        return
    missed = _decode_scrubs(store.get(SCRUBS_KEY)) | _decode_scrubs(values.get(SCRUBS_KEY))
    if SCRUB_LOG_KEY in values:
        known, _ = _decode_scrub_log(store.get(SCRUB_LOG_KEY))
        count, last = _decode_scrub_log(values[SCRUB_LOG_KEY])
        if count - known > len(last):
            missed = frozenset((_EVERYTHING,))
        elif count > known:
            missed |= frozenset(last[known - count :])
    values[SCRUBS_KEY] = _encode_scrubs(missed)


class Task:
    """Stage, state and store of one partition.

    `positions` are those of the last commit, `reached` those of the running batch, `begun` those of the start. A task
    without a store keeps positions only. `passed` are inputs that are done already, behind the positions as they are.
    `note`: how far the running batch has brought it in time; "" if its stage does not say.
    """

    def __init__(self, number: int, stage: Stage, partitions: Sequence[Partition], store: Store | None) -> None:
        self.number = number
        self.stage = stage
        self.steps_many = hasattr(stage, "step_many")
        self._in_time: Callable[[], tuple[int, int]] | None = getattr(stage, "in_time", None)
        self.note = ""
        self.store = store
        self.partitions = tuple(partitions)
        self.positions: dict[Partition, int] = {}
        self.reached: dict[Partition, int] = {}
        self.begun: dict[Partition, int] = {}
        self.passed: Collection[tuple[str, int, int]] = ()
        self.meta = StoreMeta()
        self.topic_ids: Mapping[str, str] = {}
        self.changes: Changes | None = None
        self.changelog_records: list[tuple[bytes, bytes | None]] = []
        self.state: Any = NoState()
        self.task_state: TaskState | None = None
        # Under which prefixes former values are to go from the disk; of these, what a scrub is at, and has done.
        self.to_scrub: frozenset[bytes] = frozenset()
        self._scrubbing: frozenset[bytes] = frozenset()
        self._scrubbed: frozenset[bytes] = frozenset()
        self._scrub_log: tuple[int, list[bytes]] = (0, [])

    def open_state(self, cache_objects: int, cache_bytes: int) -> None:
        """Put an overlay over the restored store. WorkerStopped if another release wrote what is in it."""
        if self.store is not None:
            stage = self.stage
            _read_one_of_each_kind(self.store, _of_this_release(stage.decode))
            let_go, resting = getattr(stage, "let_go", None), getattr(stage, "resting", None)
            self.state = self.task_state = TaskState(
                self.store, stage.encode, _of_this_release(stage.decode), cache_objects, cache_bytes, let_go, resting
            )
            self.to_scrub = _decode_scrubs(self.store.get(SCRUBS_KEY))
            self._scrub_log = _decode_scrub_log(self.store.get(SCRUB_LOG_KEY))

    def begin_at(self, positions: dict[Partition, int]) -> None:
        """Take the positions agreed at the start."""
        self.positions = dict(positions)
        self.reached = dict(positions)
        self.begun = dict(positions)

    def belongs_to(self, topic_ids: Mapping[str, str]) -> None:
        """Note the ids of the topics it reads, and of its changelog: they are kept with the next transaction."""
        self.topic_ids = {**self.meta.topic_ids, **topic_ids}

    def is_dirty(self) -> bool:
        """Whether the running batch has changed the state."""
        return self.task_state is not None and self.task_state.is_dirty

    def encode_changes(self, has_changelog: bool) -> None:
        """Encode what the batch changed: each dirty key once, the input positions last."""
        if self.task_state is None or not has_changelog:
            return
        if self._in_time is not None:
            # Before the changes are taken: to look at the time index may add to them.
            self.note = "{} {}".format(*self._in_time())
        self.changes = self.task_state.changes()
        scrubs = self.to_scrub - self._scrubbed | self.changes.scrubs
        if scrubs != self.to_scrub:
            self.changes.values.append((SCRUBS_KEY, _encode_scrubs(scrubs)))
        if self.changes.scrubs:
            self.changes.values.append((SCRUB_LOG_KEY, _encode_scrub_log(self._scrub_log_with(self.changes.scrubs))))
        inputs = {topic: position for (topic, _), position in self.reached.items()}
        self.changelog_records = [*self.changes.values, (POSITIONS_KEY, _encode_positions(inputs))]
        if self.topic_ids != self.meta.topic_ids:
            told = {topic: id for topic, id in self.topic_ids.items() if topic in inputs}
            self.changelog_records.insert(0, (TOPICS_KEY, msgspec.json.encode(told)))

    def write(self, changelog_offset: int | None, now_ms: int) -> None:
        """The transaction is committed: bring the store to it, in one write.

        Without an offset (the broker did not tell) the store keeps its former changelog position: a restore then
        reads again what is in it already, which changes nothing.
        """
        self.positions = dict(self.reached)
        if self.store is None or self.changes is None or self.task_state is None:
            return
        if changelog_offset is not None:
            self.meta.changelog = changelog_offset + 1
        self.meta.inputs = {topic: position for (topic, _), position in self.reached.items()}
        self.meta.topic_ids = dict(self.topic_ids)
        self.meta.written_ms = now_ms
        changes, self.changes = self.changes, None
        self.changelog_records = []
        self.store.write(changes.values, changes.timers_gone, changes.timers_new, self.meta)
        self.to_scrub = self.to_scrub - self._scrubbed | changes.scrubs
        self._scrubbed = frozenset()
        if changes.scrubs:
            self._scrub_log = self._scrub_log_with(changes.scrubs)
            # What is being scrubbed may have been passed already: it is to be again.
            self._scrubbing -= changes.scrubs
        self.task_state.committed()

    def _scrub_log_with(self, prefixes: frozenset[bytes]) -> tuple[int, list[bytes]]:
        count, last = self._scrub_log
        return count + len(prefixes), [*last, *sorted(prefixes)][-_MOST_TOLD:]

    def scrub(self, begin: bool) -> None:
        """Go on with what is to be scrubbed; with `begin`, start on what has been asked for since."""
        if self.store is None or not (self.to_scrub or self._scrubbing) or self.store.is_scrubbing():
            return
        if self._scrubbing:
            self._scrubbed |= self._scrubbing
            self._scrubbing = frozenset()
        wanted = self.to_scrub - self._scrubbed
        if begin and wanted:
            self._scrubbing = wanted
            self.store.scrub(wanted)

    def drop(self) -> None:
        """The batch was aborted."""
        self.reached = dict(self.positions)
        self.changes = None
        if self.task_state is not None:
            self.task_state.drop()
        self.stage.forget()

    def close(self) -> None:
        """Free the store for the next owner."""
        if self.store is not None:
            self.store.close()


def _read_one_of_each_kind(store: Store, decode: Callable[[bytes, bytes], Any]) -> None:
    """State of another release is to be met before anything is written: the former one shall go on where it was."""
    for first in range(1, 256):
        for key, value in store.scan(bytes((first,))):
            decode(key, value[HEADER:])
            break


def _of_this_release(decode: Callable[[bytes, bytes], Any]) -> Callable[[bytes, bytes], Any]:
    """Reads what this release reads. Anything else stops the worker: if it passed for a record that the stage cannot
    use, every event of a person with such a state would be put aside."""

    def read(key: bytes, data: bytes) -> Any:
        try:
            return decode(key, data)
        except (ValueError, KeyError, msgspec.MsgspecError) as error:
            raise WorkerStopped(
                f"the state at {key[:1].decode(errors='replace')}{key[1:].hex()} cannot be read: {error}. It was"
                " written by another release, in a form this one does not read. Nothing was changed. Run that release,"
                " or take its history into a new workspace with `headwater replay` (docs/operations/deploying.md,"
                " Upgrading)"
            ) from error

    return read
