"""The metrics of the deliver role, one typed catalogue, by destination."""

import contextlib
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# All reasons for which a delivery is given up.
REASONS = ("rejected", "attempts used up", "too old", "not a delivery")
_LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30, 300, 3_600)


@dataclass(frozen=True, slots=True)
class DestinationMetrics:
    """Those of one destination."""

    destination: str
    outcomes: Counter
    letters: Counter
    open: Gauge
    up: Gauge
    latency_seconds: Histogram
    past: Gauge

    def overtaken(self, count: int) -> None:
        """Tell how many deliveries of this worker were not to go out any more."""
        self.past.set(count)

    def outcome(self, status: str) -> None:
        """Count what became of one attempt."""
        self.outcomes.labels(self.destination, status).inc()

    def dead_letters(self, reason: str) -> None:
        """Count a delivery that was given up."""
        self.letters.labels(self.destination, reason).inc()


class DeliverMetrics:
    """The catalogue of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"headwater_deliver_{name}", text, ["destination"], registry=registry)

        self._outcomes = Counter(
            "headwater_deliver_attempts_total", "Attempts, by outcome", ["destination", "outcome"], registry=registry
        )
        self._letters = Counter(
            "headwater_deliver_dead_letters_total",
            "Deliveries given up, by reason",
            ["destination", "reason"],
            registry=registry,
        )
        self._past = gauge(
            "overtaken",
            "Deliveries that did not go out any more: of the erased, or resting on what was taken back",
        )
        self._open = gauge("open", "Deliveries read and not yet done")
        self._up = gauge("up", "1 while the destination answers as it should, 0 while it is only probed")
        self._latency = Histogram(
            "headwater_deliver_latency_seconds",
            "From the decision to the destination's answer",
            ["destination"],
            registry=registry,
            buckets=_LATENCIES_S,
        )

    def of(self, destination: str) -> DestinationMetrics:
        """The metrics of one destination."""
        up = self._up.labels(destination)
        up.set(1)
        for reason in REASONS:
            # A series that begins with the first of them has no increase: nobody would hear of it.
            self._letters.labels(destination, reason)
        return DestinationMetrics(
            destination,
            self._outcomes,
            self._letters,
            self._open.labels(destination),
            up,
            self._latency.labels(destination),
            self._past.labels(destination),
        )

    def forget(self, destination: str) -> None:
        """Tell nothing more of a destination that is not served here: it would be down for ever."""
        for gauge in (self._up, self._open, self._past):
            with contextlib.suppress(KeyError):
                gauge.remove(destination)
