"""Emitters: how a flow says what it does. The same in sync and async code.

A plain call is enough. Awaiting what it gives back is optional: it waits while the node is far behind, where a plain
call would in the end block its thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kodo.flow._runtime.context import Emitted
from kodo.flow._runtime.current import current
from kodo.flow._runtime.flow_events import check_event, normal
from kodo.flow._runtime.plain import is_plain, plain

__all__ = ["action", "agent", "emit", "progress", "result", "task", "tool"]


def emit(event: str, data: Mapping[str, Any] | None = None) -> Emitted:
    """Make one event of any kind that a flow may make, as `config` or `action-error`.

    Raises:
        UsageError: the event is unknown or not a flow's to make.
        CapacityError: its data is larger than 256 KiB; write an output instead.
    """
    check_event(event)
    return _emit(event, normal(event, dict(data or {})))


def progress(
    percent: float | None = None,
    text: str | None = None,
    *,
    done: float | None = None,
    total: float | None = None,
    id: str | None = None,
    parent: str | None = None,
) -> Emitted:
    """Report how far the run is.

    Args:
        percent: 0–100; worked out of `done` and `total` when these are given instead.
        text: what is being done.
        done: units done, as pages read.
        total: units in all, when known.
        id: names one of several progresses.
        parent: the `id` of the progress that this one is part of.
    """
    fields = {"percent": percent, "text": text, "done": done, "total": total, "id": id, "parent": parent}
    return _emit("progress", normal("progress", {name: value for name, value in fields.items() if value is not None}))


def action(what: Any = None, /, **fields: Any) -> Emitted:
    """Report what the flow does now: text, a map, a model, or fields."""
    return _emit("action", _payload(what, fields))


def result(what: Any = None, /, **fields: Any) -> Emitted:
    """Return an intermediate result: text, a map, a model, or fields."""
    return _emit("result", _payload(what, fields))


def agent(name: str, /, **fields: Any) -> Emitted:
    """Describe an agent that takes part, as `agent("Researcher", goal=…)`."""
    return _emit("agent", {"name": name, **fields})


def task(name: str, /, **fields: Any) -> Emitted:
    """Describe a task that an agent works on."""
    return _emit("task", {"name": name, **fields})


def tool(name: str, /, **fields: Any) -> Emitted:
    """Describe a tool that an agent uses."""
    return _emit("tool", {"name": name, **fields})


def _emit(event: str, data: dict[str, Any]) -> Emitted:
    return current().emit(event, data if is_plain(data) else plain(data))


def _payload(what: Any, fields: dict[str, Any]) -> dict[str, Any]:
    if what is None:
        return fields
    if isinstance(what, str):
        return {"text": what, **fields}
    value = plain(what)
    return {**value, **fields} if isinstance(value, dict) else {"value": value, **fields}
