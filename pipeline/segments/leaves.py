"""Leaves: the small states that events are folded into, and how two of them join.

A state is made of ints, floats, texts, lists and dicts only. `add` folds one event into a state in place and returns
it (None: the event changes nothing); `join` makes a new state of two and shares nothing with them. Joining is
associative and commutative: states are multisets of times, of (time, value) entries, counters that add, least and
greatest values. An entry is dropped only once it can never matter again: the clock of its holder is never behind the
`received` of an event that was folded, so what is older than `received - span_ms` stays out of the window for good.
"""

import hashlib
import json
import sys
from bisect import bisect_left, insort
from heapq import heapify, heappop, heapreplace
from typing import Any

from pipeline.segments.values import Getter, json_text, number_of, to_nano
from pipeline.segments.windows import Window

CAP = 10_000
TILES = 1_000
_INT64 = 1 << 63
_LAST_DOUBLE = sys.float_info.max


class Leaf:
    """One kind of state."""

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        """Fold an event; `state` is None where there is none yet. Returns the state, or None if nothing changed."""
        raise NotImplementedError

    def join(self, a: Any, b: Any) -> Any:
        """The state of both histories together; neither argument is changed or shared."""
        raise NotImplementedError

    def copy(self, state: Any) -> Any:
        """A copy that shares nothing."""
        raise NotImplementedError

    def approximate(self, state: Any, start_ms: int) -> bool:
        """Whether what lies in a window that starts at `start_ms` is known only in tiles, or in part."""
        raise NotImplementedError


class Exact(Leaf):
    """A leaf whose state is never approximate."""

    def approximate(self, state: Any, start_ms: int) -> bool:
        return False


