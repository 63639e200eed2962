"""Several partitions in the order of one clock.

A partition's clock at a record is the latest `received` up to there: what a task that consumes it has for its time. The
partitions are put together by it, so no part of the copy runs ahead of another, whatever their sizes. A partition of
which nothing is at hand, though more is to come, holds all others up.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

_What = TypeVar("_What")


class Placed(NamedTuple, Generic[_What]):
    """Something of a partition, with the partition's clock at it."""

    clock: int
    partition: int
    what: _What


class InOrder(Generic[_What]):
    """Puts what stands in several partitions into the order of their clocks. `clocks`: where each stands."""

    def __init__(self, clocks: Sequence[int]) -> None:
        self._clocks = list(clocks)
        self._waiting: list[deque[tuple[int, _What]]] = [deque() for _ in clocks]

    def add(self, partition: int, received: int, what: _What) -> None:
        """Take in the next of a partition."""
        clock = max(self._clocks[partition], received)
        self._clocks[partition] = clock
        self._waiting[partition].append((clock, what))

    def give_back(self, placed: Placed[_What]) -> None:
        """Put what was taken last back: it comes next again."""
        self._waiting[placed.partition].appendleft((placed.clock, placed.what))

    def waiting(self, partition: int) -> int:
        """How much of a partition is at hand."""
        return len(self._waiting[partition])

    def next_clock(self, at_end: Sequence[bool]) -> int | None:
        """The clock at what comes next; None if that is not known yet. `at_end` tells of each partition whether all
        there is of it has been added."""
        lowest = None
        for waiting, ended in zip(self._waiting, at_end, strict=True):
            if waiting:
                if lowest is None or waiting[0][0] < lowest:
                    lowest = waiting[0][0]
            elif not ended:
                return None
        return lowest

    def take(self, limit: int, at_end: Sequence[bool], until: int | None = None) -> Iterator[Placed[_What]]:
        """Up to `limit` in order; only what stands before the clock `until`, if it is given."""
        left = limit
        while left > 0:
            heads = sorted((waiting[0][0], number) for number, waiting in enumerate(self._waiting) if waiting)
            if not heads or any(
                not waiting and not ended for waiting, ended in zip(self._waiting, at_end, strict=True)
            ):
                return
            _, number = heads[0]
            # Equal clocks: the lower partition first, all of it up to there.
            bound = heads[1] if len(heads) > 1 else None
            waiting = self._waiting[number]
            while left > 0 and waiting:
                clock, what = waiting[0]
                if bound is not None and (clock, number) > bound:
                    break
                if until is not None and clock >= until:
                    return
                waiting.popleft()
                left -= 1
                yield Placed(clock, number, what)
