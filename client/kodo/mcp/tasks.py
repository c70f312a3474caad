"""Runs as tasks of the extension `io.modelcontextprotocol/tasks`: a task is a run, and its id the run's. Pure.

A run is on its node's disk before its launch is answered, so that a host is told of no task that a crash could lose.
Source: SEP-2663, revision 2026-07-28.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from kodo.mcp.results import Result
from kodo.mcp.runs import Standing, run_ref
from kodo.mcp.texts import one_line

__all__ = ["EXTENSION", "POLL_MS", "created", "detailed"]

EXTENSION = "io.modelcontextprotocol/tasks"
POLL_MS = 2000


def created(standing: Standing) -> dict[str, Any]:
    """Return the result of a call that goes on as a task."""
    return {"resultType": "task", **_task(standing, "working")}


def detailed(standing: Standing, result: Result, requests: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer of `tasks/get`.

    Args:
        result: of the tool, for a run that is over.
        requests: what the host can ask a person now, by key.
    """
    if not standing.over:
        if requests:
            return {**_task(standing, "input_required"), "inputRequests": dict(requests)}
        return _task(standing, "working")
    fatal = standing.state.get("fatal")
    if isinstance(fatal, Mapping) and fatal.get("type") == "Killed":
        return _task(standing, "cancelled")
    return {**_task(standing, "completed"), "result": {"resultType": "complete", **result}}


def _task(standing: Standing, status: str) -> dict[str, Any]:
    state = standing.state
    made = {
        "taskId": run_ref(standing.run),
        "status": status,
        "createdAt": _time(state.get("created")),
        "lastUpdatedAt": _time(state.get("modified")),
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }
    message = _message(standing)
    return {**made, "statusMessage": message} if message else made


def _message(standing: Standing) -> str:
    progress = standing.state.get("progress")
    if standing.locks:
        lock = standing.locks[0]
        who = "the user" if lock.mine else "others"
        return f"waits for {who}: {one_line(lock.lock.title, 200)}"
    return one_line(progress.get("text") or "", 200) if isinstance(progress, Mapping) else ""


def _time(ms: Any) -> str:
    number = ms if isinstance(ms, int) and 0 <= ms < 1 << 45 else 0
    when = datetime.datetime.fromtimestamp(number / 1000, datetime.UTC)
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