class NewestTimes(Exact):
    """The newest `keep` times, ascending: enough to tell whether `keep` or fewer lie in a window up to the clock."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        if state is None:
            return [time_ms]
        if len(state) < self.keep:
            if time_ms >= state[-1]:
                state.append(time_ms)
            else:
                insort(state, time_ms)
            return state
        if time_ms <= state[0]:
            return None
        if time_ms >= state[-1]:
            state.append(time_ms)
        else:
            insort(state, time_ms)
        del state[0]
        return state

    def join(self, a: Any, b: Any) -> Any:
        return sorted(a + b)[-self.keep :]

    def copy(self, state: Any) -> Any:
        return state[:]


class TimesOfUnits(NewestTimes):
    """For windows of whole units that are over: of the times before the unit that is present the newest `keep`, and of
    every unit since then the newest `keep` of it, for one day it will be over too."""

    def __init__(self, keep: int, window: Window) -> None:
        super().__init__(keep)
        self.window = window

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        if state is None:
            return [time_ms]
        insort(state, time_ms)
        over = bisect_left(state, self.window.bounds(event.received)[1])
        if over > self.keep:
            del state[: over - self.keep]
        first = bisect_left(state, self.window.bounds(time_ms)[1])
        if bisect_left(state, self.window.enters(time_ms)) - first > self.keep:
            del state[first]
        return state

    def join(self, a: Any, b: Any) -> Any:
        # Which unit is present, the next event tells.
        return sorted(a + b)


class Counter(Exact):
    """How many."""

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        return 1 if state is None else state + 1

    def join(self, a: Any, b: Any) -> Any:
        return a + b

    def copy(self, state: Any) -> Any:
        return state


def pack_nano(nano: int) -> int | str:
    """A sum as stored: an int while 64 bits hold it, a text beyond."""
    return nano if -_INT64 <= nano < _INT64 else str(nano)


class Statistics(Exact):
    """[count, sum in 10^-9, min, max] of the numbers at a path."""

    def __init__(self, get: Getter) -> None:
        self.get = get

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        number = number_of(self.get(event))
        if number is None:
            return None
        if state is None:
            return [1, pack_nano(to_nano(number)), number, number]
        state[0] += 1
        state[1] = pack_nano(int(state[1]) + to_nano(number))
        if number < state[2]:
            state[2] = number
        if number > state[3]:
            state[3] = number
        return state

    def join(self, a: Any, b: Any) -> Any:
        return [a[0] + b[0], pack_nano(int(a[1]) + int(b[1])), min(a[2], b[2]), max(a[3], b[3])]

    def copy(self, state: Any) -> Any:
        return state[:]


class FirstAndLast(Exact):
    """[earliest time, latest time]."""

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        if state is None:
            return [time_ms, time_ms]
        if time_ms < state[0]:
            state[0] = time_ms
        elif time_ms > state[1]:
            state[1] = time_ms
        else:
            return None
        return state

    def join(self, a: Any, b: Any) -> Any:
        return [min(a[0], b[0]), max(a[1], b[1])]

    def copy(self, state: Any) -> Any:
        return state[:]


class ValueAt(Exact):
    """[time, JSON text] of the first (least) or last (greatest) value."""

    def __init__(self, get: Getter, last: bool) -> None:
        self.get, self.last = get, last

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        text = json_text(self.get(event))
        if text is None:
            return None
        entry = [time_ms, text]
        if state is None or (entry > state if self.last else entry < state):
            return entry
        return None

    def join(self, a: Any, b: Any) -> Any:
        return list(max(a, b) if self.last else min(a, b))

    def copy(self, state: Any) -> Any:
        return state[:]


class Frequencies(Leaf):
    """{JSON text: how often}. Past the cap a new value takes the place of the rarest, and its count, so that what has
    become frequent late is found; the state is approximate."""

    def __init__(self, get: Getter) -> None:
        self.get = get

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        text = json_text(self.get(event))
        if text is None:
            return None
        state = {} if state is None else state
        count = state.get(text)
        if count is None:
            count = 0
            if len(state) >= CAP:
                rarest = min(state.items(), key=lambda one: (one[1], one[0]))[0]
                count = state.pop(rarest)
        state[text] = count + 1
        return state

    def join(self, a: Any, b: Any) -> Any:
        joined = dict(a)
        for text, count in b.items():
            joined[text] = joined.get(text, 0) + count
        if len(joined) > CAP:
            for text in sorted(joined, key=lambda one: (-joined[one], one))[CAP:]:
                del joined[text]
        return joined

    def copy(self, state: Any) -> Any:
        return dict(state)

    def approximate(self, state: Any, start_ms: int) -> bool:
        return state is not None and len(state) >= CAP


class RecentValues(Exact):
    """{JSON text: its newest time} of the `limit` values seen most recently."""

    def __init__(self, get: Getter, limit: int) -> None:
        self.get, self.limit = get, limit

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        text = json_text(self.get(event))
        if text is None:
            return None
        if state is None:
            return {text: time_ms}
        if state.get(text, -(1 << 62)) >= time_ms:
            return None
        state[text] = time_ms
        if len(state) > self.limit:
            del state[min(state, key=lambda one: (state[one], one))]
        return state

    def join(self, a: Any, b: Any) -> Any:
        joined = dict(a)
        for text, time_ms in b.items():
            joined[text] = max(joined.get(text, time_ms), time_ms)
        if len(joined) > self.limit:
            kept = sorted(joined, key=lambda one: (joined[one], one))[-self.limit :]
            joined = {text: joined[text] for text in kept}
        return joined

    def copy(self, state: Any) -> Any:
        return dict(state)


def value_hash(value: Any) -> int | None:
    """8 bytes that stand for a text, number or boolean."""
    text = json_text(value)
    if text is None:
        return None
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class DistinctValues(Leaf):
    """{hash of a value: 0}. Past the cap only the least hashes are kept, from which the number is estimated."""

    def __init__(self, get: Getter) -> None:
        self.get = get

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        hashed = value_hash(self.get(event))
        if hashed is None or (state is not None and hashed in state):
            return None
        state = {} if state is None else state
        state[hashed] = 0
        if len(state) > CAP:
            del state[max(state)]
        return state

    def join(self, a: Any, b: Any) -> Any:
        joined = {**a, **b}
        if len(joined) > CAP:
            joined = dict.fromkeys(sorted(joined)[:CAP], 0)
        return joined

    def copy(self, state: Any) -> Any:
        return dict(state)

    def approximate(self, state: Any, start_ms: int) -> bool:
        return state is not None and len(state) >= CAP


def distinct_count(state: Any) -> int:
    """How many values a DistinctValues state stands for."""
    if state is None:
        return 0
    if len(state) < CAP:
        return len(state)
    greatest: int = max(state)
    return max(CAP, round((CAP - 1) * 2.0**63 / greatest))


class Entries(Leaf):
    """[entries (time, value), newest time dropped, {tile: [count, sum, min, max]}, 1 once a number was below 0, sum].

    The sum, in 10^-9, is that of the entries, where they are numbers: what is in the window is all but a few of them.
    The entries are those that may still be in the window. Past the cap the oldest go, and no more than have to, so that
    it is the same ones in whatever parts and order they came: numbers into tiles of a thousandth of the window,
    everything else is dropped.
    """

    def __init__(self, span_ms: int, tiled: bool = False, signed: bool = False) -> None:
        self.span_ms = span_ms
        self.signed = signed
        self.tile_ms = max(1, span_ms // TILES) if tiled and span_ms else 0

    def value(self, event: Any) -> Any:
        """What is kept of an event; None: it is none of this leaf's."""
        raise NotImplementedError

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        value = self.value(event)
        if value is None:
            return None
        floor_ms = event.received - self.span_ms if self.span_ms else None
        if floor_ms is not None and time_ms <= floor_ms:
            return None
        nano = to_nano(value) if self.signed else 0
        if state is None:
            return [[[time_ms, value]], 0, {}, int(nano < 0), pack_nano(nano)]
        if nano:
            state[4] = pack_nano(int(state[4]) + nano)
            if nano < 0:
                state[3] = 1
        entries = state[0]
        entry = [time_ms, value]
        if not entries or entry >= entries[-1]:
            entries.append(entry)
        else:
            insort(entries, entry)
        if floor_ms is not None:
            # With the tile it is in, or would be: some of what has left the window may be in that.
            last_ms = floor_ms // self.tile_ms * self.tile_ms - 1 if self.tile_ms else floor_ms
            gone = 0
            while entries[gone][0] <= last_ms:
                gone += 1
            if gone:
                self.take_out(state, gone)
            tiles = state[2]
            # Where there are always too many entries, none is ever too old.
            if tiles and (gone or len(tiles) > 2 * TILES):
                for tile in [one for one in tiles if (one + 1) * self.tile_ms <= floor_ms]:
                    del tiles[tile]
        return self._capped(state)

    def take_out(self, state: Any, gone: int) -> None:
        """Take the `gone` oldest entries out, in place."""
        entries = state[0]
        if self.signed:
            state[4] = pack_nano(int(state[4]) - sum(to_nano(entry[1]) for entry in entries[:gone]))
        del entries[:gone]

    def _capped(self, state: Any) -> Any:
        entries, tiles = state[0], state[2]
        gone = len(entries) - CAP
        if gone <= 0:
            return state
        state[1] = max(state[1], entries[gone - 1][0])
        if self.tile_ms:
            for time_ms, value in entries[:gone]:
                add_tile(tiles, time_ms // self.tile_ms, [1, to_nano(value), value, value])
        self.take_out(state, gone)
        return state

    def join(self, a: Any, b: Any) -> Any:
        tiles = {number: tile[:] for number, tile in a[2].items()}
        for number, tile in b[2].items():
            add_tile(tiles, number, tile)
        entries = sorted([entry[:] for entry in a[0]] + [entry[:] for entry in b[0]])
        total = pack_nano(int(a[4]) + int(b[4]))
        return self._capped([entries, max(a[1], b[1]), tiles, max(a[3], b[3]), total])

    def copy(self, state: Any) -> Any:
        tiles = {number: tile[:] for number, tile in state[2].items()}
        return [[entry[:] for entry in state[0]], state[1], tiles, state[3], state[4]]

    def approximate(self, state: Any, start_ms: int) -> bool:
        return state is not None and bool(state[1]) and state[1] >= start_ms


def add_tile(tiles: dict[int, list[Any]], number: int, tile: list[Any]) -> None:
    """Add a tile's [count, sum, min, max] to those that are there."""
    held = tiles.get(number)
    if held is None:
        tiles[number] = [tile[0], pack_nano(int(tile[1])), tile[2], tile[3]]
        return
    held[0] += tile[0]
    held[1] = pack_nano(int(held[1]) + int(tile[1]))
    held[2] = min(held[2], tile[2])
    held[3] = max(held[3], tile[3])


class TimeEntries(Entries):
    """Only the times: for counts in windows that do not reach to the clock. The value is 1."""

    def __init__(self, span_ms: int) -> None:
        super().__init__(span_ms, tiled=True)

    def value(self, event: Any) -> Any:
        return 1


class NumberEntries(Entries):
    """The numbers at a path."""

    def __init__(self, span_ms: int, get: Getter) -> None:
        super().__init__(span_ms, tiled=True, signed=True)
        self.get = get

    def value(self, event: Any) -> Any:
        return number_of(self.get(event))


class HashEntries(Entries):
    """The hashes of the values at a path."""

    def __init__(self, span_ms: int, get: Getter) -> None:
        super().__init__(span_ms)
        self.get = get

    def value(self, event: Any) -> Any:
        return value_hash(self.get(event))


class TextEntries(Entries):
    """The JSON texts of the values at a path."""

    def __init__(self, span_ms: int, get: Getter) -> None:
        super().__init__(span_ms)
        self.get = get

    def value(self, event: Any) -> Any:
        return json_text(self.get(event))


class PathEntries(Entries):
    """The values at several paths, as one JSON text: for conditions that compare them with traits at the clock."""

    def __init__(self, span_ms: int, getters: tuple[Getter, ...]) -> None:
        super().__init__(span_ms)
        self.getters = getters

    def value(self, event: Any) -> Any:
        return json.dumps([get(event) for get in self.getters], ensure_ascii=False)

    def values(self, kept: str) -> list[Any]:
        """The values of an entry, in the order of the getters."""
        values: list[Any] = json.loads(kept)
        return values


class WeightEntries(Entries):
    """What each event adds to a score."""

    def __init__(self, span_ms: int, lines: dict[str, list[tuple[Any, float]]]) -> None:
        super().__init__(span_ms)
        self.lines = lines

    def value(self, event: Any) -> Any:
        weight: float | None = None
        name = event.event
        # Somebody may call an event "*": its lines are those of any event, and count once.
        for passes, one in (*(self.lines.get(name, ()) if name != "*" else ()), *self.lines.get("*", ())):
            if passes is None or passes(event):
                weight = one if weight is None else weight + one
        # A sum of doubles may be beyond all of them, and neither JSON nor a sum knows what that is.
        return weight if weight is None else max(-_LAST_DOUBLE, min(_LAST_DOUBLE, weight))


class StepEntries(Entries):
    """{correlation: entries of (time, mask of the steps the event matches)}; 0 where nothing correlates."""

    def __init__(self, span_ms: int, lines: dict[str, list[tuple[Any, Getter | None, int]]]) -> None:
        super().__init__(span_ms)
        self.lines = lines

    def add(self, state: Any, time_ms: int, event: Any) -> Any:
        masks: dict[int, int] = {}
        for passes, get, bit in (*self.lines.get(event.event, ()), *self.lines.get("*", ())):
            if passes is None or passes(event):
                correlation = 0 if get is None else value_hash(get(event))
                if correlation is not None:
                    masks[correlation] = masks.get(correlation, 0) | bit
        if not masks:
            return None
        floor_ms = event.received - self.span_ms if self.span_ms else None
        if floor_ms is not None and time_ms <= floor_ms:
            return None
        if state is None:
            state = [{}, 0]
        chains = state[0]
        for correlation, mask in masks.items():
            insort(chains.setdefault(correlation, []), [time_ms, mask])
        if floor_ms is not None:
            for correlation in [one for one, chain in chains.items() if chain[0][0] <= floor_ms]:
                kept = [entry for entry in chains[correlation] if entry[0] > floor_ms]
                if kept:
                    chains[correlation] = kept
                else:
                    del chains[correlation]
        return self._capped(state)

    def _capped(self, state: Any) -> Any:
        chains = state[0]
        gone = sum(map(len, chains.values())) - CAP
        if gone <= 0:
            return state
        oldest = [(chain[0][0], correlation) for correlation, chain in chains.items()]
        heapify(oldest)
        for _ in range(gone):
            time_ms, correlation = oldest[0]
            chain = chains[correlation]
            del chain[0]
            if chain:
                heapreplace(oldest, (chain[0][0], correlation))
            else:
                heappop(oldest)
                del chains[correlation]
            state[1] = max(state[1], time_ms)
        return state

    def join(self, a: Any, b: Any) -> Any:
        chains = {correlation: [entry[:] for entry in chain] for correlation, chain in a[0].items()}
        for correlation, chain in b[0].items():
            chains[correlation] = sorted(chains.get(correlation, []) + [entry[:] for entry in chain])
        return self._capped([chains, max(a[1], b[1])])

    def copy(self, state: Any) -> Any:
        return [{one: [entry[:] for entry in chain] for one, chain in state[0].items()}, state[1]]
