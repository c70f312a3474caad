"""What happened to each run, in the node's log: launched and by whom, ended and why. Never what is in it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kodo.node.runs.fatals import FATAL_TYPES
from kodo.node.runs.live import LiveRun
from kodo.protocol.events import Event

__all__ = ["log_run"]

logger = logging.getLogger(__name__)


def log_run(live: LiveRun, events: Sequence[Event]) -> None:
    """Log what of committed events an operator needs to know; a listener of `Runs`."""
    for event in events:
        if event.event == "flow":
            _log(live, "launched", f"launched by {live.row.principal}", by=live.row.principal)
        elif event.event == "kill":
            by = str(event.data.get("by"))
            _log(live, "killed", f"killed by {by}", by=by)
        elif event.event == "final":
            _log(live, "done", f"done after {_runtime_s(live, event):g} s", runtime_s=_runtime_s(live, event))
        elif event.event == "fatal":
            runtime_s, why = _runtime_s(live, event), _why(event)
            _log(live, "error", f"ended after {runtime_s:g} s: {why}", runtime_s=runtime_s, why=why)


def _why(event: Event) -> str:
    """Return why a run ended: the node's reason, or that it was the flow's own error. The message is a content."""
    kind = str(event.data.get("type"))
    if event.data.get("where") == "node" and kind in FATAL_TYPES:
        return f"{kind}, {FATAL_TYPES[kind]}"
    return "an error of the flow"


def _runtime_s(live: LiveRun, event: Event) -> float:
    return round(max(event.at - live.row.created, 0) / 1000, 3)


def _log(live: LiveRun, what: str, text: str, **more: object) -> None:
    about = {"event": f"run.{what}", "run": live.fid, "flow": live.row.path, **more}
    logger.info("run %s of %s %s", live.fid, live.row.path, text, extra=about)
