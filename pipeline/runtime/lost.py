"""What a broker leaves of a transaction whose markers it has dropped, and how that is ended.

Kafka 4.1 to 4.3 (its issue KAFKA-20734) takes a partition that has no leader for a moment for one that was deleted, and
leaves out its marker; with a single broker that is every partition, whenever it starts again while a transaction is
being committed. The coordinator then calls the transaction complete, and its records hang: no reader passes them, and
the next marker of the same producer in that partition ends them, be it a commit or an abort. So what hangs must be
ended before this producer writes anything else there (docs/decisions/transactions-that-lost-their-markers.md).
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from pipeline.runtime.adapters import Adapters, Committed, Consumer, Outgoing, Partition, Producer
from pipeline.runtime.errors import Abortable, Fatal, Retriable, WorkerStopped
from pipeline.runtime.ports import Record
from pipeline.runtime.settings import WorkerSettings
from pipeline.runtime.task import Task

_log = logging.getLogger(__name__)
Source = tuple[str, int, int]
"""(topic, partition, offset) of the input record that an output was made of."""

TOUCH_KEY = b"\x00touch"
_MOST_IDS = 2
_MOST_ASKED = 3
_ANSWER_S = 0.5
_READ_S = 0.2
_NOT_ALLOWED = "AUTHORIZATION_FAILED"
_READ_AT_ONCE = 5_000
_MOST_SILENT = 40
# Of a lost transaction all was written within a transaction's time, 10 s, and whoever took over did it again soon
# after; clocks of several hosts differ.
_BEFORE_MS = 20_000
_AFTER_MS = 60_000
# What others have written behind a transaction that has been open for long is not all read.
_MOST_BEHIND = 100_000
# How far back is read where nothing that hangs tells when it was: only positions did.
_LATELY_MS = 300_000


@dataclass(frozen=True)
class Told:
    """What the outputs of a role without state tell. `source` gives what a record was made of, None if nothing of the
    inputs. `fillers`: topic → the value of a record that tells its readers nothing."""

    source: Callable[[Record], Source | None]
    fillers: Mapping[str, bytes] = field(default_factory=dict)


class Outcomes:
    """Finds out what hangs in the outputs of a role, and ends it: asked again and again until it says that all is
    settled.

    Without state, what hangs is compared with the positions. Then `passed` are the inputs behind the positions whose
    outputs are visible already: the one transaction that lost some of its markers and not all of them. They are not to
    be done once more. With state, it is compared with the changelog.
    """

    def __init__(
        self,
        outputs: Sequence[str],
        told: Told | None,
        adapters: Adapters,
        settings: WorkerSettings,
        alive: Callable[[], None],
    ) -> None:
        """`alive` is called while it takes long."""
        self._alive = alive
        self.passed: set[Source] = set()
        self._outputs = outputs
        self._told = told
        self._adapters = adapters
        self._settings = settings
        self._held: dict[Partition, int] | None = None
        self._since_ms = 0
        # Positions hung and were set free: after a rebalance nothing shows that any more.
        self.were_freed = False

    def begin(self) -> None:
        """Partitions were assigned: it is looked at anew. What stands in the outputs already goes on standing there."""
        self._held = None

    def settled(self, committed: Mapping[Partition, Committed | None], were_free: bool, now: int) -> bool:
        """Without state: whether nothing of a lost transaction hangs any more. `committed`: the group's positions in
        what is assigned; `were_free`: False if they hung themselves, and were set free."""
        told = self._told
        assert told is not None
        were_free = were_free and not self.were_freed
        is_settled = self._is_settled(lambda ends: self._settle(told, committed, ends), were_free, now)
        self.were_freed = self.were_freed and not is_settled
        return is_settled

    def settled_by(self, changelog: Sequence[Partition], are_restored: bool, now: int) -> bool:
        """With state: the same, by these partitions of the changelog; they tell only once they are restored."""
        return self._is_settled(lambda ends: self._settle_by(changelog, ends), True, now, are_restored)

    def _is_settled(
        self,
        settle: Callable[[Mapping[Partition, tuple[int, int]]], None],
        were_free: bool,
        now: int,
        are_restored: bool = True,
    ) -> bool:
        try:
            ends = self._adapters.admin.ends(self._outputs, self._settings.call_timeout_s)
            held = {partition: stable for partition, (stable, high) in ends.items() if stable < high}
            if self._held is None:
                self._held, self._since_ms = held, now
            # Somebody else's transactions come and go; what hangs stays where it is.
            self._held = {partition: at for partition, at in self._held.items() if held.get(partition) == at}
            if not self._held and were_free:
                return True
            if self._held and (now - self._since_ms < self._settings.hanging_after_ms or not are_restored):
                return False
            settle(ends)
        except Retriable as unanswered:
            _log.info("what hangs in the outputs is not known yet: %s", unanswered)
            return False
        except Fatal as refused:
            if _NOT_ALLOWED not in str(refused):
                raise
            _log.error("what hangs in the outputs is not to be read: %s; see `headwater topics acls`", refused)
        return True

    def _settle(
        self, told: Told, committed: Mapping[Partition, Committed | None], ends: Mapping[Partition, tuple[int, int]]
    ) -> None:
        # A transaction is whole: its first record in a partition tells of all of them there.
        firsts: dict[Partition, Source | None] = {}
        owns: dict[Partition, Source] = {}
        often: Counter[Source] = Counter()
        times: list[int] = []
        for at, stable in (self._held or {}).items():
            records = read_between(self._adapters, self._alive, False, {at: stable}, {at: ends[at][1]})
            firsts[at] = None
            for number, record in enumerate(islice(records, _MOST_BEHIND)):
                times += [record.timestamp_ms] if number == 0 else []
                source = told.source(record)
                if source is not None:
                    firsts[at] = firsts[at] or source
                    if source[:2] in committed:
                        owns.setdefault(at, source)
                    often[source] += 1
        firsts |= owns
        positions = {at: one.position for at, one in committed.items() if one is not None}
        wanted = set(firsts.values())
        for record in self._lately(times, ends):
            source = told.source(record)
            if source is None:
                continue
            if source in wanted:
                often[source] += 1
            if source[:2] in committed and source[2] >= positions.get(source[:2], 0):
                self.passed.add(source)
        kept = [
            at
            for at, first in firsts.items()
            if first is not None and often[first] == 1 and self._is_covered(first, positions, committed)
        ]
        aborted = [at for at in firsts if at not in kept]
        self._tell(aborted, kept)
        if self.passed:
            _log.warning(
                "%d records behind the positions are in the outputs already, and passed over", len(self.passed)
            )
        touch(self._adapters.producer, aborted, self._settings.call_timeout_s)
        self._keep(told, kept)

    def _lately(self, times: Sequence[int], ends: Mapping[Partition, tuple[int, int]]) -> Iterator[Record]:
        """What readers see in the outputs of the time around these, or of the last minutes."""
        admin, timeout_s = self._adapters.admin, self._settings.call_timeout_s
        since_ms = min(times) - _BEFORE_MS if times else self._adapters.clock() - _LATELY_MS
        starts = admin.positions_at(list(ends), since_ms, timeout_s)
        until = {at: stable for at, (stable, _) in ends.items()}
        if times:
            late = admin.positions_at(list(ends), max(times) + _AFTER_MS, timeout_s)
            until = {at: min(stable, late[at]) for at, stable in until.items()}
        return read_between(self._adapters, self._alive, True, starts, until)

    def _settle_by(self, changelog: Sequence[Partition], ends: Mapping[Partition, tuple[int, int]]) -> None:
        """A transaction writes its outputs before the changelog, and the next one follows only when it is committed. So
        what hangs is of a committed one if the changelog has something as late as its first record, else of none."""
        admin, timeout_s = self._adapters.admin, self._settings.call_timeout_s
        stable = {at: told[0] for at, told in admin.ends([changelog[0][0]], timeout_s).items() if at in changelog}
        aborted: list[Partition] = []
        kept: list[Partition] = []
        for at, held in (self._held or {}).items():
            first = next(read_between(self._adapters, self._alive, False, {at: held}, {at: ends[at][1]}), None)
            if first is None:
                continue
            starts = admin.positions_at(list(stable), first.timestamp_ms, timeout_s)
            covered = any(read_between(self._adapters, self._alive, True, starts, stable))
            (kept if covered else aborted).append(at)
        self._tell(aborted, kept)
        touch(self._adapters.producer, aborted, timeout_s)

    def _tell(self, aborted: Sequence[Partition], kept: Sequence[Partition]) -> None:
        """What is kept is committed with the next record of ours there, where nothing can be written that tells
        nothing."""
        for at in (*aborted, *kept):
            _log.warning(
                "%s/%d: a transaction is open from %d on and does not end; it is to be %s",
                *at,
                (self._held or {}).get(at, 0),
                "committed" if at in kept else "aborted",
            )

    def _is_covered(
        self, source: Source, positions: Mapping[Partition, int], committed: Mapping[Partition, Committed | None]
    ) -> bool:
        """Whether the group has passed this input."""
        at = source[:2]
        if at not in committed:
            other = self._adapters.consumer.committed([at], _ANSWER_S)[at]
            return other is not None and source[2] < other.position
        return source[2] < positions.get(at, 0)

    def _keep(self, told: Told, partitions: Sequence[Partition]) -> None:
        """Commit what hangs, with a record that tells nothing: what its positions cover is never done again."""
        fillers = [(topic, told.fillers[topic], None, n) for topic, n in partitions if topic in told.fillers]
        if fillers:
            keep(self._adapters.producer, fillers, self._settings.call_timeout_s)


def read_between(
    adapters: Adapters,
    alive: Callable[[], None],
    committed: bool,
    starts: Mapping[Partition, int],
    ends: Mapping[Partition, int],
) -> Iterator[Record]:
    """What stands between these positions: what is committed, or everything."""
    left = {at: ends[at] for at, start in starts.items() if start < ends[at]}
    if not left:
        return
    assert adapters.look is not None
    reader = adapters.look(committed)
    try:
        for at in left:
            reader.open(at, starts[at])
        silent = 0
        while any(reader.position(at) < end for at, end in left.items()):
            records = reader.read(_READ_AT_ONCE, _READ_S)
            alive()
            silent = 0 if records else silent + 1
            if silent > _MOST_SILENT:
                raise Retriable(f"{sorted(left)} could not be read to their ends")
            yield from (record for record in records if record.offset < ends[record.topic, record.partition])
    finally:
        reader.close()


def touch(
    producer: Producer,
    partitions: Iterable[Partition],
    timeout_s: float,
    also: Callable[[], None] | None = None,
) -> None:
    """Abort a transaction of ours that has a record in each of these partitions, and whatever `also` puts into it: its
    markers end what hangs of the same producer there, and nothing of anybody else's."""
    wanted = [(topic, None, TOUCH_KEY, number) for topic, number in partitions]
    if not wanted and also is None:
        return
    for _ in range(_MOST_IDS):  # the ids of a slot take turns: it may be of any of them
        producer.begin()
        with contextlib.suppress(Retriable, Abortable):
            producer.send(wanted)
            producer.flush(timeout_s)
            if also is not None:
                also()
        _ask("abort", lambda: producer.abort(timeout_s))


