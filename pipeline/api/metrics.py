"""The metrics of the API role: one typed catalogue."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.api.service import Service


class ApiMetrics(Collector):
    """What one process of the API can tell of itself, read when it is asked."""

    def __init__(self, registry: CollectorRegistry, service: Service) -> None:
        self._service = service
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        service = self._service
        requests = CounterMetricFamily(
            "headwater_api_requests", "Requests, by operation and status", labels=["operation", "status"]
        )
        for (operation, status), count in sorted(service.requests.items()):
            requests.add_metric([operation, str(status)], count)
        yield requests
        yield GaugeMetricFamily("headwater_api_ready", "1 once everything was read", int(service.follower.is_ready))
        yield GaugeMetricFamily("headwater_api_age_ms", "How old the answers are", service.age_ms())
        yield GaugeMetricFamily("headwater_api_streams", "Streams that are open", service.hub.count)
