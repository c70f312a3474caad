"""A node's metrics: counts and times of runs and calls, what is kept, who is reachable. Never who ran what."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kodo.node.answers.node import NodeFacts
from kodo.node.catalog.load import Load
from kodo.node.files.ledger import Ledger
from kodo.node.runs.live import LiveRun
from kodo.node.runs.runs import Runs
from kodo.protocol.calls import OPS
from kodo.protocol.events import Event, RunState

__all__ = ["MAX_FLOWS", "OTHER", "NodeMetrics"]

MAX_FLOWS = 200
"""Flows that have a label of their own; the rest are counted together."""
OTHER = "other"

_RUN_BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_CALL_BUCKETS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)


class NodeMetrics(Collector):
    """Counts what happens, and reads what is the case whenever it is asked.

    Args:
        registry: where the metrics are told from.
        load: gives the machine's load and the counts of runners.
        sessions: gives how many sessions there are.
        ledger: of the node's disk.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        facts: NodeFacts,
        runs: Runs,
        load: Callable[[], Load],
        sessions: Callable[[], int],
        ledger: Ledger,
    ):
        self._facts = facts
        self._runs = runs
        self._load = load
        self._sessions = sessions
        self._ledger = ledger
        self._flows: set[str] = set()
        self._launched = Counter("kodo_runs_launched", "Runs that were launched.", ["flow"], registry=registry)
        self._ended = Counter(
            "kodo_runs_ended", "Runs that ended: done, error or killed.", ["flow", "outcome"], registry=registry
        )
        self._lasted = Histogram(
            "kodo_run_seconds", "Time from a run's launch to its end.", buckets=_RUN_BUCKETS, registry=registry
        )
        self._events = Counter("kodo_events_committed", "Events that were committed to the log.", registry=registry)
        self._calls = Counter(
            "kodo_calls", "Calls: ok, refused, failed, or left by the caller.", ["op", "outcome"], registry=registry
        )
        self._answered = Histogram(
            "kodo_call_seconds", "Time to answer a call.", ["op"], buckets=_CALL_BUCKETS, registry=registry
        )
        registry.register(self)

    def on_events(self, live: LiveRun, events: Sequence[Event]) -> None:
        """Count committed events; a listener of `Runs`."""
        self._events.inc(len(events))
        for event in events:
            if event.event == "flow":
                self._launched.labels(self._flow(live)).inc()
            elif event.event in ("final", "fatal"):
                killed = event.data.get("where") == "node" and event.data.get("type") == "Killed"
                outcome = "done" if event.event == "final" else "killed" if killed else "error"
                self._ended.labels(self._flow(live), outcome).inc()
                self._lasted.observe(max(event.at - live.row.created, 0) / 1000)

    def on_call(self, op: str, outcome: str, seconds: float) -> None:
        """Count a call: `ok`, `refused`, `left` or `failed`."""
        known = op if op in OPS else OTHER
        self._calls.labels(known, outcome).inc()
        self._answered.labels(known).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """Read what is the case now."""
        load, states = self._load(), [live.view.state for live in self._runs.live.values()]
        versions = {"kodo": self._facts.version, "python": platform.python_version()}
        yield _gauge("kodo_node_info", "The node's versions.", versions)
        yield _gauge("kodo_node_start_time_seconds", "When it started, Unix time.", self._facts.started_at / 1000)
        yield _family(
            "kodo_runs_unfinished",
            "Runs that have not ended: queued, running, or locked, which wait for an answer.",
            "state",
            {
                "locked": sum(state is RunState.LOCKED for state in states),
                "queued": load.queued,
                "running": max(sum(state is not RunState.LOCKED for state in states) - load.queued, 0),
            },
        )
        yield _family(
            "kodo_runners", "Processes for runs: free, or busy.", "state", {"free": load.free, "busy": load.busy}
        )
        yield _gauge("kodo_sessions", "Peers that have a session with the node.", self._sessions())
        yield _gauge("kodo_machine_cpu_ratio", "CPU of the machine in use, 0 to 1.", load.cpu / 100)
        yield _gauge("kodo_machine_memory_ratio", "Memory of the machine in use, 0 to 1.", load.memory / 100)
        yield _gauge("kodo_disk_used_ratio", "The home's disk in use, 0 to 1.", load.disk / 100)
        yield _family("kodo_kept_bytes", "What the node keeps.", "part", dict(self._ledger.parts))
        yield _gauge("kodo_quota_bytes", "What it may keep; 0: no quota.", self._ledger.quota_bytes or 0)
        yield _family(
            "kodo_registry_up",
            "Whether the registry lists the node.",
            "registry",
            {str(each["url"]): int(bool(each.get("online"))) for each in self._facts.registries()},
        )

    def describe(self) -> Iterator[Metric]:
        """Return nothing: what is told is known when it is asked for."""
        return iter(())

    def _flow(self, live: LiveRun) -> str:
        path = live.row.path
        if path not in self._flows and len(self._flows) >= MAX_FLOWS:
            return OTHER
        self._flows.add(path)
        return path


def _gauge(name: str, text: str, value: float | dict[str, str]) -> Metric:
    if not isinstance(value, dict):
        return GaugeMetricFamily(name, text, value=value)
    family = GaugeMetricFamily(name, text, labels=list(value))
    family.add_metric(list(value.values()), 1)
    return family


def _family(name: str, text: str, label: str, values: dict[str, Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, amount in values.items():
        family.add_metric([value], amount)
    return family
