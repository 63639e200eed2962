"""Several partitions in the order in which the broker took their records in.

A client fetches partition by partition. After an outage, or with any backlog, that is minutes of one partition before
the first second of the next; whoever takes the records in that order tells those behind it a time up to the whole
outage ahead of them. So here what was consumed is put in order by the time the broker stamped it, up to the least of
the times that the partitions have come to.

Nothing waits that is not late already. A partition that has nothing to give holds the others up for a moment, not
longer, and one that runs far ahead is held until the others have come there. One that has long been read to the ends
that it had is behind nobody, whatever its stamps say: its broker's clock is wrong. Records that their producers stamped
prove no time: they pass as they come.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from pipeline.runtime.adapters import Clock, Committed, Consumer, Listener, Membership, Partition
from pipeline.runtime.ports import Record

# Up to here nobody is late, and everything passes at once, in order within what came together.
LATE_MS = 2_000
# A partition that was asked for so long and gave nothing has nothing to give: several times what a fetch may take.
SILENT_MS = 500
# One that surely has something, or of which nothing is known yet, is waited for as long; what nobody serves, no longer.
OWES_MS = 3_000
# Who has not asked for so long, or was given nothing, knows of no partition any more that it has nothing: what it knew
# of their ends is old. For a while after it has woken up, nobody is taken to be silent.
ASLEEP_MS = 3_000
WARY_MS = 2_000
# A partition of which so many records, or its share of so many bytes, wait for others is held until a quarter is left.
HELD_RECORDS = 20_000
HELD_BYTES = 128 * 1024 * 1024

_UNKNOWN = -1
_clock = itemgetter(0)


@dataclass(slots=True)
class _Lane:
    """A started partition. `clock` is the latest stamp it gave (ms), `next` the offset behind what came of it,
    `records` and `bytes` what of that waits here; `silent_ms` since when it has given nothing, None: it is not silent.
    It `has_gaps` if it is written in transactions: at its end stands what no consumer is given.

    `end` is the end that it had at `end_ms`. It was read to that of `reached_ms`, and since `current_ms` to each.
    """

    next: int
    clock: int = _UNKNOWN
    is_stamped: bool = True
    silent_ms: int | None = None
    is_held: bool = False
    has_gaps: bool = False
    end: int | None = None
    end_ms: int = 0
    reached_ms: int | None = None
    current_ms: int = 0
    records: int = 0
    bytes: int = 0


class InTimeOrder:
    """A `Consumer` that gives the records of another one in the order of their `appended_ms`.

    Within a partition the order stays: where stamps go back, the latest so far counts. `clock` says what is late, and
    how long a partition has been silent.
    """

    def __init__(self, consumer: Consumer, clock: Clock) -> None:
        self._consumer = consumer
        self._now = clock
        self._lanes: dict[Partition, _Lane] = {}
        self._waiting: list[tuple[int, Record]] = []
        self._asked_ms = self._came_ms = self._woke_ms = 0

    def consume(self, limit: int, timeout_s: float) -> list[Record]:
        """Up to `limit` records in order; it may be none though some are at hand."""
        come = self._consumer.consume(limit, timeout_s)
        if len(self._lanes) < 2:
            return come
        now = self._now()
        if come:
            self._take_in(come)
        self._note_silence(come, limit, now)
        if not self._waiting:
            return []
        return self._give(min(limit, self._in_order(now)))

    def _take_in(self, come: list[Record]) -> None:
        waiting, lanes = self._waiting, self._lanes
        for record in come:
            lane = lanes.get((record[0], record[1]))
            if lane is None:
                continue  # it was taken from us while it was on its way
            if record.appended_ms > lane.clock:
                lane.clock = record.appended_ms
            lane.is_stamped = record.appended_ms > 0
            if record[2] != lane.next:
                lane.has_gaps = True
            lane.next = record[2] + 1
            lane.records += 1
            lane.bytes += len(record[4] or b"")
            waiting.append((lane.clock, record))
        waiting.sort(key=_clock)

    def _note_silence(self, come: list[Record], limit: int, now: int) -> None:
        gave = {(record[0], record[1]) for record in come}
        slept = not 0 <= now - self._asked_ms < ASLEEP_MS
        if come:
            stamped = (lane.clock for at, lane in self._lanes.items() if at in gave and lane.is_stamped)
            is_late = min(stamped, default=now) < now - LATE_MS
            slept = slept or (is_late and not 0 <= now - self._came_ms < ASLEEP_MS)
            self._came_ms = now
        self._asked_ms = now
        if slept:
            self._woke_ms = now
        for partition, lane in self._lanes.items():
            if slept or partition in gave:
                lane.silent_ms = None
            self._note_end(partition, lane, now, slept)
            if lane.silent_ms is not None:
                continue
            if lane.clock == _UNKNOWN and self._has_nothing(partition, lane):
                lane.silent_ms = now - OWES_MS  # its end is of just now
            elif len(come) < limit or self._has_nothing(partition, lane):
                lane.silent_ms = now

    def _note_end(self, partition: Partition, lane: _Lane, now: int, slept: bool) -> None:
        if slept:
            lane.end = lane.reached_ms = None
        if lane.end is None:
            lane.end, lane.end_ms = self._consumer.end(partition), now
        elif lane.next >= lane.end and now - lane.end_ms >= SILENT_MS:
            if not self._is_current(lane, now):
                lane.current_ms = now
            lane.reached_ms = lane.end_ms
            lane.end, lane.end_ms = self._consumer.end(partition), now

    def _is_current(self, lane: _Lane, now: int) -> bool:
        return lane.reached_ms is not None and now - lane.reached_ms <= LATE_MS

    def _has_nothing(self, partition: Partition, lane: _Lane) -> bool:
        end = self._consumer.end(partition)
        return end is not None and lane.next >= end

    def _is_waited_for(self, partition: Partition, lane: _Lane, now: int) -> bool:
        if not lane.is_stamped:
            return False
        if lane.is_held:
            return True
        silent_ms = now - (now if lane.silent_ms is None else lane.silent_ms)
        if silent_ms >= OWES_MS:
            return False
        if now - self._woke_ms < WARY_MS:
            return True
        if self._is_current(lane, now) and now - lane.current_ms >= SILENT_MS:
            return False
        if silent_ms < SILENT_MS:
            return True
        return not lane.has_gaps and not self._has_nothing(partition, lane)

    def _in_order(self, now: int) -> int:
        """How many of those that wait are surely before everything that is still to come, or late for nobody."""
        waiting = self._waiting
        waited_for = (lane.clock for at, lane in self._lanes.items() if self._is_waited_for(at, lane, now))
        come_to = min(waited_for, default=now)
        if come_to >= now - LATE_MS:
            return len(waiting)
        return bisect_right(waiting, come_to, key=_clock)

    def _give(self, count: int) -> list[Record]:
        waiting, lanes = self._waiting, self._lanes
        given = [record for _, record in waiting[:count]]
        del waiting[:count]
        for record in given:
            lane = lanes[record[0], record[1]]
            lane.records -= 1
            lane.bytes -= len(record[4] or b"")
        self._hold_back()
        return given

    def _hold_back(self) -> None:
        """Hold who is far ahead, and let go whom the others have come near to."""
        most_bytes = HELD_BYTES // len(self._lanes)
        for partition, lane in self._lanes.items():
            if lane.is_held:
                if lane.records <= HELD_RECORDS // 4 and lane.bytes <= most_bytes // 4:
                    lane.is_held, lane.silent_ms = False, None
                    self._consumer.start({partition: lane.next})
            elif lane.records > HELD_RECORDS or lane.bytes > most_bytes:
                lane.is_held = True
                self._consumer.hold([partition])

    def _forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._lanes.pop(partition, None)
        self._waiting = [one for one in self._waiting if (one[1][0], one[1][1]) in self._lanes]

    def forget_all(self) -> None:
        """Nothing is to be read from here on, and nothing of what was is to be given."""
        self._forget(list(self._lanes))

    # ------------------------------------------------------------------------------------ as of any consumer

    def subscribe(self, topics: Sequence[str], listener: Listener) -> None:
        """Join the group."""
        self._consumer.subscribe(topics, _Forgetting(self, listener))

    def start(self, positions: Mapping[Partition, int]) -> None:
        """Read these partitions from these positions on; what of them was at hand is given up."""
        if not self._lanes:
            self._asked_ms = self._came_ms = self._now()
        self._forget(positions)
        self._lanes.update((partition, _Lane(position)) for partition, position in positions.items())
        self._consumer.start(positions)

    def hold(self, partitions: Iterable[Partition]) -> None:
        """Give nothing of these partitions until `start`."""
        partitions = list(partitions)
        self._forget(partitions)
        self._consumer.hold(partitions)

    def lag(self, partition: Partition) -> int | None:
        """Offsets that wait, those at hand here among them."""
        lag, lane = self._consumer.lag(partition), self._lanes.get(partition)
        return lag if lag is None or lane is None else lag + lane.records

    def end(self, partition: Partition) -> int | None:
        """The end of a partition, as last seen."""
        return self._consumer.end(partition)

    def committed(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, Committed | None]:
        """The group's positions."""
        return self._consumer.committed(partitions, timeout_s)

    def membership(self) -> Membership:
        """The present membership."""
        return self._consumer.membership()

    def bounds(self, partition: Partition, timeout_s: float) -> tuple[int, int]:
        """(first position that still exists, end of the committed records)."""
        return self._consumer.bounds(partition, timeout_s)

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()


class _Forgetting:
    """Lets go of what is at hand before a rebalance is told."""

    def __init__(self, order: InTimeOrder, listener: Listener) -> None:
        self._order = order
        self._listener = listener

    def assigned(self, partitions: Sequence[Partition]) -> None:
        self._order.forget_all()
        self._listener.assigned(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self._order.forget_all()
        self._listener.revoked(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        self._order.forget_all()
        self._listener.lost(partitions)
