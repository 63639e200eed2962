"""A destination in memory, a clock that jumps, and the loop around the scheduler: what the worker does, without it."""

import heapq
import random
from collections.abc import Callable

from connectors import Outcome
from pipeline.deliver.progress import Note, read_note
from pipeline.deliver.scheduler import Batch, GivenUp, Policy, Scheduler
from pipeline.records import Delivery, encode
from pipeline.runtime.ports import Record

Behaviour = Callable[[Delivery, int], Outcome | None]
"""(delivery, now) to what is answered; None: it is taken, but the answer never comes."""


def record(offset: int, profile: str, partition: int = 0) -> tuple[Record, Delivery]:
    delivery = Delivery(
        delivery_id=f"{partition}/{offset}",
        destination="d",
        profile_id=profile,
        action="segment_entered",
        at=offset,
        decided_at=offset,
        identifiers=[],
        segment="s",
    )
    return Record("deliveries.d", partition, offset, profile.encode(), encode(delivery)), delivery


class Destination:
    """Runs a scheduler against a behaviour on a simulated clock."""

    def __init__(self, policy: Policy, behaviour: Behaviour, latency_ms: int = 10, seed: int = 0) -> None:
        self.scheduler = Scheduler(policy)
        self.behaviour = behaviour
        self.latency_ms = latency_ms
        self.random = random.Random(seed)
        self.now = 1_000_000
        self.arrived: list[tuple[int, str, str]] = []  # (when, profile, delivery_id)
        self.requests = 0
        self.letters: list[tuple[str, str]] = []  # (delivery_id, reason)
        self._under_way: list[tuple[int, int, Batch, list[Outcome]]] = []
        self._number = 0

    def assign(self, partition: int = 0, note: Note | None = None) -> None:
        self.scheduler.assign(partition, *([note] if note else []))

    def restarted(self, policy: Policy) -> "Destination":
        """As after a kill: what was committed last is all that is known."""
        positions = self.scheduler.positions()
        fresh = Destination(policy, self.behaviour, self.latency_ms)
        fresh.now, fresh.arrived, fresh.letters = self.now, self.arrived, self.letters
        for partition, (position, note) in positions.items():
            fresh.assign(partition, read_note(position, note))
        return fresh

    def accept(self, offset: int, profile: str, partition: int = 0) -> None:
        self.scheduler.accept(*record(offset, profile, partition))

    def send(self) -> None:
        while (batch := self.scheduler.take(self.now)) is not None:
            self.requests += 1
            outcomes: list[Outcome] = []
            stopped = set()
            for delivery in batch.deliveries:
                if delivery.profile_id in stopped:  # as a connector that keeps order must
                    outcomes.append(Outcome("retry", "behind one that failed"))
                    continue
                outcome = self.behaviour(delivery, self.now)
                if outcome is None or outcome.status == "delivered":
                    self.arrived.append((self.now, delivery.profile_id, delivery.delivery_id))
                if outcome is None or outcome.status == "retry":
                    stopped.add(delivery.profile_id)
                outcomes.append(outcome or Outcome("retry", "no answer in time"))
            self._number += 1
            took = self.latency_ms + self.random.randrange(self.latency_ms)
            heapq.heappush(self._under_way, (self.now + took, self._number, batch, outcomes))

    def step(self, until_ms: int) -> bool:
        """Go on to the next thing that happens; False if nothing will before `until_ms`."""
        self.send()
        wakes = self.scheduler.wakes_at(self.now)
        times = [self._under_way[0][0]] if self._under_way else []
        if wakes is not None:
            times.append(max(wakes, self.now + 1))
        if not times or min(times) > until_ms:
            self.now = until_ms
            return False
        self.now = min(times)
        while self._under_way and self._under_way[0][0] <= self.now:
            _, _, batch, outcomes = heapq.heappop(self._under_way)
            self.put_aside(self.scheduler.finish(batch, outcomes, self.now))
        return True

    def put_aside(self, given_up: list[GivenUp]) -> None:
        for given in given_up:
            self.letters.append((given.item.delivery.delivery_id, given.reason))
            self.scheduler.settle(given, self.now)

    def run(self, for_ms: int) -> None:
        until = self.now + for_ms
        while self.step(until):
            pass
