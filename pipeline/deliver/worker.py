"""One destination, served: the loop between the log, the scheduler and the connector. Here time is the clock's.

The loop never waits for the destination: connectors run in threads, and their outcomes come back through a queue.
"""

import logging
import queue
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from connectors import Connector, Outcome, retry
from connectors.base import checked
from pipeline.deliver.erased import ERASED, answer, without_content
from pipeline.deliver.forgotten import TAKES_BACK, ForgottenProfiles
from pipeline.deliver.health import Health, TellHealth, briefly, noted
from pipeline.deliver.metrics import DestinationMetrics
from pipeline.deliver.outcomes import Outcomes
from pipeline.deliver.ports import DeliveryLog
from pipeline.deliver.progress import read_note
from pipeline.deliver.scheduler import Batch, GivenUp, Policy, Scheduler
from pipeline.records import UNREADABLE, DeadLetter, Delivery, encode
from pipeline.runtime.ports import Record
from pipeline.shown_times import shown_second

Clock = Callable[[], int]

_READ_AT_ONCE = 1_000
_COMMIT_EVERY_MS = 500
_LONGEST_WAIT_S = 0.1
_WITH_REQUESTS_OUT_S = 0.005
_DRAIN_S = 5.0
_DETAIL_LIMIT = 1_000
_LEFT_ALONE_MS = 60_000  # who asks for more than a probe waits for is told of
_NEVER_PASSES = frozenset({"consent", "erase"})

_log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(Delivery).decode


def wall_clock_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def passed_in_a_pause(delivery: Delivery, pauses: Sequence[tuple[int, int | None]], max_age_ms: int) -> bool:
    """Whether a moment passed while its destination was paused: decided in a pause that ended too late for it.

    A destination that was only out of reach gets what it missed; somebody who pauses a trigger for a week does not
    want last week's mails to be sent on resuming. What a person took back, or asked to have deleted, never passes.
    """
    if delivery.action in TAKES_BACK and delivery.cause in _NEVER_PASSES:
        return False
    return any(
        start <= delivery.decided_at < end and end - delivery.at > max_age_ms
        for start, end in pauses
        if end is not None
    )


