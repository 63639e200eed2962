"""The copier: the old workspace's history into the new one, and then whatever comes, in transactions.

    never  what was erased. Who is named again after an erasure is told to the new workspace as erased before the first
           event that names them: somebody new, or kept out there too until an event has a consent anew
    then   events in the order of `received`, whatever their partitions, with what was decided about identity where its
           time comes; after each batch the time it has come to, so that deadlines pass through their instants also
           where nothing arrives
    at last   the copy has reached the end of the old log and follows it: from here on it passes on when the old ingest
           says that it is caught up, and only that lets the new workspace believe the wall clock

Everything a batch writes and how far it has come are one transaction. Whoever starts again under the same id fences the
former one, reads how far it came, and goes on from there.

It never runs far ahead of what the new workspace has taken in, so its tasks never stand far apart in time. Around an
erasure or a release it waits until everything before it has been taken in: what they do depends on what there is. So
it does before and behind a consent anew: who is named before it is kept out, and what comes next under another of the
identifiers it names is let in by it. And before time goes on by much: a profile of pseudonyms must not expire before
all that happened to it by then has been taken in, though the records between the two be few.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pipeline.identity import IdentityRules
from pipeline.records import CaughtUp, DeadLetter, Erased, EraseRequest, Release, Takeover, encode
from pipeline.replay.decisions import PendingDecisions
from pipeline.replay.order import InOrder
from pipeline.replay.passage import (
    CaughtUpGlance,
    Erasure,
    EventGlance,
    Glance,
    Passed,
    decision,
    glance,
    passage,
    readmitted,
    renamed,
    returned,
    standing_for_all,
    translated,
)
from pipeline.replay.ports import Ports
from pipeline.runtime.adapters import CHOOSE_BY_KEY, LogReader, Outgoing
from pipeline.runtime.errors import Retriable, WorkerStopped
from pipeline.runtime.ports import Record
from pipeline.workspaces import (
    POSITION_KEY,
    TOPIC,
    ErasureCopied,
    ReplayPosition,
    erasure_key,
    unlink_key,
)

EVENTS, EDGES, LINKS, DECISIONS = "events", "identity-edges", "links", "identity-decisions"
DEAD_LETTERS = "dead-letters"
# What the old ingest received lately may still be on its way to `events`: only what it says itself is believed then.
_SURELY_PAST_MS = 60_000
_DAY_MS = 86_400_000
_ANSWERS = 12
_TIMEOUT_S = 5.0
_Answer = TypeVar("_Answer")


class ReplayStopped(WorkerStopped):
    """The copier cannot go on; started again it goes on from what was committed."""


@dataclass(slots=True)
class _Batch:
    """What one transaction passes on: the records `out`, and how far the copy has come with them."""

    positions: list[int]
    clocks: list[int]
    clock: int
    decided: int
    out: list[Outgoing] = field(default_factory=list)
    taken: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("copied", "rerouted", "erased", "refused", "decided_records"), 0)
    )


class Copier:
    """`start`, then `run_once` again and again. After an error it is over: make another one."""

    def __init__(self, ports: Ports, beat: Callable[[], None] = lambda: None) -> None:
        self._ports = ports
        self._beat = beat
        self._readers: list[LogReader] = []
        self.state: ReplayPosition
        self._order: InOrder[tuple[Record, Glance | None]]
        self._open: list[bool] = []
        self._next: list[int] = []
        self._caught_up: list[int] = []
        self._pending: PendingDecisions
        self._erasures: dict[bytes, Erasure] = {}
        self._erasures_copied: dict[bytes, int] = {}
        self._to_erase: dict[bytes, str] = {}
        self._to_find: set[bytes] = set()
        self._welcome: set[bytes] = set()
        self._known_decisions = self._decisions_end = 0
        self._on_their_way = 0
        self._must_rest, self._rests = True, False
        self._taken_in = 0
        self.ends: list[int] = []

    # ---------------------------------------------------------------------------------------------------- beginning

    def start(self) -> None:
        """Fence former selves, and find out how far they came."""
        ports = self._ports
        self._patiently("init transactions", lambda: ports.producer.init(_TIMEOUT_S))
        self._readers = [ports.old(), ports.old()]
        self._events, self._decisions = self._readers
        found, erasures, unlinks = ports.committed()
        self._erasures_copied = dict(erasures)
        bounds = [self._bounds(self._events, EVENTS, number) for number in range(ports.partitions)]
        if found is None:
            nothing = [0] * ports.partitions
            found = ReplayPosition([low for low, _ in bounds], nothing, nothing)
        if len(found.positions) != ports.partitions:
            raise ReplayStopped(f"the old workspace has {ports.partitions} partitions, not {len(found.positions)}")
        for number, (low, end) in enumerate(bounds):
            if not low <= found.positions[number] <= end:
                raise ReplayStopped(
                    f"partition {number} of the old events begins at {low} and ends at {end}; the replay stood at "
                    f"{found.positions[number]}: records are gone that were not copied; begin a new replay"
                )
        self.state = found
        self._pending = PendingDecisions(unlinks, found.decisions, found.decided)
        self.ends = [end for _, end in bounds]
        self._next, self._caught_up = list(found.positions), list(found.caught_up)
        self._order = InOrder(found.clocks)
        for number in range(ports.partitions):
            self._events.open((EVENTS, number), self._next[number])
        self._open = [True] * ports.partitions
        low, _ = self._bounds(self._decisions, DECISIONS, 0)
        self._decisions.open((DECISIONS, 0), low)
        self._learn_to_end()

    def _read_again(self) -> None:
        """Give up what is at hand, and read it again."""
        for number, is_open in enumerate(self._open):
            if is_open:
                self._events.close_partition((EVENTS, number))
            self._next[number] = self.state.positions[number]
            self._events.open((EVENTS, number), self._next[number])
        self._open = [True] * len(self._open)
        self._order = InOrder(self.state.clocks)

    def _learn_to_end(self) -> None:
        """Everything that was decided up to now: what of it is still to be copied, and what was erased."""
        _, end = self._bounds(self._decisions, DECISIONS, 0)
        while self._decisions.position((DECISIONS, 0)) < end:
            self._learn()
            self._beat()
        self._pending.all_learnt()

    def _bounds(self, reader: LogReader, topic: str, number: int) -> tuple[int, int]:
        return self._patiently("the ends", lambda: reader.bounds((topic, number), _TIMEOUT_S))

    # -------------------------------------------------------------------------------------------------------- turns

    def look(self) -> None:
        """See how far the old `events`, and what was decided, go by now."""
        self.ends = [self._bounds(self._events, EVENTS, number)[1] for number in range(len(self.ends))]
        self._decisions_end = self._bounds(self._decisions, DECISIONS, 0)[1]

    @property
    def at_end(self) -> bool:
        """Whether everything that had been written when it was last looked at is copied, and what was decided known."""
        return self._known_decisions >= self._decisions_end and all(
            at >= end for at, end in zip(self.state.positions, self.ends, strict=True)
        )

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at hand that is still to be copied, decisions included."""
        at_hand = any(self._order.waiting(number) for number in range(len(self._open)))
        return not (at_hand or self._to_erase or self._to_find or self._pending or self._must_rest)

    @property
    def left(self) -> int:
        """Positions of the old `events` that are still to be copied, as last seen."""
        return sum(max(0, end - at) for at, end in zip(self.state.positions, self.ends, strict=True))

    def run_once(self) -> int:
        """One batch; the number of records it passed. 0: there was nothing to do, or something had to be waited for."""
        self._beat()
        ports, settings = self._ports, self._ports.settings
        self._pending.all_learnt(self._learn())
        if self._to_erase or self._to_find:
            return self._erase()
        if self._must_rest:
            if not ports.at_rest():
                return 0
            self._must_rest, self._rests = False, True
            self._taken_in = self.state.clock
        if self._on_their_way + settings.at_once > settings.ahead:
            before, self._on_their_way = self._on_their_way, ports.in_flight()
            # On a Kafka what ends transactions is counted too; where nothing moves any more, that may be all.
            if self._on_their_way == before and ports.at_rest():
                self._on_their_way = 0
            if self._on_their_way + settings.at_once > settings.ahead:
                return 0
        self._read()
        if self._to_erase:
            # None of what names them may pass before that.
            return 0
        return self._copy()

    def _learn(self) -> set[bytes]:
        """Take in what was decided since: an erasure at once, all else when its time comes. The keys of all of it."""
        erased: dict[bytes, Erased] = {}
        seen: set[bytes] = set()
        for record in self._decisions.read(10_000, 0):
            key = record.key or b""
            seen.add(key)
            made = decision(record.value) if record.value is not None else None
            if isinstance(made, Erased):
                erased[made.actor.encode()] = made
            else:
                self._pending.learn(key, record.offset, made)
        if erased:
            cuts = self._ports.cuts(list(erased))
            for actor, gone in erased.items():
                known = self._erasures.get(actor)
                received = max(gone.received, known.received if known is not None else 0)
                self._erasures[actor] = Erasure(received, *cuts.get(actor, (-1, 0)), gone.keep_out)
                self._welcome.discard(actor)
            if self.state.copied:
                # What was copied of them before is to go, and what is at hand may name them.
                self._to_find.update(one for one in erased if self._is_to_be_copied(one))
                self._read_again()
        self._known_decisions = self._decisions.position((DECISIONS, 0))
        return seen

    def _erase(self) -> int:
        """Tell the new workspace who was erased, between what it has taken in and what is still to come."""
        if not self._ports.at_rest():
            return 0
        rules = self._ports.rules()
        self._to_erase |= self._ports.names(self._to_find)
        self._to_find.clear()
        out: list[Outgoing] = []
        for actor, text in self._to_erase.items():
            received, keep_out = self._erasures[actor].received, self._erasures[actor].keep_out
            named = renamed(text, rules)
            if named is not None:
                out.append((EDGES, encode(EraseRequest(named, received, keep_out=keep_out)), None, 0))
            out.append((TOPIC, encode(ErasureCopied(actor.decode(), received)), erasure_key(actor), 0))
            self._erasures_copied[actor] = received
        self._commit(out, {"decided_records": len(self._to_erase)})
        count = len(self._to_erase)
        self._to_erase.clear()
        self._must_rest = True
        return count

    def _is_to_be_copied(self, actor: bytes) -> bool:
        return self._erasures_copied.get(actor, -1) < self._erasures[actor].received

    def _read(self) -> None:
        """Read on. A partition that is far ahead of the others waits until they have come up to it."""
        settings, events = self._ports.settings, self._events
        for number, is_open in enumerate(self._open):
            waiting = self._order.waiting(number)
            if is_open and waiting > settings.at_hand:
                events.close_partition((EVENTS, number))
                self._open[number] = False
            elif not is_open and waiting < max(1, settings.at_hand // 4):
                events.open((EVENTS, number), self._next[number])
                self._open[number] = True
        counts = [self._order.waiting(number) for number in range(len(self._open))]
        if min(counts) >= settings.batch:
            return
        idle = not any(counts)
        for record in events.read(settings.read, settings.wait_s if idle else 0.0):
            seen = glance(record.value)
            if self._erasures and type(seen) is EventGlance:
                for actor, text in returned(seen, self._ports.keys, self._erasures):
                    if self._is_to_be_copied(actor):
                        self._to_erase[actor] = text
            self._order.add(record.partition, seen.received if seen is not None else 0, (record, seen))
            self._next[record.partition] = record.offset + 1
        for number, is_open in enumerate(self._open):
            if is_open:
                self._next[number] = max(self._next[number], events.position((EVENTS, number)))
            if not self._order.waiting(number):
                self.ends[number] = self._bounds(events, EVENTS, number)[1]

    def _ended(self) -> list[bool]:
        """Of each partition, whether everything of it that there is has been read."""
        return [at >= end for at, end in zip(self._next, self.ends, strict=True)]

    # ------------------------------------------------------------------------------------------------------ copying

    def _copy(self) -> int:
        ports, state = self._ports, self.state
        rules, ended = ports.rules(), self._ended()
        batch = _Batch(list(state.positions), list(state.clocks), state.clock, state.decided)
        latest = self._latest(rules, ended)
        while self._copy_up_to_a_decision(batch, rules, ended, latest):
            if self._copy_decision(batch, rules):
                break
        for number, all_read in enumerate(ended):
            if all_read and not self._order.waiting(number):
                batch.positions[number] = max(batch.positions[number], self._next[number])
        told_ms = self._time_to_tell(batch.clock)
        if told_ms >= latest and (batch.out or not self._rests):
            # The rest of the time is told when this has been taken in.
            told_ms, self._must_rest = latest - 1, True
        if told_ms > state.told:
            value = encode(CaughtUp(told_ms))
            batch.out += [(EVENTS, value, None, number) for number in range(ports.new_partitions)]
        if not batch.out and batch.positions == state.positions and batch.decided == state.decided:
            return 0
        self._commit(
            batch.out, batch.counts, positions=batch.positions, clocks=batch.clocks, caught_up=list(self._caught_up),
            clock=batch.clock, decided=batch.decided, told=max(told_ms, state.told),
        )  # fmt: skip
        return batch.taken

    def _copy_up_to_a_decision(self, batch: _Batch, rules: IdentityRules, ended: list[bool], latest: int) -> bool:
        """Pass on records up to where the next decision takes effect; whether the batch has come to that. Else it ends:
        it is full, has to be taken in first, or what comes next is not known yet."""
        limit = self._ports.settings.at_once
        while batch.taken < limit:
            until, before = self._pending.first.due + 1 if self._pending else None, batch.taken
            self._copy_records(batch, rules, ended, min(until, latest) if until is not None else latest)
            if batch.taken >= limit or self._must_rest:
                return False
            following = self._order.next_clock(ended)
            if until is None or latest < until:
                # What comes next has to wait, unless it is not known yet.
                self._must_rest = following >= latest if following is not None else until is not None and all(ended)
                return False
            if following is None:
                return all(ended) and until <= max(batch.clock, self._ports.clock()) + 1
            if following >= until:
                return True
            if batch.taken == before:
                return False
        return False

    def _copy_records(self, batch: _Batch, rules: IdentityRules, ended: list[bool], until: int) -> None:
        """Pass on what stands before the clock `until`, as far as there is room. `_must_rest`: what came last, or comes
        next, is to stand alone."""
        for placed in self._order.take(self._ports.settings.at_once - batch.taken, ended, until):
            record, seen = placed.what
            back = self._welcome_again(record, seen)
            if back and (batch.taken or not self._rests):
                self._order.give_back(placed)
                self._must_rest = True
                return
            self._welcome.update(back)
            self._must_rest = len(back) > 1
            batch.taken += 1
            batch.clock = max(batch.clock, placed.clock)
            batch.positions[placed.partition] = record.offset + 1
            batch.clocks[placed.partition] = placed.clock
            self._pass(record, seen, rules, batch)
            if self._must_rest:
                return

    def _copy_decision(self, batch: _Batch, rules: IdentityRules) -> bool:
        """Pass on the decision that is due; whether it has to wait for what stands before it."""
        due, _, made, _ = self._pending.first
        if isinstance(made, Release) and (batch.out or not self._ports.at_rest()):
            # What it releases from depends on all that came before.
            return True
        batch.decided = max(batch.decided, due)
        told = translated(made, rules)
        if told is not None:
            batch.out += [(EDGES, encode(one), None, 0) for one in standing_for_all(told)]
            batch.counts["decided_records"] += 1
        kept = self._pending.copy_first()
        if kept is not None:
            batch.out.append((TOPIC, kept[1], unlink_key(kept[0]), 0))
        return False

    def _latest(self, rules: IdentityRules, ended: list[bool]) -> int:
        """The first instant of which nothing may be copied yet, for what is on its way is too far behind it. Where
        nothing is, time goes on to whatever comes next."""
        apart = self._ports.settings.apart_ms
        if apart is None:
            apart = min(_DAY_MS, (rules.expire_after_ms or 4 * _DAY_MS) // 4)
        first = self._taken_in
        if self._rests:
            following = self._order.next_clock(ended)
            coming = [one for one in (following, self._pending.first.due if self._pending else None) if one is not None]
            first = max(first, min(coming, default=first))
        return first + apart + 1

    def _pass(self, record: Record, seen: Glance | None, rules: IdentityRules, batch: _Batch) -> None:
        out, counts = batch.out, batch.counts
        if type(seen) is EventGlance:
            result = passage(record, seen, rules, self._ports.keys, self._erasures)
            if isinstance(result, Passed):
                value = self._ports.seal(result.key or b"", seen.event, result.value)
                out.append((EVENTS, value, result.key, CHOOSE_BY_KEY))
                counts["copied"] += 1
                counts["rerouted"] += result.rerouted
                return
            counts[result.why] += 1
            if result.why == "refused":
                letter = DeadLetter(
                    "only_junk_identifiers", result.detail, record.topic, record.partition, record.offset,
                    seen.received, record.value, record.key, "replay",
                )  # fmt: skip
                out.append((DEAD_LETTERS, encode(letter), record.key, record.partition % self._ports.new_partitions))
        elif type(seen) is CaughtUpGlance:
            self._caught_up[record.partition] = max(seen.received, self._caught_up[record.partition])
        elif seen is None and record.value is not None:
            out.append((EVENTS, record.value, record.key, CHOOSE_BY_KEY if record.key is not None else 0))
            counts["copied"] += 1

    def _welcome_again(self, record: Record, seen: Glance | None) -> list[bytes]:
        """Who is welcome again by a record, if anybody. In the old workspace time lay on both sides of a consent anew;
        here neither what came before it may be judged after it (somebody else's event that names them would be linked),
        nor what comes next under their other identifiers overtake the word that those are told."""
        if not self._erasures or type(seen) is not EventGlance:
            return []
        return readmitted(record, seen, self._ports.keys, self._erasures, self._welcome)

    def _time_to_tell(self, clock: int) -> int:
        """Until when everything that was accepted has been copied."""
        if clock < self._ports.clock() - _SURELY_PAST_MS:
            return clock
        return min(self._caught_up)

    # ---------------------------------------------------------------------------------------------------- committing

    def _commit(self, out: Sequence[Outgoing], counts: Mapping[str, int], **changed: object) -> None:
        """One transaction: what was copied, and how far that is."""
        added = {name: getattr(self.state, name) + count for name, count in counts.items()}
        state = _replaced(self.state, {**added, **changed, "decisions": self._decisions_known()})
        producer = self._ports.producer
        self._patiently("begin", producer.begin)
        producer.send(out)
        producer.send([(TOPIC, encode(state), POSITION_KEY, 0)])
        self._patiently("flush", lambda: producer.flush(_TIMEOUT_S))
        self._patiently("commit", lambda: producer.commit(_TIMEOUT_S))
        self.state = state
        self._on_their_way += len(out)
        self._rests = self._rests and not out

    def choose(self, starts: Mapping[str, list[int]]) -> None:
        """Write where subscribers of the old workspace go on. Whoever was fenced cannot."""
        self._commit([], {}, starts=dict(starts))

    def hand_over(self, told: Sequence[Takeover]) -> int:
        """Tell the holders what the old workspace said where they differ: once, in one transaction."""
        self._commit([(LINKS, encode(one), self._ports.keys.actor(one.identifier), CHOOSE_BY_KEY) for one in told], {},
                     handed_over=True)  # fmt: skip
        return len(told)

    def end(self) -> None:
        """Write that the workspace is a copy no more."""
        self._commit([], {}, ended=True)

    def _decisions_known(self) -> int:
        return max(self.state.decisions, self._known_decisions)

    def _patiently(self, what: str, call: Callable[[], _Answer]) -> _Answer:
        """Repeat a call that was not answered: what it asked for may have happened."""
        for _ in range(_ANSWERS):
            try:
                return call()
            except Retriable as unanswered:
                self._beat()
                last = unanswered
        raise Retriable(f"{what} was not answered: {last}") from last

    def close(self) -> None:
        """Let go of the connections."""
        for reader in self._readers:
            reader.close()
        self._ports.producer.close()


def _replaced(state: ReplayPosition, changed: Mapping[str, object]) -> ReplayPosition:
    values = {name: getattr(state, name) for name in state.__struct_fields__}
    return ReplayPosition(**{**values, **changed})
