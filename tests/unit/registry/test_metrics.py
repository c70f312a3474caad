"""A registry's metrics: right counts, bounded labels."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from kodo.registry.metrics import RegistryMetrics


def test_requests_are_counted_by_route_method_and_class_of_status() -> None:
    registry = CollectorRegistry()
    metrics = RegistryMetrics(registry, lambda: {"online": 2, "offline": 1, "flows": 9}, lambda: 4096)
    metrics.on_request("/nodes", "GET", 200, 0.01)
    metrics.on_request("/nodes", "GET", 204, 0.01)
    metrics.on_request("other", "BREW", 404, 0.01)
    read = registry.get_sample_value
    assert read("kodo_registry_requests_total", {"route": "/nodes", "method": "GET", "status": "2xx"}) == 2
    assert read("kodo_registry_requests_total", {"route": "other", "method": "other", "status": "4xx"}) == 1
    assert read("kodo_registry_request_seconds_count", {"route": "/nodes"}) == 2
    assert read("kodo_registry_nodes", {"state": "online"}) == 2
    assert read("kodo_registry_flows") == 9
    assert read("kodo_registry_database_bytes") == 4096
    assert "BREW" not in generate_latest(registry).decode()
