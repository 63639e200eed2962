"""The unify stage: from a record to the actor it is for.

record              from     does
Event               events   route: deduplicate, tell evidence, fold here or forward
Forward             links    holder: fold
Assign              links    route: point to another holder, recall the fragment from the former
Recall, Absorb      links    holder: give a fragment away, take one in or pass it on
Forget              links    route: evidence that was unlinked
Erase               links    both parts
Readmit             links    route: somebody who was erased has consented anew
Bury                links    holder: what it knows of somebody who was erased elsewhere
Tick                links    time alone
Marker, Ready       events   another generation of the definitions; Sweep (links) takes every profile along
(a slice)           events   history again, for leaves that are new
Contribute          links    holder: join what history has for a fragment
HistorySent         links    a partition has sent its history
Expired             links    route: what is left out of history, and where nothing leads any more
LivesAgain          links    route: where it leads again
Unfollowed          links    route: evidence that is not followed; Noted tells the holder
Takeover            links    holder: go on with what another workspace told subscribers
Belongs, Named      links    account: what one of its people did or is; what a group event says of it
Regard              links    holder: what an account says of itself
PeopleSwept         links    accounts: when every partition has said so, they follow the people's generation
CaughtUp            events   the sources were read to their end: absences may be believed up to the wall clock
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipeline.identifiers import Keys
from pipeline.plans import Plans
from pipeline.records import (
    Absorb,
    Assign,
    Bury,
    CaughtUp,
    Contribute,
    Erase,
    Event,
    Expired,
    Forget,
    Forward,
    HistorySent,
    LivesAgain,
    Marker,
    Noted,
    Readmit,
    Ready,
    Recall,
    Sweep,
    Takeover,
    Tick,
    Unfollowed,
    decode_events_record,
    decode_links_record,
    decode_received,
    encode,
)
from pipeline.runtime.ports import Outputs, PlacedOutputs, Record, State
from pipeline.unify import (
    account,
    account_publish,
    belonging,
    evidence,
    forms,
    generations,
    history,
    publish,
    route,
    settling,
    takeover,
    transfer,
    unfollowed,
)
from pipeline.unify import actor as kept
from pipeline.unify.account_state import Account
from pipeline.unify.profile import Profile
from pipeline.unify.task import SEALED_FIRST, OpenSealed, Task

DAY_MS = 86_400_000
# What is due is settled by one tick after another, of which a batch holds one for each of a worker's partitions. Live
# events that come while they are stepped go with them (`can_wait`), others wait for them. So a tick settles as many as
# let the next one be written so long after it, and that is about the longest an event waits. It is never fewer than the
# first: where a transaction alone takes longer, as with a distant broker, fewer would not make it shorter.
TICK_MS = 25
PROFILES_PER_TICK = 100
MOST_PER_TICK = 1_000
# Of so many actors the records are fetched together: they still are in the processor's cache when they are stepped.
FETCHED = 32
# How these begin, and what is told of a tick by the one that it goes on for: that is known without decoding them.
_EVENT = b'{"kind":"event",'
_EVENT_AS_WRITTEN = b'{"kind":"event","message_id":'
_RECEIVED = b',"received":'
_TICK = b'{"kind":"tick",'
_GOES_ON = b',"most":'
_SWEEP = b'{"kind":"sweep",'


class _Waiting:
    """Events that wait for the others of their actors: by its key, where they stand among `records`.

    There are tens of thousands, and each piece that is made for one costs a way to memory: so nothing is kept that the
    event says itself. `opened`: what was sealed. `clocks`: what an event meets that was received before one that stands
    before it; all others meet the instant at which they were received. `clock` and `position`: those of the last.
    """

    __slots__ = ("clock", "clocks", "opened", "places", "position", "records")

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.places: dict[bytes, list[int]] = {}
        self.opened: dict[int, bytes] = {}
        self.clocks: dict[int, int] = {}
        self.clock = -1
        self.position = 0

    def add(self, place: int, key: bytes, received: int) -> None:
        """One more."""
        if received >= self.clock:
            self.clock = received
        else:
            self.clocks[place] = self.clock
        there = self.places.get(key)
        if there is None:
            self.places[key] = [place]
        else:
            there.append(place)

    def fetch(self, keys: list[bytes]) -> list[Record]:
        """The records of these actors, one after the other. They lie all over the memory: where one after the other is
        only looked at, the processor need not wait for each before it fetches the next."""
        records, places = self.records, self.places
        found = [records[place] for key in keys for place in places[key]]
        size = 0  # nobody asks for it: what counts is that each value is looked at
        for record in found:
            value = record.value
            if value is not None:
                size += len(value)
        return found


def received_of(value: bytes) -> int:
    """When an event was received, without decoding all of it. As `encode` writes it, nothing of what stands before can
    hold these bytes: a quotation mark in a text has a backslash."""
    if value.startswith(_EVENT_AS_WRITTEN):
        at = value.find(_RECEIVED)
        if at > 0:
            start = at + len(_RECEIVED)
            end = value.find(b",", start)
            return int(value[start : end if end > 0 else len(value) - 1])
    return decode_received(value).received


def most_of_next(most: int, took_ms: int) -> int:
    """How many profiles the next tick may settle, if this one may settle `most` and was written `took_ms` after the one
    before. That stands in the log, so it is the same whenever the log is read."""
    fitting = most * TICK_MS // took_ms if took_ms > 0 else most
    # Half of the way: a turn that was long by chance is not one of too many profiles.
    halfway = (most + min(2 * most, max(most // 2, fitting))) // 2
    return max(min(most, PROFILES_PER_TICK), min(MOST_PER_TICK, halfway))


class UnifyStage:
    """`events` and `links` of one partition in; profiles, segment changes and deliveries out.

    `plans` gives the plan of a generation and waits until its definitions are there. `expire_after_days`: profiles that
    are known by pseudonyms only end so long after they last received anything. `partitions`: how many tasks there are.
    `open_sealed` opens sealed events; without, the history is not sealed. `watermark` tells up to when all tasks have
    consumed what was received (`runtime/watermark.py`); without, there is no other.
    """

    def __init__(
        self,
        partition: int,
        keys: Keys,
        plans: Plans,
        expire_after_days: int = 90,
        partitions: int = 1,
        open_sealed: OpenSealed | None = None,
        watermark: Callable[[int], int] | None = None,
    ) -> None:
        self._task = Task(partition, keys, plans, expire_after_days * DAY_MS, partitions)
        self._task.open_sealed = open_sealed
        self._watermark = watermark

    def step(self, record: Record, state: State, out: Outputs) -> None:
        """Consume one record."""
        task = self._task
        task.enter(state, out)
        if record.value is None:
            raise ValueError(f"{record.topic}/{record.partition}/{record.offset} has no value")
        if record.topic != "events":
            self._link(decode_links_record(record.value), record.timestamp_ms)
            if task.touched:
                belonging.tell_all(task)
            return
        value = self._opened(record.value)
        if value is None:
            # Its key was destroyed with the person: this is a replay, or the erasure is on its way here.
            task.position = record.offset + 1
            task.count("unreadable")
            history.note_dropped(task, record.offset)
        else:
            self._step_event(record, b"", value, task.meta.received)

    def step_many(self, records: list[Record], places: Sequence[int], state: State, out: PlacedOutputs) -> None:
        """Consume those of a batch's `records` that stand at these places, the events of an actor together.

        What an event does rests on its actor and on the clock it meets, and on nothing that the event of another does.
        So between two records of another kind the events of each actor follow one another: it is decoded and encoded
        once, its document is written once, and all of it is in the processor's cache meanwhile.
        """
        task = self._task
        waiting = _Waiting(records)
        for place in places:
            record = records[place]
            key, value = record.key, record.value
            if value is not None and key is not None and record.topic == "events":
                try:
                    opened = self._opened(value)
                    received = received_of(opened) if opened and opened.startswith(_EVENT) else -1
                except Exception:
                    out.at(place)
                    raise
                if opened and received >= 0:
                    if waiting.clock < 0:
                        task.enter(state, out)
                        waiting.clock = task.meta.received
                    if opened is not value:
                        waiting.opened[place] = opened
                    waiting.add(place, key, received)
                    waiting.position = record.offset + 1
                    continue
            if waiting.places:
                self._step_waiting(waiting, state, out)
                waiting = _Waiting(records)
            out.at(place)
            self.step(record, state, out)
        if waiting.places:
            self._step_waiting(waiting, state, out)

    def _step_waiting(self, waiting: _Waiting, state: State, out: PlacedOutputs) -> None:
        task, opened, clocks = self._task, waiting.opened, waiting.clocks
        clock, at = task.clock, 0
        # In the order of their keys, as in the batch before: what was made for one after the other lies side by side.
        in_order = sorted(waiting.places)
        fetched: list[Record] = []
        for number, key in enumerate(state.ahead(kept.ACTORS, in_order)):
            if not number % FETCHED:
                fetched, at = waiting.fetch(in_order[number : number + FETCHED]), 0
            task.enter(state, out)
            actor_key = kept.ACTORS + key
            for place in waiting.places[key]:
                out.at(place)
                record = fetched[at]
                at += 1
                value = opened.get(place, record.value) if opened else record.value
                assert value is not None
                self._step_event(record, actor_key, value, clocks.get(place, 0) if clocks else 0)
        task.clock, task.position = max(clock, waiting.clock), waiting.position

    def _opened(self, value: bytes) -> bytes | None:
        """A record of `events`, open; None if nobody can open it any more."""
        open_sealed = self._task.open_sealed
        return open_sealed(value) if value[:1] == SEALED_FIRST and open_sealed is not None else value

    def _step_event(self, record: Record, key: bytes, value: bytes, clock: int) -> None:
        """`key`: where its actor is kept (empty: that is to be found out). `clock`: that of the events before it. What
        other tasks say brings the time at which they are: whose events are read later here would be judged as of then.
        """
        task = self._task
        task.position = record.offset + 1
        message = decode_events_record(value)
        if type(message) is Event:
            received = message.received
            if received > task.meta.received:
                task.change_meta().received = received
            latest, task.clock = task.clock, max(clock, received)
            route.on_event(task, record, key, message)
            task.see(latest)
        else:
            self._mark(message, record.offset)
        if task.touched:
            belonging.tell_all(task)

    def can_wait(self, record: Record) -> bool:
        """A tick that goes on where another has left off settles hundreds of profiles, and a sweep as many: what
        comes meanwhile need not wait for the next batch."""
        value = record.value
        if value is None:
            return False
        return value.startswith(_SWEEP) or (value.startswith(_TICK) and _GOES_ON in value)

    def _mark(self, message: Any, offset: int) -> None:
        task = self._task
        if type(message) is Marker:
            # Written at any time, by a clock that proves nothing: ingest may be away, or behind.
            generations.on_marker(task, message, offset)
            return
        meta = task.change_meta()
        meta.received = max(meta.received, message.received)
        if type(message) is CaughtUp:
            task.see(message.received)
        elif type(message) is Ready:
            generations.on_ready(task, message)

    def _link(self, message: Any, written_ms: int) -> None:
        task = self._task
        task.see(message.clock)
        kind = type(message)
        if kind is Forward:
            transfer.on_forward(task, message)
        elif kind is Assign:
            route.on_assign(task, message)
        elif kind is Recall:
            transfer.on_recall(task, message)
        elif kind is Absorb:
            transfer.on_absorb(task, message)
        elif kind is Tick:
            self._tick(message, written_ms)
        elif kind is Forget:
            evidence.forget(task, message, task.actor_key(message.route))
        elif kind is Erase:
            route.on_erase(task, message)
        elif kind is Bury:
            transfer.on_bury(task, message)
        elif kind is Readmit:
            route.on_readmit(task, message)
        elif kind is Sweep:
            generations.on_sweep(task, message)
        elif kind is Contribute:
            history.on_contribute(task, message)
        elif kind is HistorySent:
            history.on_history_sent(task, message)
        elif kind is Expired:
            route.on_expired(task, message)
        elif kind is LivesAgain:
            route.on_lives_again(task, message)
        elif kind is Unfollowed:
            unfollowed.on_unfollowed(task, message)
        elif kind is Noted:
            unfollowed.on_noted(task, message)
        elif kind is Takeover:
            takeover.on_takeover(task, message)
        else:
            account.on_message(task, message)

    def _tick(self, message: Tick, written_ms: int) -> None:
        """Settle what is due, a bounded number of profiles at a time, so that live records come between. As of the
        tick: what this task has received since may be ahead of what others have still to forward."""
        task = self._task
        state, clock, until = task.state, task.clock, message.clock
        limit = message.most or PROFILES_PER_TICK
        # One more than are settled: whether there is one says whether another tick is needed.
        due = state.due(until, limit + 1)
        for _, key in due[:limit]:
            actor = state.get(key)
            if isinstance(actor, Account):
                task.clock = max(until, actor.settled, task.meta.accounts_switched)
                account.on_due(task, key, actor)
                continue
            assert isinstance(actor, kept.Actor)
            task.clock = task.as_of(until, actor)
            was_at_hand = key in task.profiles
            profile = task.profile(key, actor)
            settling.settle(task, profile)
            task.set_deadline(profile)
            task.put(key, actor)
            if not was_at_hand and key not in task.touched:
                # Nobody has heard of it for long, and millions may be due: none of them stays in memory.
                self._write_changed(key, profile)
                task.drop(key)
            if task.touched:
                belonging.tell_all(task)
        task.clock = clock
        first = state.first_wake()
        if len(due) > limit or (first is not None and first <= until):
            if message.before:
                limit = most_of_next(limit, written_ms - message.before)
            task.out.log("links", None, encode(Tick(until, limit, written_ms)), task.partition)
        elif task.meta.tick:
            task.change_meta().tick = 0

    def _write_changed(self, key: bytes, profile: Profile) -> None:
        if self._task.dirty.pop(key, None) is not None:
            publish.write_document(self._task, profile)

    def finish(self, state: State, out: Outputs) -> None:
        """End a micro-batch: write the documents of what changed, and keep the clock."""
        self._task.enter(state, out)
        publish.write_documents(self._task)
        account_publish.write_documents(self._task)
        self._task.put_meta()

    def history(self, state: State) -> tuple[int, int] | None:
        """The positions of `events` between which history is to be read, if there is any to read."""
        meta: kept.Meta | None = state.get(kept.META_KEY)
        return history.bounds(meta) if meta is not None else None

    def fold_history(self, records: Sequence[Record], reached: int, state: State, out: Outputs) -> None:
        """Fold a slice of history that ends at the position `reached`."""
        self._task.enter(state, out)
        history.fold_slice(self._task, records, reached)
        belonging.tell_all(self._task)

    def put_aside(self, record: Record, state: State, out: Outputs) -> None:
        """A record of `events` was refused by `step` and is not in any profile: history leaves it out too."""
        self._task.enter(state, out)
        self._task.position = record.offset + 1
        history.note_dropped(self._task, record.offset)

    def wake(self, state: State, out: Outputs, now_ms: int) -> None:
        """Write a tick if a deadline is due by what has been received; where nothing comes, ingest says until when
        everything has been. The wall clock proves nothing: what came in time may still be on its way. Neither does what
        this task has received, as long as another may still forward what came before."""
        task = self._task
        task.enter(state, out)
        if task.meta.tick:
            return
        first = state.first_wake()
        if first is None or first > task.meta.received:
            return
        clock = task.meta.received
        if self._watermark is not None:
            clock = min(clock, self._watermark(first))
        if first > clock:
            return
        task.change_meta().tick = clock
        out.log("links", None, encode(Tick(clock=clock)), task.partition)
        task.put_meta()

    def in_time(self) -> tuple[int, int]:
        """Up to when it has consumed what was received, and the first deadline up to then that is not settled."""
        received, first = self._task.meta.received, self._task.state.first_wake()
        return received, first if first is not None and first <= received else 0

    def resting(self, key: bytes, again: bool) -> None:
        """This actor goes to rest. If its profile has changed, its document is written while all of it is at hand. What
        was made of it stays if it came `again`: of many one event comes and no other for long, and to let go of what
        was made of these once it has gone cold costs more than it saves."""
        task = self._task
        profile = task.profiles.get(key)
        if profile is not None:
            self._write_changed(key, profile)
            if again:
                profile.rest()
            else:
                task.drop(key)

    def let_go(self, keys: Iterable[bytes]) -> None:
        """These actors are kept in memory no longer: their profiles go with them."""
        profiles = self._task.profiles
        for key in keys:
            profiles.pop(key, None)

    def forget(self) -> None:
        """Drop every cache."""
        self._task.forget()

    @property
    def counts(self) -> Mapping[str, int]:
        """What has been counted since the task began: duplicates, erased and expired events, and what was ignored."""
        return self._task.counts

    def encode(self, key: bytes, value: Any) -> bytes:
        """The stored form of a value."""
        return forms.encode(value, self._task.writer)

    def decode(self, key: bytes, data: bytes) -> Any:
        """The value of a stored form."""
        return forms.decode(key, data)
