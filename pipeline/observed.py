"""Where the metrics of a role are served: at its `metrics_port`, with those of the process itself.

Of a role that tells nothing of its process nobody would hear that it starts again and again.
"""

import atexit

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server

from pipeline.settings import Settings


def served(settings: Settings) -> CollectorRegistry:
    """A registry that is served at `metrics_port`, if there is one."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    if settings.metrics_port is not None:
        server, _ = start_http_server(settings.metrics_port, settings.metrics_host, registry)
        # Each request has a thread of its own: one that began in an interpreter that ends would crash the process.
        atexit.register(server.shutdown)
    return registry
