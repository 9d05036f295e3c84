"""Prometheus metrics of the process and the HTTP port that shows them."""

import threading
from dataclasses import dataclass
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)

__all__ = ["REGISTRY", "MetricsServer", "counter", "gauge", "histogram", "start_metrics_server"]

# One registry a process: metrics are facts about the process, whichever object counts them.
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

SECONDS_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1200.0)


def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
    """Return the counter `quatrain_{name}_total`; made once, at import."""
    return Counter(f"quatrain_{name}", text, labels, registry=REGISTRY)


def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
    """Return the gauge `quatrain_{name}`; made once, at import."""
    return Gauge(f"quatrain_{name}", text, labels, registry=REGISTRY)


def histogram(name: str, text: str, labels: tuple[str, ...] = ()) -> Histogram:
    """Return the histogram `quatrain_{name}` of seconds, 1 ms to 20 min; made once, at import."""
    return Histogram(f"quatrain_{name}", text, labels, registry=REGISTRY, buckets=SECONDS_BUCKETS)


@dataclass(frozen=True)
class MetricsServer:
    """The running HTTP server of `/metrics`."""

    server: WSGIServer
    thread: threading.Thread

    @property
    def port(self) -> int:
        """Return the port that it is bound to."""
        return int(self.server.server_port)

    def close(self) -> None:
        """Stop it and free the port."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=5.0)


def start_metrics_server(host: str, port: int) -> MetricsServer:
    """Serve `/metrics` from a thread; port 0 takes a free one. Raises OSError if the port is taken."""
    server, thread = start_http_server(port, addr=host, registry=REGISTRY)
    return MetricsServer(server, thread)
