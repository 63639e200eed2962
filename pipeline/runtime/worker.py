"""The worker: consumes micro-batches, runs the stages, commits exactly once.

The commit order. Every number is a line below and a failpoint of that name.

     1  consume what is waiting                                                       after_consume
     2  drop what is not of an open task of one's own
     3  take the group membership; refuse one without a generation
     4  step every record into the overlays, then what has come meanwhile, then       after_step
        finish the stages
     5  begin; hand over the outputs, then the changelog, each dirty key once; what   after_begin, after_produce
        is said of the first records already before those that have come meanwhile
        are stepped, in a turn of long work each task's before the next one is
     6  flush: nothing of this transaction may still be on its way when the offsets   before_offsets
        are sent, because from then on even a zombie's commit succeeds
     7  send the offsets                                                              after_offsets
     8  commit: retriable → the same call again; abortable → abort, drop, rewind;     commit_in_flight, after_commit
        anything else → stop
     9  one write per store: values, time index, changelog position, input positions  after_write
    10  on: wake the stages

A slice of history, where a stage has asked for it, follows the live batch in a transaction of its own, from step 3 on;
the input positions in it are those that were committed before.

The stores are touched in step 9 only, so until then dropping the overlays undoes the batch.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

from pipeline.runtime import dead_letters
from pipeline.runtime.adapters import Adapters, Membership, Partition, Store
from pipeline.runtime.batch_size import BatchSize
from pipeline.runtime.errors import Abortable, Retriable, RuntimeFault, WorkerStopped
from pipeline.runtime.failpoints import Failpoints, no_failpoints
from pipeline.runtime.history import HistoryReader, Pace, Slice, fold_slices
from pipeline.runtime.in_time_order import InTimeOrder
from pipeline.runtime.lost import Told, refuse_lost
from pipeline.runtime.observing import Observer
from pipeline.runtime.overlay import Outbox
from pipeline.runtime.poison import STEPPED_AGAIN, StageRaised, blame
from pipeline.runtime.ports import Record, Stage
from pipeline.runtime.rest import Rest
from pipeline.runtime.restore import Restorer, open_store
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.stepping import step_batch
from pipeline.runtime.task import Task
from pipeline.runtime.topics import Topics
from pipeline.runtime.undone import Undone
from pipeline.runtime.upkeep import Upkeep
from pipeline.runtime.watchdog import Watchdog
from pipeline.topology import Role

_log = logging.getLogger(__name__)
_ATTEMPTS = 10_000
_WHOLE_ROLE = 0
_Answer = TypeVar("_Answer")


class Worker:
    """One slot of a role: `start`, then `run_once` again and again, or `run`.

    `make_stage` gives the stage of a partition (of 0 for a role without state, whose single stage sees every
    assigned partition); `told` says what the outputs of a role without state tell. After WorkerStopped the process must
    end; nothing of the worker may be used again.
    """

    def __init__(
        self,
        role: Role,
        make_stage: Callable[[int], Stage],
        adapters: Adapters,
        settings: WorkerSettings | None = None,
        failpoints: Failpoints = no_failpoints,
        observer: Observer | None = None,
        told: Told | None = None,
    ) -> None:
        if role.changelog is not None and (adapters.reader is None or adapters.stores is None):
            raise WorkerStopped(f"{role.name} has a changelog and needs a log reader and stores")
        self.role = role
        self.settings = settings or WorkerSettings()
        self.tasks: dict[int, Task] = {}
        self.beats = 0
        self._stuck_s = self.settings.stuck_s
        self._make_stage = make_stage
        self._adapters = adapters
        self._consumer = InTimeOrder(adapters.consumer, adapters.clock) if role.in_time_order else adapters.consumer
        self._producer = adapters.producer
        self._reach = failpoints
        self._observer = observer or Observer(role.name, adapters.clock)
        self._tolerant = frozenset(role.tolerant)
        self._topics = Topics(role, adapters.admin, adapters.clock, self.settings)
        self._restorer = Restorer(role, adapters, self.settings, failpoints, self._topics.ids, told, self._beat)
        self._history: HistoryReader | None = None
        if role.history is not None and adapters.history is not None:
            self._history = HistoryReader(role.history, adapters.history)
        self._history_suspects = 0
        self._pace = Pace()
        self._owners: dict[Partition, Task] = {}
        self._outbox = Outbox()
        self._woken: set[int] = set()
        self._rest = Rest(role.patient, self.settings.long_turn_s)
        self._had_long = False
        self._has_begun = False
        self._resume_s = 0.0
        self._undone = Undone(self.settings.undone_pause_s, self.settings.give_up_ms)
        self._size = BatchSize(self.settings)
        self._keys_changed = 0
        self._tasks_given = 0
        self._upkeep = Upkeep(role, adapters, self.settings)
        self._stopped: str | None = None

    # ---------------------------------------------------------------------------------------------- life cycle

    def start(self) -> None:
        """Fence former selves, check the topics, join the group."""
        self._patiently("init transactions", lambda: self._producer.init(self.settings.call_timeout_s))
        self._topics.check(self._patiently("topics", self._topics.counts))
        self._patiently("topic ids", self._topics.ask_ids)
        self._consumer.subscribe(self.role.inputs, self)

    def run(self, until: Callable[[], bool]) -> None:
        """Work until `until()`; then give everything back. WorkerStopped leaves at once."""
        with Watchdog(lambda: self.beats, lambda: self._stuck_s, f"worker {self.role.name}"):
            self.start()
            while not until():
                self.run_once()
            self.close()

    def close(self) -> None:
        """Leave in good order. What the running batch had not committed is as if it had never been."""
        self._release()
        self._consumer.close()
        self._producer.close()
        if self._adapters.reader is not None:
            self._adapters.reader.close()

    def run_once(self) -> int:
        """A slice of restoring, one batch, one look at the clock. Gives the number of input records committed."""
        if self._stopped is not None:
            raise WorkerStopped(f"the worker has stopped: {self._stopped}")
        self.beats += 1
        try:
            return self._turn()
        except WorkerStopped as stopped:
            self._stopped = str(stopped)
            raise
        except RuntimeFault as fault:
            self._stopped = str(fault)
            raise WorkerStopped(f"{self.role.name}: {fault}") from fault

    def _turn(self) -> int:
        self._topics.watch()
        if self._restorer.waiting:
            self._restore()
        busy = bool(self._restorer.waiting) or len(self._outbox) > 0 or bool(self._woken) or bool(self.history_left())
        records = self._rest.take(time.perf_counter())
        if not records:
            records = self._consume(0.0 if busy else self.settings.idle_timeout_s)
        if records:
            self._reach("after_consume")
        done = self._batch(records) if records or self._woken else 0
        if self._history is not None:
            self._pace.note(len(records), self._adapters.clock())
            self._read_history(self._history, idle=not records)
        self._wake()
        self._upkeep.scrub(task for _, task in self._ready_tasks())
        self._observer.state(self.tasks.values(), self.input_lag, self.history_left())
        return done

    def _consume(self, timeout_s: float) -> list[Record]:
        """What is waiting; while long work is to rest, without it."""
        waits_s = self._rest.waits_s(time.perf_counter())
        if waits_s is not None:
            timeout_s = min(timeout_s, waits_s)
        try:
            records = self._consumer.consume(self._size.limit, timeout_s)
        except Retriable:
            return []
        if waits_s is not None:
            self._rest.leave_long(records)
        return records

    # ------------------------------------------------------------------------------------------- the ten steps

    def _batch(self, records: list[Record]) -> int:
        began = time.perf_counter()
        membership = self._consumer.membership()
        if membership.generation < 0:
            self._drop("the membership has no generation", records)
            return 0
        try:
            involved = self._step_all(records)
            if not involved:
                return 0
            self._reach("after_step")
            self._commit(involved, membership)
        except Abortable as abortable:
            self._abort(str(abortable), records)
            return 0
        ended = time.perf_counter()
        took_s = ended - began
        if self._had_long:
            self._rest.was_long(took_s, ended)
        if records:
            self._observer.batch(records, took_s)
        self._size.took(len(records), took_s, self._keys_changed)
        self._rest.done(len(records))
        self._upkeep.trim(self._owners)
        return len(records)

    def _step_all(self, records: list[Record]) -> list[Task] | None:
        """Step 4. A batch that raised is done again without the record that was to blame; `records` is cut short where
        there is one after the other. None if nobody knows which it was: then one half of them is next."""
        put_aside: dict[int, str] = {}
        woken = sorted(self._woken)
        stepped_again = 0
        while True:
            involved = {number: self.tasks[number] for number in woken}
            try:
                hand_over = meanwhile = None
                alone = bool(put_aside) or not self._rest.is_clear
                self._had_long = not alone and self._rest.is_long(records)
                if self._had_long:
                    hand_over, meanwhile = self._hand_over, partial(self._meanwhile, records)
                elif not alone and self.settings.gather_s > 0 and len(records) < self.settings.batch_records_at_once:
                    meanwhile = partial(self._gather, records)
                if not step_batch(
                    self.role, records, put_aside, self._owners, self._outbox, involved, hand_over, meanwhile
                ):
                    self._undo_begun()
                    return None
                self._observer.put_aside(len(put_aside))
                return list(involved.values())
            except StageRaised as raised:
                index = raised.index
                if index is None and len(records) == 1:
                    index = 0
                self._undo_begun()
                self._forget_batch()
                woken = []
                if index is None and records:
                    self._rest.doubt(records)
                    return None
                if index is None or records[index].topic not in self._tolerant:
                    where = "between batches" if index is None else "at {0[0]}/{0[1]}@{0[2]}".format(records[index])
                    raise WorkerStopped(
                        f"{self.role.name} raised {where}: {dead_letters.detail_of(raised.cause)}"
                    ) from raised.cause
                put_aside[index] = dead_letters.detail_of(raised.cause)
                if stepped_again > STEPPED_AGAIN:
                    self._rest.cut(records, index + 1)
                stepped_again += index + 1

    def _hand_over(self) -> None:
        """What a task has said in a turn of long work is on its way while the next one is stepped: else the broker
        would have nothing to do until all are, and everybody would wait for it then."""
        try:
            self._send_outputs()
        except RuntimeFault:
            raise
        except Exception as error:
            # Not as it is: what comes out of a step is held against a record.
            raise WorkerStopped(f"{self.role.name}: what it says cannot be handed over: {error}") from error

    def _gather(self, records: list[Record]) -> bool:
        """With the first output that is handed over the client begins to tell the broker of the partitions, and takes a
        millisecond for it. What comes within that time goes along, and waits for no transaction of its own."""
        if not len(self._outbox):
            return True
        self._hand_over()
        time.sleep(self.settings.gather_s)
        return self._meanwhile(records)

    def _meanwhile(self, records: list[Record]) -> bool:
        """What has come while records were stepped is added to the batch: it need not wait for the end of this
        transaction, and then for one of its own. At the broker are only outputs that are not committed, so a rebalance
        in here costs the batch and no more: the tasks are closed, what they had stepped is gone with them, and False
        is given."""
        tasks_given = self._tasks_given
        try:
            come = self._consumer.consume(max(1, self._size.limit - len(records)), 0.0)
        except Retriable:
            come = []
        if self._tasks_given != tasks_given:
            return False
        self._rest.leave_long(come)
        records += come
        return True

    def _read_history(self, history: HistoryReader, idle: bool) -> None:
        """A slice of what stages want of the past. One that cannot be folded is folded record by record, without those
        that make the stage raise: they are dead letters, as when they are new."""
        settings = self.settings
        limit = settings.history_records if idle else settings.history_records_beside
        if idle and self._pace.is_quiet(len(self._owners), self._adapters.clock()):
            limit = max(limit, settings.history_records_alone)
        if self._history_suspects:
            limit = min(limit, max(1, self._history_suspects // 2))
        slices = history.slices(self._ready_tasks(), limit, settings.history_wait_s if idle else 0.0)
        if not slices:
            return
        if self._history_suspects:
            del slices[1:]
        count = sum(len(one.records) for one in slices)
        membership = self._consumer.membership()
        if membership.generation < 0:
            history.clear()
            return
        put_aside = ""
        while True:
            try:
                self._fold_history(slices, put_aside)
                break
            except StageRaised as raised:
                self._forget_batch()
                if count > 1 or len(slices) > 1:
                    self._history_suspects = max(2, count)
                    history.clear()
                    return
                if put_aside:
                    detail = dead_letters.detail_of(raised.cause)
                    raise WorkerStopped(f"{self.role.name} raised in its history: {detail}") from raised.cause
                put_aside = dead_letters.detail_of(raised.cause)
        self._reach("mid_history")
        try:
            self._commit([one.task for one in slices], membership)
        except Abortable as abortable:
            self._abort(str(abortable), ())
            history.clear()
            return
        self._history_suspects = max(0, self._history_suspects - max(1, count))

    def _fold_history(self, slices: Sequence[Slice], put_aside: str) -> None:
        try:
            fold_slices(slices, self._outbox, self.role.name, put_aside)
        except RuntimeFault:
            raise
        except Exception as error:
            raise blame(error, None) from error

    def _send_outputs(self) -> None:
        """Hand over what was said since this was last done, in a transaction that is begun if there is none."""
        if not self._has_begun:
            # Let the broker end the last transaction.
            if (left_s := self._resume_s - time.perf_counter()) > 0:
                time.sleep(left_s)
            self._producer.begin()
            self._has_begun = True
            self._reach("after_begin")
        self._producer.send(self._outbox.take_logged())
        self._producer.send(self._outbox.take_upserts())

    def _commit(self, involved: Sequence[Task], membership: Membership) -> None:
        producer, reach, timeout_s = self._producer, self._reach, self.settings.call_timeout_s
        began = time.perf_counter()
        self._send_outputs()
        changelog = self.role.changelog
        if changelog is not None:
            for task in involved:
                producer.send_changelog(changelog, task.number, task.changelog_records)
            self._keys_changed = sum(len(task.changelog_records) for task in involved)
        reach("after_produce")
        highest = self._patiently("flush", lambda: producer.flush(timeout_s))
        reach("before_offsets")
        positions = {p: position for task in involved for p, position in task.reached.items()}
        notes = {p: self._topics.ids.get(p[0], "") for p in positions}
        for task in involved:
            if changelog is not None and task.note:
                at = (changelog, task.number)
                # Where the broker did not tell: of this position only the note is ever asked for.
                positions[at] = highest.get(at, task.meta.changelog - 1) + 1
                notes[at] = task.note
        self.beats += 1
        self._stuck_s = self.settings.offsets_stuck_s
        send_offsets = producer.send_offsets
        try:
            self._patiently("send offsets", lambda: send_offsets(positions, membership, timeout_s, notes))
        finally:
            self._stuck_s = self.settings.stuck_s
        reach("after_offsets")
        reach("commit_in_flight")
        self._patiently("commit", lambda: producer.commit(timeout_s))
        self._has_begun = False
        self._undone.committed()
        self._resume_s = time.perf_counter() + self.settings.pause_s
        reach("after_commit")
        now = self._adapters.clock()
        for task in involved:
            task.write(highest.get((changelog or "", task.number)), now)
        reach("after_write")
        self._observer.committed(len(self._outbox), time.perf_counter() - began)
        self._outbox.clear()
        self._woken.clear()

    def _wake(self) -> None:
        """Step 10: what a stage does here goes with the next transaction."""
        now = self._adapters.clock()
        outbox = self._outbox
        for number, task in self._ready_tasks():
            before = len(outbox)
            try:
                task.stage.wake(task.state, outbox, now)
            except RuntimeFault:
                raise
            except Exception as error:
                raise WorkerStopped(f"{self.role.name} raised when woken: {dead_letters.detail_of(error)}") from error
            if len(outbox) != before or task.is_dirty():
                self._woken.add(number)

    # --------------------------------------------------------------------------------------------- undoing

    def _undo_begun(self) -> None:
        if self._has_begun:
            self._patiently("abort", lambda: self._producer.abort(self.settings.call_timeout_s))
            self._has_begun = False

    def _abort(self, why: str, records: Iterable[Record]) -> None:
        _log.warning("%s: a transaction is undone, and its records are done again: %s", self.role.name, why)
        self._undo_begun()
        pause_s = self._undone.again(self._adapters.clock())
        if pause_s is None:
            # A right that is missing, or a topic that does not take what is written: that does not pass by itself.
            raise WorkerStopped(
                f"{self.role.name}: nothing could be committed for {self.settings.give_up_ms} ms: {why}"
            )
        time.sleep(pause_s)
        within_ms = self.settings.touch_after_ms
        self._patiently("positions after abort", lambda: refuse_lost(self._consumer, self.tasks.values()), within_ms)
        self._drop(why, records)

    def _drop(self, why: str, records: Iterable[Record]) -> None:
        """Undo the batch and read its records again, and those of it that were still to be done."""
        self._forget_batch()
        again: dict[Partition, int] = {}
        for record in [*records, *self._rest.clear()]:
            partition = (record.topic, record.partition)
            task = self._owners.get(partition)
            if task is not None and partition not in again:
                again[partition] = task.positions[partition]
        self._consumer.start(again)

    def _beat(self) -> None:
        self.beats += 1

    def _forget_batch(self) -> None:
        self._outbox.clear()
        self._woken.clear()
        for task in self.tasks.values():
            task.drop()
        self._observer.aborted()

    def _patiently(self, what: str, call: Callable[[], _Answer], within_ms: int = 0) -> _Answer:
        """Repeat a call that was not answered, until it is, or until this time, by default a minute, has passed."""
        until = self._adapters.clock() + (within_ms or self.settings.give_up_ms)
        for _ in range(_ATTEMPTS):
            try:
                return call()
            except Retriable as unanswered:
                self.beats += 1
                if self._adapters.clock() > until:
                    raise WorkerStopped(f"{self.role.name}: {what} was not answered: {unanswered}") from unanswered
        raise WorkerStopped(f"{self.role.name}: {what} was not answered in {_ATTEMPTS} attempts")

    # ------------------------------------------------------------------------------------------ rebalances

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """Open a task for every partition; a stateful role refuses inputs that are not co-partitioned."""
        self._release()
        self._observer.assigned()
        if self.role.changelog is None:
            if partitions:
                self._open(_WHOLE_ROLE, partitions, None)
            return
        numbers = {number for _, number in partitions}
        for topic in self.role.inputs:
            missing = numbers - {number for name, number in partitions if name == topic}
            if missing:
                raise WorkerStopped(
                    f"{self.role.name}: partitions {sorted(missing)} came without those of {topic}; the inputs must "
                    f"have the same partition count and the group the range assignor"
                )
        stores = self._adapters.stores
        assert stores is not None
        now = self._adapters.clock()
        for number in sorted(numbers):
            store = open_store(stores, number, now, self.settings.tombstone_retention_ms)
            self._open(number, [(topic, number) for topic in self.role.inputs], store)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Close the tasks: nothing of them is at the broker, a rebalance is served between transactions only."""
        self._release()

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Close the tasks; what they had not committed is the new owner's to do."""
        self._release()

    def _open(self, number: int, partitions: Sequence[Partition], store: Store | None) -> None:
        self.tasks[number] = task = Task(number, self._make_stage(number), partitions, store)
        self._rest.can_wait = getattr(task.stage, "can_wait", None)
        self._restorer.add(task)

    def _release(self) -> None:
        self._tasks_given += 1
        self._restorer.clear()
        self._outbox.clear()
        self._woken.clear()
        self._rest.clear()
        self._owners.clear()
        if self._history is not None:
            self._history.clear()
        for task in self.tasks.values():
            task.close()
        self.tasks.clear()

    def _restore(self) -> None:
        ready = self._restorer.advance(0.0 if self._owners else self.settings.idle_timeout_s)
        for task in ready:
            self._owners.update((partition, task) for partition in task.partitions)
            self._consumer.start(task.positions)
        self._observer.restored(self._restorer.take_restored())
        self._observer.restoring([number for number, _ in self._ready_tasks()], self._restorer.waiting)

    def _ready_tasks(self) -> list[tuple[int, Task]]:
        waiting = self._restorer.waiting
        return [(number, task) for number, task in self.tasks.items() if number not in waiting]

    # ------------------------------------------------------------------------------------- beside the loop

    def input_lag(self) -> int | None:
        """Records (offsets) that wait in the inputs of this worker, as last seen; None while that is not known."""
        if self._restorer.waiting or not self._owners:
            return None
        lags = [self._consumer.lag(partition) for partition in self._owners]
        return None if None in lags else sum(lag for lag in lags if lag is not None)

    def restoring(self) -> dict[int, tuple[int, int | None]]:
        """Partition to (changelog position, target) of what is being restored; target None: not known yet."""
        return {number: (r.position, r.target) for number, r in self._restorer.waiting.items()}

    def history_left(self) -> dict[int, int]:
        """Partition to the offsets of history that are still to be read for it."""
        return self._history.left if self._history is not None else {}
