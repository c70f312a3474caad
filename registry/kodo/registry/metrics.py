"""A registry's metrics: what it lists, and how requests are answered. Never who asked for what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kodo.p2p.distribution import installed_version

__all__ = ["RegistryMetrics"]

_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2, 10, 30)
_METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])


class RegistryMetrics(Collector):
    """Counts requests, and tells what was counted last of what is listed.

    Args:
        counts: gives what was read last: nodes by `online`, `unknown`, `offline`, and `flows`.
        size: gives the bytes of the database.
    """

    def __init__(self, registry: CollectorRegistry, counts: Callable[[], dict[str, int]], size: Callable[[], int]):
        self._counts = counts
        self._size = size
        self._requests = Counter(
            "kodo_registry_requests", "Requests that were answered.", ["route", "method", "status"], registry=registry
        )
        self._answered = Histogram(
            "kodo_registry_request_seconds",
            "Time to answer a request.",
            ["route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        registry.register(self)

    def on_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; `route` is one of the application's own, `status` is told as its class, `2xx`."""
        self._requests.labels(route, method if method in _METHODS else "other", f"{status // 100}xx").inc()
        self._answered.labels(route).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Return what was read last."""
        info = GaugeMetricFamily("kodo_registry_info", "The registry's version.", labels=["kodo"])
        info.add_metric([installed_version()], 1)
        yield info
        counts: dict[str, Any] = dict(self._counts())
        yield GaugeMetricFamily("kodo_registry_flows", "Flows that are listed.", value=counts.pop("flows", 0))
        nodes = GaugeMetricFamily("kodo_registry_nodes", "Nodes that are listed, by their state.", labels=["state"])
        for state, count in counts.items():
            nodes.add_metric([state], count)
        yield nodes
        yield GaugeMetricFamily("kodo_registry_database_bytes", "Size of the database.", value=self._size())

    def describe(self) -> Iterator[Metric]:
        """Return nothing: what is told is known when it is asked for."""
        return iter(())
