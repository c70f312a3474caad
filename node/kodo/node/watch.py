"""What watches a node: its metrics and its health, served where that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from kodo.node.answers.node import NodeFacts
from kodo.node.catalog.load import LoadMeter
from kodo.node.files.ledger import Ledger
from kodo.node.files.outputs import Outputs
from kodo.node.runs.runs import Runs
from kodo.node.service import Service
from kodo.p2p.errors import CapacityError

if TYPE_CHECKING:
    from kodo.monitor.server import MonitorServer

__all__ = ["Watch"]


class Watch:
    """What is watched of one node: nothing, unless an address was given."""

    def __init__(self) -> None:
        self.monitor: MonitorServer | None = None
        self._ready: Callable[[], Mapping[str, str]] | None = None

    def serve(self, address: str) -> MonitorServer:
        """Return what serves at `address`, not yet open; until `ready` the node is not healthy.

        Raises:
            UsageError: it is not an address.
        """
        # Imported here: most nodes serve no metrics, and what speaks HTTP takes long to import.
        from kodo.monitor.server import MonitorServer, parse_endpoint

        self.monitor = MonitorServer(parse_endpoint(address), self._failing)
        return self.monitor

    def begin(
        self,
        facts: NodeFacts,
        runs: Runs,
        service: Service,
        meter: LoadMeter,
        sessions: Callable[[], int],
        ledger: Ledger,
    ) -> None:
        """Count what happens from now on."""
        if self.monitor is None:
            return
        from kodo.node.metrics import NodeMetrics

        metrics = NodeMetrics(self.monitor.registry, facts, runs, meter.read, sessions, ledger)
        runs.listen(metrics.on_events)
        service.watch(metrics.on_call)

    def ready(self, outputs: Outputs, runs: Runs) -> None:
        """Note that the node takes calls: from now on only what keeps it from taking launches is unhealthy."""
        self._ready = lambda: _failing(outputs, runs)

    def _failing(self) -> Mapping[str, str]:
        return {"start": "the node is starting"} if self._ready is None else self._ready()


def _failing(outputs: Outputs, runs: Runs) -> dict[str, str]:
    failing = {}
    try:
        outputs.check_room()
    except CapacityError as error:
        failing["disk"] = str(error)
    if runs.stopping:
        failing["stop"] = "the node is stopping and takes no launches"
    if not runs.has_executor:
        failing["executor"] = "no run can be started now: Ray is being started or joined again"
    return failing
