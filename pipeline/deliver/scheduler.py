"""What goes out next: the whole of the deliver role's judgement, without a clock, a thread or a broker.

- Deliveries of one profile go out in their order, one after the other's end. Profiles do not wait for each other, but
  for one who has come back after an erasure: until the destination has deleted who they were (forgotten.py).
- A failed delivery stays at the head of its profile and is tried again after a delay that doubles, with jitter.
- After its last attempt, or when it is rejected, it is given up: it goes to the dead letters, and the profile goes on.
- While the circuit is open nothing goes out but probes. When it closes, everything that waited goes out at once.
- What is tried again by a probe, or before its time, and fails has used up no attempt: that says nothing about the
  delivery. So none is given up because nothing gets through, nor any sooner because the destination comes and goes.
- Of somebody who was erased nothing waits any more but what takes back (forgotten.py): it is overtaken. What names
  them beside others waits without them.
- An entry does not go out any more once the exit is here by which the person took back what it rests on: it is
  overtaken as well. So is a change of a profile that is taken back.
- Exactly one of these holds for each delivery that was accepted: open, delivered, given up, overtaken.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import takewhile
from typing import NamedTuple

from connectors import Outcome
from pipeline.deliver.circuit import Circuit, Limits
from pipeline.deliver.progress import NOTHING_KNOWN, Note, Progress
from pipeline.deliver.revocation import overtaken_by
from pipeline.records import Delivery, encode
from pipeline.runtime.ports import Record

ProfileKey = tuple[int, str]
"""(partition, profile_id): a profile's deliveries all stand in one partition."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a destination is served: the connector's nature and what its definition says.

    `keeps_order`: a batch may hold several deliveries of a profile. `max_open` bounds what is held in memory.
    """

    concurrency: int = 8
    max_batch: int = 1
    keeps_order: bool = False
    attempts: int = 16
    first_retry_ms: int = 1_000
    longest_retry_ms: int = 6 * 3_600_000
    max_open: int = 5_000
    limits: Limits = field(default_factory=Limits)


class Item:
    """One delivery that lies open."""

    __slots__ = ("attempts", "delivery", "due_ms", "record")

    def __init__(self, record: Record, delivery: Delivery) -> None:
        self.record = record
        self.delivery = delivery
        self.attempts = 0
        self.due_ms = 0

    def leave(self, left: Delivery) -> None:
        """Keep no more of the delivery than this."""
        if left is not self.delivery:
            self.delivery = left
            self.record = self.record._replace(value=encode(left))

    @property
    def profile(self) -> ProfileKey:
        return self.record.partition, self.delivery.profile_id


class Batch(NamedTuple):
    """What goes to the connector in one call, `at_ms`. `is_probe`: nothing got through before."""

    items: tuple[Item, ...]
    at_ms: int
    is_probe: bool
    epochs: dict[int, int]

    @property
    def deliveries(self) -> list[Delivery]:
        return [item.delivery for item in self.items]

    def counts_for(self, item: Item) -> bool:
        """Whether failing uses up an attempt of one of its deliveries."""
        return not item.attempts or (not self.is_probe and item.due_ms <= self.at_ms)


class GivenUp(NamedTuple):
    """A delivery for the dead letters: `settle` it when the dead letter is safe."""

    item: Item
    reason: str
    detail: str
    epoch: int


class Scheduler:
    """The deliveries of one destination on this worker."""

    def __init__(
        self,
        policy: Policy,
        left_of: Callable[[Delivery], Delivery | None] = lambda delivery: delivery,
        is_early: Callable[[Delivery], bool] = lambda delivery: False,
    ) -> None:
        """`left_of` tells what still may go out of a delivery; None: nothing. `is_early`: not yet."""
        self.policy = policy
        self._left_of = left_of
        self._is_early = is_early
        self.circuit = Circuit(policy.limits)
        self.delivered = 0
        self.given_up = 0
        self.repeated = 0
        self.skipped = 0
        self.overtaken = 0
        self._progress: dict[int, Progress] = {}
        self._notes: dict[int, Note] = {}
        # A partition that was given away and came back is another one: late answers are told by the epoch.
        self._epochs: dict[int, int] = {}
        self._queues: dict[ProfileKey, deque[Item]] = {}
        self._ready: deque[ProfileKey] = deque()
        self._delayed: list[tuple[int, int, ProfileKey]] = []
        self._order = 0
        # What is next of them is early.
        self._held: list[ProfileKey] = []
        self._unsettled: dict[ProfileKey, int] = {}
        # What they took back is here; what that overtakes may be under way.
        self._taking_back: set[ProfileKey] = set()
        self._out = 0

    # ---- partitions

    def assign(self, partition: int, note: Note = NOTHING_KNOWN) -> None:
        """Begin with a partition; `note` tells what of it is done already."""
        self._epochs[partition] = self._epochs.get(partition, 0) + 1
        self._progress[partition] = Progress(note)
        self._notes[partition] = note

    def revoke(self, partition: int) -> None:
        """Let go of a partition: what lies open there is another worker's now."""
        self._progress.pop(partition, None)
        self._notes.pop(partition, None)
        self._epochs[partition] = self._epochs.get(partition, 0) + 1
        for profile in [key for key in self._queues if key[0] == partition]:
            del self._queues[profile]
        self._ready = deque(profile for profile in self._ready if profile[0] != partition)
        self._delayed = [entry for entry in self._delayed if entry[2][0] != partition]
        heapq.heapify(self._delayed)
        self._held = [profile for profile in self._held if profile[0] != partition]
        self._unsettled = {profile: n for profile, n in self._unsettled.items() if profile[0] != partition}
        self._taking_back = {profile for profile in self._taking_back if profile[0] != partition}

    def positions(self) -> dict[int, tuple[int, str]]:
        """What to commit of each partition: the position, and the note beside it."""
        found = {partition: progress.position() for partition, progress in self._progress.items()}
        return {partition: position for partition, position in found.items() if position is not None}

    # ---- in

    @property
    def open(self) -> int:
        """How many deliveries lie open."""
        return sum(progress.open for progress in self._progress.values())

    @property
    def room(self) -> int:
        """How many more may be accepted."""
        return self.policy.max_open - self.open

    def accept(self, record: Record, delivery: Delivery) -> None:
        """Take on a delivery. One that was done before a restart is passed over."""
        progress = self._progress[record.partition]
        progress.begin(record.offset)
        if self._notes[record.partition].is_done(record.offset):
            progress.finish(record.offset)
            self.skipped += 1
            return
        left = self._left_of(delivery)
        if left is None:
            progress.finish(record.offset)
            self.overtaken += 1
            return
        item = Item(record, delivery)
        item.leave(left)
        queue = self._queues.get(item.profile)
        if queue is None:
            self._queues[item.profile] = deque((item,))
            self._ready.append(item.profile)
        else:
            queue.append(item)
            if overtaken_by(left) is not None:
                self._taking_back.add(item.profile)

    def overtake(self, now_ms: int) -> None:
        """Let go of everything that waits and is not to go out any more; what is with the connector ends first, and is
        looked at then. What may go out in part waits as that."""
        self._release_anew(
            now_ms,
            {
                profile
                for profile in self._waiting()
                if any(self._left_of(item.delivery) is not item.delivery for item in self._queues[profile])
            },
        )

    def release_held(self, now_ms: int) -> None:
        """What was early may not be any more."""
        held, self._held = self._held, []
        for profile in held:
            self._release(profile, now_ms)

    def refuse(self, record: Record, reason: str, detail: str) -> GivenUp | None:
        """Take on a record that is no delivery: it goes to the dead letters, unless it did so before a restart."""
        progress = self._progress[record.partition]
        progress.begin(record.offset)
        if self._notes[record.partition].is_done(record.offset):
            progress.finish(record.offset)
            self.skipped += 1
            return None
        nobody = Delivery("", "", "", "event", 0, 0, [])
        return GivenUp(Item(record, nobody), reason, detail, self._epochs[record.partition])

    # ---- out

    def take(self, now_ms: int) -> Batch | None:
        """The next batch to send now, or None. Ask again until there is none."""
        if self._out >= self.policy.concurrency or self.circuit.opens_at(now_ms) > now_ms:
            return None
        probing = self.circuit.state != "closed"
        if probing and self._out:
            return None
        if self._taking_back:
            self._release_anew(now_ms, self._taking_back)
        # What they wait for may stand where nothing is read while there is no room.
        may_hold = self.room > self.policy.max_open // 4
        if not may_hold:
            self.release_held(now_ms)
        self._wake(now_ms)
        items: list[Item] = []
        if not self._ready and probing and self._delayed:
            _, _, profile = heapq.heappop(self._delayed)
            self._ready.append(profile)
        size = 1 if probing else self.policy.max_batch
        while self._ready and len(items) < size:
            profile = self._ready.popleft()
            queue = self._queues[profile]
            count = min(size - len(items), len(queue)) if self.policy.keeps_order else 1
            ripe = [queue[n] for n in range(count)]
            if may_hold:
                ripe = list(takewhile(lambda item: not self._is_early(item.delivery), ripe))
            if not ripe:
                self._held.append(profile)
            items.extend(ripe)
        if not items:
            return None
        self._out += 1
        self.circuit.sent(now_ms)
        partitions = {item.record.partition for item in items}
        return Batch(tuple(items), now_ms, probing, {partition: self._epochs[partition] for partition in partitions})

    def finish(self, batch: Batch, outcomes: Sequence[Outcome], now_ms: int) -> list[GivenUp]:
        """Take in what became of a batch; returns what is given up. `outcomes` has one for each item."""
        assert len(outcomes) == len(batch.items)
        self._out -= 1
        self._judge(outcomes, now_ms)
        given_up: list[GivenUp] = []
        left: dict[ProfileKey, list[Item]] = {}
        stopped: set[ProfileKey] = set()
        for item, outcome in zip(batch.items, outcomes, strict=True):
            partition = item.record.partition
            epoch = batch.epochs[partition]
            if self._epochs.get(partition) != epoch:
                continue
            kept = left.setdefault(item.profile, [])
            self._queues[item.profile].popleft()
            if item.profile in stopped:
                kept.append(item)  # behind one that failed: not tried, whatever was said of it
            elif outcome.status == "delivered":
                self._progress[partition].finish(item.record.offset)
                self.delivered += 1
            elif outcome.status == "rejected":
                given_up.append(GivenUp(item, "rejected", outcome.detail, epoch))
            else:
                self.repeated += 1
                stopped.add(item.profile)
                counts = batch.counts_for(item)
                item.attempts += counts
                if item.attempts >= self.policy.attempts:
                    given_up.append(GivenUp(item, "attempts used up", outcome.detail, epoch))
                else:
                    if counts:
                        wait_ms = backoff_ms(item.delivery.delivery_id, item.attempts, self.policy)
                        item.due_ms = now_ms + max(wait_ms, outcome.retry_after_ms or 0)
                    kept.append(item)
        for given in given_up:
            profile = given.item.profile
            self._unsettled[profile] = self._unsettled.get(profile, 0) + 1
        for profile, kept in left.items():
            self._queues[profile].extendleft(reversed(kept))
            self._release(profile, now_ms)
        return given_up

    def settle(self, given: GivenUp, now_ms: int) -> None:
        """The dead letter of a delivery is safe: its profile goes on."""
        self.given_up += 1
        partition = given.item.record.partition
        if self._epochs.get(partition) != given.epoch:
            return
        self._progress[partition].finish(given.item.record.offset)
        profile = given.item.profile
        if profile in self._unsettled:
            self._unsettled[profile] -= 1
            if not self._unsettled[profile]:
                del self._unsettled[profile]
                self._release(profile, now_ms)

    def wakes_at(self, now_ms: int) -> int | None:
        """The next time at which `take` may give something with no news from outside; None: never."""
        if self._out >= self.policy.concurrency or not (self._ready or self._delayed):
            return None
        if self.circuit.state != "closed":
            return None if self._out else max(now_ms, self.circuit.opens_at(now_ms))
        due = now_ms if self._ready else self._delayed[0][0]
        return max(now_ms, due, self.circuit.opens_at(now_ms))

    @property
    def in_flight(self) -> int:
        """How many batches are with the connector."""
        return self._out

    # ---- inside

    def _judge(self, outcomes: Sequence[Outcome], now_ms: int) -> None:
        if any(outcome.status != "retry" for outcome in outcomes):
            if self.circuit.got_through():
                self._ready.extend(profile for _, _, profile in sorted(self._delayed))
                self._delayed.clear()
        else:
            self.circuit.failed(now_ms)
        waits = [outcome.retry_after_ms for outcome in outcomes if outcome.retry_after_ms is not None]
        if waits:
            self.circuit.hold(now_ms + max(waits))

    def _release(self, profile: ProfileKey, now_ms: int) -> None:
        if profile in self._unsettled:
            return
        queue = self._queues[profile]
        gone = self._taken_back(profile, queue) if profile in self._taking_back else ()
        for item in list(queue):
            left = None if item in gone else self._left_of(item.delivery)
            if left is not None:
                item.leave(left)
                continue
            queue.remove(item)
            self._progress[profile[0]].finish(item.record.offset)
            self.overtaken += 1
        if not queue:
            del self._queues[profile]
        elif queue[0].due_ms > now_ms:
            self._order += 1
            heapq.heappush(self._delayed, (queue[0].due_ms, self._order, profile))
        else:
            self._ready.append(profile)

    def _waiting(self) -> list[ProfileKey]:
        """The profiles nothing of which is with the connector, nor on its way to the dead letters."""
        return [*self._ready, *(profile for _, _, profile in self._delayed), *self._held]

    def _release_anew(self, now_ms: int, profiles: Set[ProfileKey]) -> None:
        """Look anew at those of these profiles that wait; what of the others is under way is looked at when that has
        ended."""
        again = [profile for profile in self._waiting() if profile in profiles]
        if not again:
            return
        self._ready = deque(profile for profile in self._ready if profile not in profiles)
        self._delayed = [entry for entry in self._delayed if entry[2] not in profiles]
        heapq.heapify(self._delayed)
        self._held = [profile for profile in self._held if profile not in profiles]
        for profile in again:
            self._release(profile, now_ms)

    def _taken_back(self, profile: ProfileKey, queue: deque[Item]) -> set[Item]:
        """What of a profile's deliveries rests on what the person takes back behind it."""
        self._taking_back.remove(profile)
        found: set[Item] = set()
        taken_back: set[tuple[str, str | None]] = set()
        for item in reversed(queue):
            delivery = item.delivery
            if (delivery.action, delivery.segment) in taken_back:
                found.add(item)
            elif (overtaken := overtaken_by(delivery)) is not None:
                taken_back.add(overtaken)
        return found

    def _wake(self, now_ms: int) -> None:
        while self._delayed and self._delayed[0][0] <= now_ms:
            self._ready.append(heapq.heappop(self._delayed)[2])


def backoff_ms(delivery_id: str, attempt: int, policy: Policy) -> int:
    """How long to wait after the attempt of this number, from 1: doubled each time, then 50 to 100 % of it.

    The jitter comes from the delivery itself: it spreads deliveries, and yet every run is the same.
    """
    full = min(policy.first_retry_ms << min(attempt - 1, 40), policy.longest_retry_ms)
    share = int.from_bytes(blake2b(f"{delivery_id}/{attempt}".encode(), digest_size=2).digest(), "big") / 0xFFFF
    return max(1, int(full * (0.5 + 0.5 * share)))