def keep(
    producer: Producer,
    records: Sequence[Outgoing],
    timeout_s: float,
    also: Callable[[], None] | None = None,
) -> None:
    """Commit a transaction of ours with these records, and whatever `also` puts into it: what hangs of the same
    producer in their partitions is committed with it."""
    for _ in range(_MOST_IDS):
        producer.begin()
        producer.send(records)
        _ask("flush", lambda: producer.flush(timeout_s))
        if also is not None:
            _ask("sending positions", also)
        _ask("commit", lambda: producer.commit(timeout_s))


def _ask(what: str, call: Callable[[], object]) -> None:
    for _ in range(_MOST_ASKED):
        with contextlib.suppress(Retriable):
            call()
            return
    raise WorkerStopped(f"ending what hangs in the outputs: {what} was not answered")


def refuse_lost(consumer: Consumer, tasks: Iterable[Task]) -> None:
    """After an abort: the transaction before it may have lost its markers, and the abort has then ended it too.

    Raises:
        Retriable: positions are still pending.
        Fatal: what this worker takes for committed is not; only a start finds out what is.
    """
    for task in tasks:
        if not task.positions:
            continue
        for at, told in consumer.committed(task.partitions, _ANSWER_S).items():
            position = told.position if told is not None else task.begun.get(at, 0)
            if position < task.positions.get(at, 0):
                raise Fatal(
                    f"{at[0]}/{at[1]}: the group is at {position}, after a commit up to {task.positions[at]}: "
                    "the broker has lost that transaction"
                )