class DestinationWorker:
    """Serves one destination until it is told to stop. Its own thread calls `run`; another may set `paused`,
    and `has_passed`, which tells deliveries that came to nothing while they waited. `unsaid` takes secrets out of what
    the destination says."""

    def __init__(
        self,
        destination: str,
        connector: Connector,
        log: DeliveryLog,
        policy: Policy,
        metrics: DestinationMetrics,
        clock: Clock = wall_clock_ms,
        outcomes: Outcomes | None = None,
        tell_health: TellHealth = lambda health: None,
        forgotten: ForgottenProfiles | None = None,
        unsaid: Callable[[str], str] = str,
    ) -> None:
        self.destination = destination
        self._unsaid = unsaid
        self._forgotten = forgotten
        self._forgot = self._heard = 0
        if forgotten is None:
            self.scheduler = Scheduler(policy)
        else:
            self.scheduler = Scheduler(policy, forgotten.left_of, partial(forgotten.is_early, destination))
        self.paused = False
        self.has_passed: Callable[[Delivery], bool] = lambda delivery: False
        self._connector = connector
        self._log = log
        self._metrics = metrics
        self._outcomes = outcomes
        self._clock = clock
        self._tell_health = tell_health
        self._pool = ThreadPoolExecutor(policy.concurrency, thread_name_prefix=f"deliver-{destination}")
        self._finished: queue.SimpleQueue[tuple[Batch, Sequence[Outcome]]] = queue.SimpleQueue()
        self._committed: dict[int, tuple[int, str]] = {}
        self._committed_at = 0
        self._holding = False
        self._circuit = "closed"
        self._is_left_alone = False
        self._failure = ""
        self._health = Health(destination, True, 0)

    def run(self, until: Callable[[], bool]) -> None:
        """Serve the destination until `until()`; then wait for what is under way, keep the progress, and leave.

        Raises BrokerError when the log cannot be read or written any more.
        """
        self._log.subscribe(self)
        # What an earlier process said is not true any more.
        self._say_health()
        try:
            while not until():
                self.turn()
        finally:
            # The group is left in order in any case: it is what hands the partitions to others at once.
            self._log.close()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._connector.close()

    def turn(self) -> None:
        """Once around: read, send, take in what came back, keep the progress."""
        self._forget()
        self._hold_back()
        for record in self._log.read(min(_READ_AT_ONCE, max(1, self.scheduler.room)), self._patience_s()):
            self._accept(record)
        self._send()
        self._take_in()
        self._keep_progress()

    # ---- the log's listener

    def assigned(self, positions: Mapping[int, tuple[int, str]]) -> None:
        """Partitions have come."""
        for partition, (position, note) in positions.items():
            self.scheduler.assign(partition, read_note(position, note))

    def revoked(self, partitions: Sequence[int]) -> None:
        """Partitions go: end what is under way, as far as that is quick, so that little is repeated elsewhere."""
        give_up = time.monotonic() + _DRAIN_S
        while self.scheduler.in_flight and time.monotonic() < give_up:
            self._take_in(wait_s=0.05)
        self._log.commit({p: at for p, at in self._positions().items() if p in partitions}, wait=True)
        self.lost(partitions)

    def lost(self, partitions: Sequence[int]) -> None:
        """Partitions have gone: whoever has them now begins at the committed positions."""
        for partition in partitions:
            self.scheduler.revoke(partition)
            self._committed.pop(partition, None)

    # ---- the parts of a turn

    def _forget(self) -> None:
        """Let go of what waits of people who were erased since the last turn; what waited until they were goes on."""
        if self._forgotten is not None and self._forgotten.news != self._heard:
            self._heard = self._forgotten.news
            self.scheduler.release_held(self._clock())
        if self._forgotten is not None and len(self._forgotten) != self._forgot:
            self._forgot = len(self._forgotten)
            self.scheduler.overtake(self._clock())
            # The destination may have repeated whom it was about.
            self._failure = briefly(self._failure)
            if self._circuit != "closed":
                self._say_health()

    def _hold_back(self) -> None:
        """Read no more than there is room for, and nothing while paused: the rest waits in the topic."""
        room = self.scheduler.room
        if not self._holding and (room <= 0 or self.paused):
            self._holding = True
            self._log.pause()
        elif self._holding and room > self.scheduler.policy.max_open // 4 and not self.paused:
            self._holding = False
            self._log.resume()

    def _patience_s(self) -> float:
        """How long reading may wait for a record."""
        if not self._finished.empty():
            return 0.0
        if self.scheduler.in_flight:
            # With every thread busy the next news comes from them: wait there, not here.
            return 0.0 if self._backlog() else _WITH_REQUESTS_OUT_S
        now_ms = self._clock()
        wakes = None if self.paused else self.scheduler.wakes_at(now_ms)
        return _LONGEST_WAIT_S if wakes is None else min(_LONGEST_WAIT_S, max(0, wakes - now_ms) / 1000)

    def _backlog(self) -> bool:
        return self.scheduler.in_flight >= self.scheduler.policy.concurrency

    def _accept(self, record: Record) -> None:
        try:
            delivery = _decode(record.value or b"")
        except UNREADABLE as error:
            self._refuse(record, "not a delivery", str(error))
            return
        if self.has_passed(delivery):
            kept = self._kept_of(delivery)
            record = record if kept is None else record._replace(value=kept)
            self._refuse(record, "too old", "its moment passed while the destination was paused")
        else:
            self.scheduler.accept(record, delivery)

    def _refuse(self, record: Record, reason: str, detail: str) -> None:
        given = self.scheduler.refuse(record, reason, detail)
        if given is not None:
            self._put_aside([given])

    def _send(self) -> None:
        while not self.paused:
            batch = self.scheduler.take(self._clock())
            if batch is None:
                return
            self._pool.submit(self._call, batch)

    def _call(self, batch: Batch) -> None:
        """In a thread of the pool: one call of the connector."""
        try:
            outcomes = checked(self._connector.deliver(batch.deliveries), len(batch.items))
        except Exception as error:  # noqa: BLE001 - a connector is others' code; its faults count, and end as dead letters
            _log.warning("%s: the connector raised", self.destination, exc_info=True)
            outcomes = [retry(f"the connector raised {type(error).__name__}")] * len(batch.items)
        outcomes = [one._replace(detail=self._unsaid(one.detail)) if one.detail else one for one in outcomes]
        self._finished.put((batch, outcomes))

    def _take_in(self, wait_s: float | None = None) -> None:
        if wait_s is None:
            wait_s = _WITH_REQUESTS_OUT_S if self._backlog() else 0.0
        given_up: list[GivenUp] = []
        told: list[tuple[bytes, bytes]] = []
        while True:
            try:
                batch, outcomes = self._finished.get(wait_s > 0, wait_s) if wait_s else self._finished.get_nowait()
            except queue.Empty:
                break
            wait_s = 0.0
            now_ms = self._clock()
            self._tell_erased(batch, outcomes, now_ms)
            told += self._succeeded(batch, outcomes, now_ms)
            given_up += self.scheduler.finish(batch, outcomes, now_ms)
            self._measure(batch, outcomes, now_ms)
        if told:
            self._log.tell_outcomes(told)
        if given_up:
            self._put_aside(given_up)
        self._tell_circuit()
        self._tell_left_alone()

    def _put_aside(self, given_up: Sequence[GivenUp]) -> None:
        now_ms = self._clock()
        # Not in the destination's words: they might repeat whom it was about, and receipts are kept.
        refused = [(given.item.delivery, given.reason) for given in given_up if given.item.delivery.action == ERASED]
        if refused:
            self._log.tell_progress([answer(delivery, now_ms, reason) for delivery, reason in refused])
        if self._outcomes is not None:
            said = [self._said_of(given.item.delivery, now_ms, given.reason) for given in given_up]
            self._log.tell_outcomes([one for one in said if one is not None])
        self._log.put_aside(self._letters_of(given_up, now_ms))
        for given in given_up:
            self.scheduler.settle(given, now_ms)
            self._metrics.dead_letters(given.reason)

    def _letters_of(self, given_up: Sequence[GivenUp], now_ms: int) -> list[tuple[int, bytes | None, bytes]]:
        return [
            _dead_letter(
                given,
                self._words(given.item.delivery, given.detail),
                self._kept_of(given.item.delivery) or given.item.record.value,
                now_ms,
            )
            for given in given_up
        ]

    def _words(self, delivery: Delivery, detail: str) -> str:
        """What a destination said, without its own words where they may repeat who was erased."""
        return briefly(detail) if self._is_about_erased(delivery) else detail

    def _is_about_erased(self, delivery: Delivery) -> bool:
        gone = self._forgotten is not None and delivery.profile_id in self._forgotten
        return gone or delivery.action == ERASED

    def _kept_of(self, delivery: Delivery) -> bytes | None:
        """What a dead letter keeps of a delivery, if that is not all of it: nothing that says who was erased, also if
        that was while it was with the connector: the receipt of the erasure says by when dead letters do not name
        them."""
        if self._is_about_erased(delivery):
            return without_content(delivery)
        left = self._forgotten.left_of(delivery) if self._forgotten is not None else delivery
        if left is None:
            return without_content(delivery)
        return None if left is delivery else encode(left)

    def _keep_progress(self) -> None:
        now_ms = self._clock()
        if now_ms - self._committed_at < _COMMIT_EVERY_MS:
            return
        self._committed_at = now_ms
        self._metrics.open.set(self.scheduler.open)
        self._metrics.overtaken(self.scheduler.overtaken)
        changed = {p: at for p, at in self._positions().items() if self._committed.get(p) != at}
        if changed:
            self._log.commit(changed)
            self._committed.update(changed)

    def _positions(self) -> dict[int, tuple[int, str]]:
        """What to commit. While the destination fails it says so, and is kept anew when that changes."""
        return {p: (at, noted(note, self._health)) for p, (at, note) in self.scheduler.positions().items()}

    def _tell_erased(self, batch: Batch, outcomes: Sequence[Outcome], now_ms: int) -> None:
        """Those who wait for a receipt hear that a person was deleted here. Before the progress is kept: a crash in
        between repeats both."""
        told = [
            answer(item.delivery, now_ms)
            for item, outcome in zip(batch.items, outcomes, strict=True)
            if outcome.status == "delivered" and item.delivery.action == ERASED and item.delivery.body.get("last")
        ]
        if told:
            self._log.tell_progress(told)

    def _succeeded(self, batch: Batch, outcomes: Sequence[Outcome], now_ms: int) -> Iterator[tuple[bytes, bytes]]:
        """What is told of deliveries that succeeded. Before the progress is kept: a crash in between repeats both."""
        for item, outcome in zip(batch.items, outcomes, strict=True):
            said = self._said_of(item.delivery, now_ms) if outcome.status == "delivered" else None
            if said is not None:
                yield said

    def _said_of(self, delivery: Delivery, now_ms: int, failed: str = "") -> tuple[bytes, bytes] | None:
        """What is told of a delivery; of whoever was erased nothing, for it would name them anew in the sources."""
        if self._outcomes is None or self._is_about_erased(delivery):
            return None
        return self._outcomes.of(delivery, now_ms, failed)

    def _measure(self, batch: Batch, outcomes: Sequence[Outcome], now_ms: int) -> None:
        for item, outcome in zip(batch.items, outcomes, strict=True):
            self._metrics.outcome(outcome.status)
            if outcome.status == "delivered":
                self._metrics.latency_seconds.observe(max(0, now_ms - item.delivery.decided_at) / 1000)
            elif outcome.status == "retry":
                self._failure = self._words(item.delivery, outcome.detail)

    def _tell_circuit(self) -> None:
        state = self.scheduler.circuit.state
        if state == "half_open":
            return
        changed, before = state != self._circuit, self._health.failure
        if state == "open" and (changed or briefly(self._failure) != briefly(before)):
            told = "%s does not answer as it should; probing it: %s (the rest: `headwater dead-letters`, or the API)"
            _log.warning(told, self.destination, briefly(self._failure))
        elif state == "closed" and changed:
            _log.info("%s works again", self.destination)
        if changed or (state == "open" and self._failure[:_DETAIL_LIMIT] != before):
            self._circuit = state
            self._say_health()

    def _tell_left_alone(self) -> None:
        """Nothing fails while a destination is left alone, as it asked for; who looks sees only that much waits."""
        left_ms = self.scheduler.circuit.held_until - self._clock()
        if self._is_left_alone == (left_ms > (0 if self._is_left_alone else _LEFT_ALONE_MS)):
            return
        self._is_left_alone = not self._is_left_alone
        if self._is_left_alone:
            until = shown_second(self.scheduler.circuit.held_until)
            self._failure = f"it asks to be left alone until {until}: {self._failure}"
            _log.warning("%s: %s", self.destination, briefly(self._failure))
        else:
            _log.info("%s is asked again", self.destination)
        self._say_health()

    def _say_health(self) -> None:
        is_up = self._circuit == "closed" and not self._is_left_alone
        self._metrics.up.set(is_up)
        failure = "" if is_up else self._failure[:_DETAIL_LIMIT]
        self._health = Health(self.destination, is_up, self._clock(), failure)
        self._tell_health(self._health)


def _dead_letter(given: GivenUp, detail: str, value: bytes | None, now_ms: int) -> tuple[int, bytes | None, bytes]:
    record = given.item.record
    attempts = f" (attempt {given.item.attempts})" if given.item.attempts else ""
    letter = DeadLetter(
        reason=given.reason,
        detail=detail[:_DETAIL_LIMIT] + attempts,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        at=now_ms,
        value=value,
        key=record.key,
        stage="deliver",
    )
    return record.partition, record.key, encode(letter)
