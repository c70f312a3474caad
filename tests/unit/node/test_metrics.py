"""A node's metrics: right counts, bounded labels, nothing of what is in runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from kodo.node.answers.node import NodeFacts
from kodo.node.catalog.load import Load
from kodo.node.files.ledger import Ledger
from kodo.node.metrics import MAX_FLOWS, OTHER, NodeMetrics
from kodo.node.runs.live import LiveRun
from kodo.protocol.events import Event
from tests.unit.node.conftest import StillClock, new_run
from tests.unit.node.service_rig import Node, node_of

SECRET = "zanzibar"


def metrics_of(node: Node, tmp_path: Path) -> tuple[NodeMetrics, CollectorRegistry]:
    registry = CollectorRegistry()
    facts = NodeFacts("n", "p", "0.1.0", 1_700_000_000_000, lambda: [{"url": "http://r", "online": True}])
    load = Load(cpu=50.0, memory=20.0, disk=10.0, free=2, busy=1, queued=1)
    ledger = Ledger(tmp_path, quota_bytes=1000)
    ledger.count(lambda: 77, "database")
    made = NodeMetrics(registry, facts, node.rig.runs, lambda: load, lambda: 3, ledger)
    return made, registry


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


async def test_runs_and_calls_are_counted(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        metrics, registry = metrics_of(node, tmp_path)
        node.rig.runs.listen(metrics.on_events)
        node.service.watch(metrics.on_call)
        await node.finished()
        asking = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}, tags=[SECRET]))["fid"]
        await node.rig.until(asking, "lock")
        assert value(registry, "kodo_runs_unfinished", state="locked") == 1
        await node.call("run.kill", fid=asking)
        await node.refused("run.kill", fid=asking)
        await node.refused(f"nonsense.{SECRET}")
        assert value(registry, "kodo_runs_launched_total", flow="flows.work") == 1
        assert value(registry, "kodo_runs_ended_total", flow="flows.work", outcome="done") == 1
        assert value(registry, "kodo_runs_ended_total", flow="flows.ask", outcome="killed") == 1
        assert value(registry, "kodo_run_seconds_count") == 2
        assert value(registry, "kodo_calls_total", op="run.kill", outcome="ok") == 1
        assert value(registry, "kodo_calls_total", op="run.kill", outcome="refused") == 1
        assert value(registry, "kodo_calls_total", op=OTHER, outcome="refused") == 1
        assert SECRET not in generate_latest(registry).decode()


async def test_what_is_the_case_is_read_when_it_is_asked_for(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        _, registry = metrics_of(node, tmp_path)
        assert value(registry, "kodo_kept_bytes", part="database") == 77
        assert value(registry, "kodo_quota_bytes") == 1000
        assert value(registry, "kodo_sessions") == 3
        assert value(registry, "kodo_machine_cpu_ratio") == 0.5
        assert registry.get_sample_value("kodo_registry_up", {"registry": "http://r"}) == 1
        assert value(registry, "kodo_runners", state="free") == 2


@pytest.mark.parametrize("outcome", ["done", "error"])
async def test_however_many_flows_there_are_labels_are_bounded(
    tmp_path: Path, clock: StillClock, outcome: str
) -> None:
    async with node_of(tmp_path, clock) as node:
        metrics, registry = metrics_of(node, tmp_path)
        end = ("final", {"result": SECRET}) if outcome == "done" else ("fatal", {"type": SECRET, "where": "flow"})
        for number in range(MAX_FLOWS + 50):
            live = LiveRun(new_run(number + 1, path=f"flow{number}").stored(clock.ms))
            metrics.on_events(live, events(("flow", {}), end))
        flows = {
            sample.labels["flow"]
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "kodo_runs_ended_total"
        }
        assert len(flows) == MAX_FLOWS + 1
        assert value(registry, "kodo_runs_ended_total", flow=OTHER, outcome=outcome) == 50
        assert SECRET not in generate_latest(registry).decode()


def events(*named: tuple[str, dict[str, Any]]) -> Iterable[Event]:
    return [Event(seq, 1_700_000_000_000, "x", name, data) for seq, (name, data) in enumerate(named, 1)]
