"""Bringing a task to the committed state, in the one order that a zombie's late commit cannot break.

    1  init transactions: the worker has done so before it joined the group
    2  `committed(partitions)` has answered: no foreign transaction can change the positions any more
    3  only now the target: the changelog's high watermark as an uncommitted reader sees it
    4  read committed records from the store's position until the position has reached the target
    5  no progress for `touch_after_ms`: touch the partition, or the group's positions if these are not told, which ends
       a transaction of ours that hangs there
     no progress for `give_up_ms`: stop loudly (someone's transaction is open on the changelog)
  6  what hangs in the outputs is compared with the positions, or with the changelog, and ended (lost.py)
  7  a store that is ahead of the group has a transaction that was lost: it is restored anew

It goes in slices between batches, so that partitions which are ready do not wait for those which are not.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.runtime.adapters import Adapters, Change, Committed, LogReader, Partition, Store, StoreMeta, Stores
from pipeline.runtime.errors import Fatal, Retriable, WorkerStopped
from pipeline.runtime.failpoints import Failpoints
from pipeline.runtime.lost import Outcomes, Told, keep, read_between, touch
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.task import POSITIONS_KEY, TOPICS_KEY, Task, decode_positions, decode_topics, keep_scrubs
from pipeline.topology import Role

_log = logging.getLogger(__name__)
_ANSWER_TIMEOUT_S = 0.5
_PREPARE_S = 5.0


@dataclass(slots=True)
class Restoration:
    """How far one task has come. `target` is None until step 3; `restored` counts records read back; `freed`: its
    positions hung and were set free; `asked`: so often for its positions and the target."""

    task: Task
    began_ms: int
    progress_ms: int
    committed: dict[Partition, Committed | None] | None = None
    start: int = 0
    target: int | None = None
    position: int = 0
    restored: int = 0
    touched: bool = False
    freed: bool = False
    asked: int = 0


class Restorer:
    """Restores the tasks of one worker, slice by slice. `topic_ids` are those that the topics have now; `told` says
    what the outputs tell, and `alive` is called while it takes long."""

    def __init__(
        self,
        role: Role,
        adapters: Adapters,
        settings: WorkerSettings,
        failpoints: Failpoints,
        topic_ids: Mapping[str, str],
        told: Told | None,
        alive: Callable[[], None],
    ) -> None:
        self._outcomes: Outcomes | None = None
        self._settled = False
        if role.outputs and (role.changelog is not None or told is not None):
            self._outcomes = Outcomes(role.outputs, told, adapters, settings, alive)
        self.waiting: dict[int, Restoration] = {}
        self._tasks = 0
        self._changelog = role.changelog
        self._adapters = adapters
        self._settings = settings
        self._failpoints = failpoints
        self._topic_ids = topic_ids
        self._restored = 0
        self._alive = alive

    def add(self, task: Task) -> None:
        """Begin with a task whose store is open."""
        now = self._adapters.clock()
        self.waiting[task.number] = Restoration(task, now, now)
        self._tasks += 1
        self._settled = False
        if self._outcomes is not None:
            self._outcomes.begin()

    def clear(self) -> None:
        """Give up everything under way: the partitions went elsewhere."""
        reader = self._adapters.reader
        for number in self.waiting:
            if reader is not None:
                reader.close_partition((self._changelog_name, number))
        self.waiting.clear()
        self._tasks = 0

    def take_restored(self) -> int:
        """Records read back since this was asked last."""
        restored, self._restored = self._restored, 0
        return restored

    def advance(self, timeout_s: float) -> list[Task]:
        """One slice, waiting at most `timeout_s` for it; gives the tasks that are ready now, their positions set."""
        now = self._adapters.clock()
        self._prepare_some(now)
        self._read(now, timeout_s)
        ready = [r for r in self.waiting.values() if r.target is not None and r.position >= r.target]
        for restoration in self.waiting.values():
            silent_ms = now - restoration.progress_ms
            # Whose positions hung has lost a transaction: what hangs in the changelog is of the same one.
            known = restoration.freed and restoration.target is not None
            patience_ms = self._settings.hanging_after_ms if known else self._settings.touch_after_ms
            if silent_ms > patience_ms and not restoration.touched:
                restoration.touched = True
                self._touch(restoration)
            if silent_ms > self._settings.give_up_ms:
                raise WorkerStopped(
                    f"restoring partition {restoration.task.number} of {self._changelog or 'the inputs'} made no "
                    f"progress for {self._settings.give_up_ms} ms (position {restoration.position}, target "
                    f"{restoration.target}); someone's transaction is open: wait for its timeout and start again, "
                    "or, if it never ends, look with `kafka-transactions.sh find-hanging` and abort it"
                )
        if ready and not self._are_outputs_settled(now):
            return []
        return [restoration.task for restoration in ready if self._finish(restoration)]

    def _are_outputs_settled(self, now: int) -> bool:
        """Of a role with state: nothing is opened before what hangs in its outputs is ended."""
        if self._outcomes is None or self._changelog is None or self._settled:
            return True
        waiting = self.waiting.values()
        are_restored = all(r.target is not None and r.position >= r.target for r in waiting)
        mine = [(self._changelog, number) for number in self.waiting]
        self._settled = self._outcomes.settled_by(mine, are_restored, now)
        return self._settled

    def _touch(self, restoration: Restoration) -> None:
        """End a transaction of ours that hangs, by one that has something there: a record in this partition of the
        changelog, or, if the group's positions are not told, positions of the group.

        After a SIGKILL, or a full disk, a broker was seen to come back with a transaction open whose coordinator takes
        it for ended: nobody ends it, and no reader passes it. It ends with the next marker of the same producer there.
        """
        partitions = restoration.task.partitions
        where = f"{self._changelog}/{restoration.task.number}"
        if restoration.committed is None:
            where = "the positions of " + ", ".join(f"{topic}/{number}" for topic, number in partitions)
        elif self._changelog is None:
            return
        _log.warning("%s: a transaction is open and does not end; trying to end it", where)
        producer, timeout_s = self._adapters.producer, self._settings.call_timeout_s
        if restoration.committed is not None:
            try:
                kept = self._covered(restoration)
            except Retriable:
                restoration.touched = False
                return
            at = (self._changelog_name, restoration.task.number)
            if kept is None:
                touch(producer, [at], timeout_s)
            else:
                keep(producer, [(at[0], kept, POSITIONS_KEY, at[1])], timeout_s)
            return
        membership = self._adapters.consumer.membership()
        restoration.freed = True
        if self._outcomes is not None:
            self._outcomes.were_freed = True
        touch(
            producer, [], timeout_s, lambda: producer.send_offsets(dict.fromkeys(partitions, 0), membership, timeout_s)
        )

    def _covered(self, restoration: Restoration) -> bytes | None:
        """The positions that stand last in what hangs in the changelog, if the group is at them: it was committed."""
        at = (self._changelog_name, restoration.task.number)
        stable, high = self._adapters.admin.ends([at[0]], self._settings.call_timeout_s).get(at, (0, 0))
        found: bytes | None = None
        if self._adapters.look is not None:
            for record in read_between(self._adapters, self._alive, False, {at: stable}, {at: high}):
                found = record.value if record.key == POSITIONS_KEY else found
        committed = restoration.committed or {}
        of_group = {topic: told.position for (topic, _), told in committed.items() if told is not None}
        return found if found is not None and decode_positions(found) == of_group else None

    def _prepare_some(self, now: int) -> None:
        """Each partition may wait for its answers in vain: with many of them a slice ends before all were asked, or
        the group would take this worker for dead. The next slice begins with those."""
        until_s = time.perf_counter() + _PREPARE_S
        for restoration in sorted(self.waiting.values(), key=lambda one: one.asked):
            if restoration.target is not None:
                continue
            if time.perf_counter() > until_s:
                return
            self._alive()
            restoration.asked += 1
            self._prepare(restoration, now)

    def _prepare(self, restoration: Restoration, now: int) -> None:
        task = restoration.task
        try:
            if restoration.committed is None:
                restoration.committed = self._adapters.consumer.committed(task.partitions, _ANSWER_TIMEOUT_S)
                restoration.touched = False
            if task.store is None:
                if self._outcomes is None or self._outcomes.settled(
                    self._valid(restoration.committed), not restoration.freed, now
                ):
                    restoration.target = 0
                    restoration.progress_ms = now
                return
            low, high = self._reader.bounds((self._changelog_name, task.number), _ANSWER_TIMEOUT_S)
        except Retriable:
            return
        meta = task.store.meta() or StoreMeta(written_ms=restoration.began_ms)
        _refuse_copied(self._changelog_name, task.number, meta)
        if self._made_again(self._changelog_name, meta.topic_ids.get(self._changelog_name, "")):
            raise WorkerStopped(
                _made_again(self._changelog_name) + ". If it was not, the state folder is of another workspace: delete "
                "it, and what belongs there is restored from the changelog"
            )
        _refuse_outside(self._changelog_name, task.number, meta.changelog, low, high)
        task.meta = meta
        restoration.start = restoration.position = meta.changelog
        if meta.changelog < high:
            self._reader.open((self._changelog_name, task.number), meta.changelog)
        restoration.target = high
        restoration.progress_ms = now

    def _read(self, now: int, timeout_s: float) -> None:
        reading = {r.task.number: r for r in self.waiting.values() if r.target is not None and r.position < r.target}
        if not reading:
            return
        by_partition = self._reader.read_changes(self._settings.restore_records, timeout_s)
        for number, restoration in reading.items():
            records = by_partition.get(number, [])
            position = self._reader.position((self._changelog_name, number))
            if position > restoration.position:
                restoration.position = position
                restoration.restored += len(records)
                self._restored += len(records)
                restoration.progress_ms = now
                complete = restoration.target is not None and position >= restoration.target
                _apply(restoration.task, records, position, restoration.began_ms if complete else None)
                self._failpoints("mid_restore")

    def _finish(self, restoration: Restoration) -> bool:
        """Open a restored task. False if it has to be restored once more."""
        task = restoration.task
        if restoration.target is not None and restoration.start < restoration.target:
            self._reader.close_partition((self._changelog_name, task.number))
        if self._is_ahead(restoration):
            self._renew(restoration)
            return False
        positions = self._agreed(restoration)
        committed = restoration.committed or {}
        lost = {at: p for at, p in positions.items() if (told := committed.get(at)) is not None and told.position < p}
        if lost and restoration.freed:
            membership, timeout_s = self._adapters.consumer.membership(), self._settings.call_timeout_s
            notes = {at: self._topic_ids.get(at[0], "") for at in lost}
            keep(
                self._adapters.producer,
                [],
                timeout_s,
                lambda: self._adapters.producer.send_offsets(lost, membership, timeout_s, notes),
            )
        del self.waiting[task.number]
        task.begin_at(positions)
        if self._outcomes is not None:
            task.passed = self._outcomes.passed
        task.belongs_to(self._topic_ids)
        task.open_state(self._settings.cache_objects // self._tasks, self._settings.cache_bytes // self._tasks)
        return True

    def _is_ahead(self, restoration: Restoration) -> bool:
        """Whether a store has a transaction that the group does not have: it was committed, as far as this worker was
        told, and then the broker lost it. Only a store that was there before can have it; the changelog has not."""
        committed = restoration.committed or {}
        inputs = restoration.task.meta.inputs
        return restoration.start > 0 and any(
            told is not None and told.position < inputs.get(topic, 0) for (topic, _), told in committed.items()
        )

    def _renew(self, restoration: Restoration) -> None:
        """Restore a task from the beginning of its changelog."""
        task, stores = restoration.task, self._adapters.stores
        assert task.store is not None and stores is not None
        _log.warning("%s/%d: the store is ahead of the group; it is restored anew", self._changelog, task.number)
        task.store.close()
        stores.wipe(task.number)
        task.store = stores.open(task.number)
        task.meta = StoreMeta()
        restoration.start = restoration.position = 0
        restoration.target = None

    def _valid(self, committed: Mapping[Partition, Committed | None]) -> dict[Partition, Committed | None]:
        """Without the positions in topics that were made again: they mean nothing."""
        return {at: told for at, told in committed.items() if told is None or not self._made_again(at[0], told.note)}

    def _agreed(self, restoration: Restoration) -> dict[Partition, int]:
        """The positions to begin at: the state's and the group's, which must agree or be explained."""
        task = restoration.task
        committed = restoration.committed or {}
        has_state = task.store is not None and bool(task.meta.inputs)
        positions: dict[Partition, int] = {}
        for partition in task.partitions:
            told = committed.get(partition)
            of_group = told.position if told is not None else None
            former = (told.note if told is not None else "", task.meta.topic_ids.get(partition[0], ""))
            if any(self._made_again(partition[0], id) for id in former):
                if task.store is not None:
                    raise WorkerStopped(_made_again(partition[0]))
                _log.warning("%s/%d was deleted and made again: it is read from its beginning", *partition)
                of_group = None
            of_state = task.meta.inputs.get(partition[0])
            if task.store is None:
                of_state = of_group
            if of_state is None and of_group is None:
                # Neither has ever read this topic: its beginning is the first start.
                positions[partition] = self._beginning(partition)
            elif of_group is None and of_state is not None:
                # Group offsets expire, state does not.
                positions[partition] = of_state
            elif of_state == of_group and of_state is not None:
                positions[partition] = of_state
            elif restoration.freed and of_state is not None and of_group is not None and of_state > of_group:
                # The changelog had got its marker: the transaction was committed, whose positions were set free.
                positions[partition] = of_state
            else:
                known = f"is at {of_state}" if has_state else "is empty"
                raise WorkerStopped(
                    f"{partition[0]}/{partition[1]}: the group's position is {of_group}, but the state {known}; the "
                    f"changelog or the group offsets were changed from outside: restore them, or replay anew"
                )
        return positions

    def _made_again(self, topic: str, former_id: str) -> bool:
        """Whether this topic is another one than that of the same name which had `former_id` ("": not known)."""
        present = self._topic_ids.get(topic, "")
        return bool(present and former_id and present != former_id)

    def _beginning(self, partition: Partition) -> int:
        for _ in range(100):
            try:
                return self._adapters.consumer.bounds(partition, self._settings.call_timeout_s)[0]
            except Retriable:
                continue
        raise WorkerStopped(f"the broker does not tell where {partition[0]}/{partition[1]} begins")

    @property
    def _reader(self) -> LogReader:
        if self._adapters.reader is None:
            raise WorkerStopped("a role with a changelog needs a log reader and stores")
        return self._adapters.reader

    @property
    def _changelog_name(self) -> str:
        return self._changelog or ""


def _apply(task: Task, records: Iterable[Change], position: int, complete_ms: int | None) -> None:
    """Write a slice of the changelog into the store, with where it ends.

    Only a complete restore makes the store younger: an unfinished one may still miss tombstones as old as it was.
    """
    if task.store is None:
        raise Fatal(f"partition {task.number} has no store to restore")
    values: dict[Any, bytes | None] = dict(records)
    values.pop(None, None)
    positions = values.pop(POSITIONS_KEY, None)
    if positions is not None:
        task.meta.inputs = decode_positions(positions)
    topics = values.pop(TOPICS_KEY, None)
    if topics is not None:
        task.meta.topic_ids |= decode_topics(topics)
    keep_scrubs(task.store, values)
    task.meta.changelog = position
    if complete_ms is not None:
        task.meta.written_ms = complete_ms
    task.store.restore(values, task.meta)


def _made_again(topic: str) -> str:
    return (
        f"{topic} was deleted and made again since this state was made: its positions lead to other records; restore "
        f"the topic, or replay into a new deployment"
    )


def _refuse_copied(changelog: str, number: int, meta: StoreMeta) -> None:
    """A store that was copied to where another one stood: its position would lead into the midst of foreign state.
    One of a release that did not note it yet is believed."""
    if meta.of not in ("", f"{changelog}/{number}"):
        raise WorkerStopped(
            f"in the state folder, the store of {changelog}/{number} is one of {meta.of}: it was copied or moved "
            f"there; delete the folder {number} of this role, and it is restored from the changelog"
        )
    meta.of = f"{changelog}/{number}"


def _refuse_outside(changelog: str, number: int, position: int, low: int, high: int) -> None:
    if low > 0 and position < low:
        raise WorkerStopped(
            f"{changelog}/{number} begins at {low}, the store is at {position}: the records between are gone and with "
            f"them state; restore the topic, or replay into a new deployment"
        )
    if position > high:
        raise WorkerStopped(
            f"{changelog}/{number} ends at {high}, but the store is at {position}: the topic was truncated or "
            f"recreated; restore it, or replay into a new deployment"
        )


def open_store(stores: Stores, partition: int, now_ms: int, tombstone_retention_ms: int) -> Store:
    """Open a partition's store. One so old that tombstones after its position may have been compacted away unseen is
    wiped first."""
    store = stores.open(partition)
    meta = store.meta()
    if meta is not None and now_ms - meta.written_ms > tombstone_retention_ms // 2:
        store.close()
        stores.wipe(partition)
        store = stores.open(partition)
    return store
