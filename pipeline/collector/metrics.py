"""The metrics of the collector."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_TIMES_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class CollectorMetrics:
    """One catalogue. No label comes from a caller: paths and sources are ours, reasons a closed list."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "headwater_collector_requests_total", "Requests by path and status", ["path", "status"], registry=registry
        )
        self.events = Counter(
            "headwater_collector_events_total", "Events acknowledged, by source", ["source"], registry=registry
        )
        self.rejected = Counter(
            "headwater_collector_rejected_total", "Events not taken, by reason", ["source", "reason"], registry=registry
        )
        self.in_flight_bytes = Gauge(
            "headwater_collector_in_flight_bytes", "Bytes of requests being read or waiting", registry=registry
        )
        self.ready = Gauge("headwater_collector_ready", "1 while the broker answers", registry=registry)
        self.ack_seconds = Histogram(
            "headwater_collector_ack_seconds",
            "From the request to the acknowledgement",
            registry=registry,
            buckets=_TIMES_S,
        )
