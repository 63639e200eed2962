"""Whether a destination is worth trying, and when next: circuit breaker, Retry-After, rate.

    state      what may go out                       leaves it when
    closed     everything                            `failures_to_open` requests in a row failed → open
    open       nothing, until its time is up         time is up → half open
    half open  one request, the probe                it got through → closed; it failed → open, for twice as long

"Got through" means that the destination answered for itself: it took the delivery, or refused that very one.
"""

from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Limits:
    """When the circuit opens and for how long; `per_second` None means no limit of the rate."""

    failures_to_open: int = 8
    first_open_ms: int = 1_000
    longest_open_ms: int = 60_000
    per_second: float | None = None


class Circuit:
    """One destination's. Time is an argument everywhere, in milliseconds, and rises."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.state: State = "closed"
        self._failures = 0
        self._open_ms = limits.first_open_ms
        self._until = 0  # while open: when to probe
        self.held_until = 0  # the destination asked for it
        self._tokens = 1.0
        self._filled_at: int | None = None

    def opens_at(self, now_ms: int) -> int:
        """The earliest time at which a request may go out; `now_ms` or earlier if it may now."""
        at = self.held_until
        if self.state == "open":
            at = max(at, self._until)
        if self._limits.per_second is not None:
            self._fill(now_ms, self._limits.per_second)
            if self._tokens < 1:
                at = max(at, now_ms + max(1, int((1 - self._tokens) * 1000 / self._limits.per_second)))
        return at

    def sent(self, now_ms: int) -> None:
        """A request goes out. An open circuit whose time is up becomes half open: this is the probe."""
        if self.state == "open":
            assert now_ms >= self._until
            self.state = "half_open"
        if self._limits.per_second is not None:
            self._fill(now_ms, self._limits.per_second)
            self._tokens -= 1

    def got_through(self) -> bool:
        """The destination answered for itself. Returns whether that closed the circuit."""
        closed = self.state != "closed"
        self.state = "closed"
        self._failures = 0
        self._open_ms = self._limits.first_open_ms
        return closed

    def hold(self, until_ms: int) -> None:
        """The destination wants to be left alone until then."""
        self.held_until = max(self.held_until, until_ms)

    def failed(self, now_ms: int) -> None:
        """A request failed."""
        self._failures += 1
        if self.state == "half_open":
            self._open_ms = min(self._open_ms * 2, self._limits.longest_open_ms)
        elif self.state == "open" or self._failures < self._limits.failures_to_open:
            return
        self.state = "open"
        self._until = now_ms + self._open_ms

    def _fill(self, now_ms: int, per_second: float) -> None:
        if self._filled_at is not None:
            # At most a second's worth, so that a quiet hour does not end in a burst.
            gained = (now_ms - self._filled_at) * per_second / 1000
            self._tokens = min(max(1.0, per_second), self._tokens + gained)
        self._filled_at = now_ms
