"""Burr: an application as a flow, from its entrypoint to an action that leads nowhere.

| in the application | becomes |
|---|---|
| an action starts | `task` |
| an action ends or fails | `action` with `phase: "end"` and its result, or `action-error` |
| the state at the end | the result of the run |

An application whose every action leads on ends nowhere by itself: its author says where it halts, by `app.run`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kodo.flow.adapters.telling import Teller
from kodo.p2p.errors import UsageError

__all__ = ["run", "schema"]


def run(application: Any, inputs: Mapping[str, Any]) -> Any:
    """Run an application with inputs for its actions; give its state.

    Raises:
        UsageError: no action of it is a last one.
        Exception: whatever it raises.
    """
    graph = application.graph
    leading_on = {each.from_.name for each in graph.transitions}
    if all(each.name in leading_on for each in graph.actions):
        raise UsageError(
            "each action of this Burr application leads to another one, so nothing says where it ends: call "
            "`app.run(halt_after=[…])` in the flow, and return what of the state you need"
        )
    teller, taken = Teller(), set(_inputs_of(graph))
    given = {name: value for name, value in inputs.items() if name in taken}
    if any(each.is_async() for each in graph.actions):
        asyncio.run(_run(application, given, teller))
    else:
        while (action := application.get_next_action()) is not None:
            with _told(teller, action.name) as ended:
                ended.extend(application.step(inputs=given) or ())
    return {name: value for name, value in application.state.get_all().items() if not name.startswith("__")}


def schema(application: Any) -> dict[str, Any] | None:
    """Return the form of an application: what its actions take from outside; of any type."""
    if isinstance(application, type):
        return None
    found = _inputs_of(application.graph)
    properties: dict[str, Any] = {name: {} for name in found}
    required = [name for name, needed in found.items() if needed]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


async def _run(application: Any, given: dict[str, Any], teller: Teller) -> None:
    while (action := application.get_next_action()) is not None:
        with _told(teller, action.name) as ended:
            ended.extend(await application.astep(inputs=given) or ())


@contextmanager
def _told(teller: Teller, name: str) -> Iterator[list[Any]]:
    """Report an action; the block appends its outcome to the list: action, result, state."""
    teller.say("task", name=name)
    started, ended = time.monotonic(), list[Any]()
    try:
        yield ended
    except Exception as error:
        teller.say("action-error", name=name, type=type(error).__name__, message=str(error)[:8000])
        raise
    output = ended[1] if len(ended) > 1 else None
    seconds = round(time.monotonic() - started, 6)
    teller.say("action", name=name, phase="end", output=output or None, runtime_s=seconds)


def _inputs_of(graph: Any) -> dict[str, bool]:
    """Return what actions take from outside, and whether they need it; Burr's own inputs are left out."""
    found: dict[str, bool] = {}
    for action in graph.actions:
        required, optional = action.optional_and_required_inputs
        for name in sorted(required | optional):
            if not name.startswith("__"):
                found[name] = found.get(name, False) or name in required
    return found
