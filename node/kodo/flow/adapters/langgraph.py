"""LangGraph: a graph, compiled or not, as a flow.

| in the graph | becomes |
|---|---|
| its nodes | `agent`, once each at the start |
| a node starts | `task` with its `id` and input |
| a node ends or fails | `action` with `phase: "end"`, or `action-error` |
| a state update | `result`: node and update |
| what a node writes to its stream | `action` |
| `interrupt` | a lock; its answer is what `interrupt` gives back |
| a breakpoint (`interrupt_before`, `interrupt_after`) | a lock that asks whether to go on |
| the state in the end | the run's result |

A graph that was compiled without checkpointer gets one in memory, which interrupts need.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Interrupt
from pydantic import BaseModel

from kodo.flow._runtime.context import fid
from kodo.flow.adapters.truncate import fit
from kodo.flow.emit import action, agent, emit, result, task
from kodo.flow.locks import lock

__all__ = ["demand_of", "run", "schema"]

_TITLES = ("title", "question", "message", "description", "text")
_MAX_TITLE = 500


def run(graph: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a compiled graph to its end, in an event loop of its own; gives what its `invoke` would.

    Raises:
        LockExpiredError: an interrupt was not answered in time.
        Exception: whatever the graph raises.
    """
    return asyncio.run(_run(_compiled(graph), dict(inputs)))


def schema(graph: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of a graph's input; None when its types have none."""
    try:
        graph = _compiled(graph)
        found: dict[str, Any] = graph.get_input_jsonschema()
    except Exception:  # types of the author's, which JSON Schema may not know
        return None
    if found.get("type") != "object":
        return None
    builder = getattr(graph, "builder", None)
    state = getattr(builder, "state_schema", None)
    if getattr(builder, "input_schema", None) is state and not _is_model(state):
        # A state's keys are what its nodes fill in: which of them are inputs, it does not say.
        found = {key: value for key, value in found.items() if key != "required"}
    found.pop("title", None)
    return found


def demand_of(interrupt: Interrupt) -> tuple[str, dict[str, Any]]:
    """Return the title and the JSON Schema by which a human answers an interrupt.

    A value that is a map may say them itself, as `title` (or `question` …) and `schema`.
    """
    value = fit(interrupt.value)
    if not isinstance(value, dict):
        return str(value)[:_MAX_TITLE] or "Go on?", {}
    title = next((value[name] for name in _TITLES if isinstance(value.get(name), str)), "Go on?")
    asked = interrupt.value.get("schema", getattr(interrupt, "response_schema", None))
    if _is_model(asked):
        asked = asked.model_json_schema()
    form = dict(asked) if isinstance(asked, Mapping) else {}
    rest = {name: part for name, part in value.items() if part != title and name != "schema"}
    if rest and "description" not in form:
        form["description"] = json.dumps(rest, ensure_ascii=False, indent=1)
    return title[:_MAX_TITLE], form


def _compiled(graph: Any) -> Any:
    """Compile a `StateGraph` that its author did not."""
    return graph if hasattr(graph, "astream") else graph.compile()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


async def _run(graph: Any, inputs: Any) -> Any:
    if not isinstance(graph.checkpointer, BaseCheckpointSaver):
        graph = graph.copy(update={"checkpointer": InMemorySaver()})
    config = {"configurable": {"thread_id": fid() or "kodo"}}
    for name in graph.nodes:
        if not name.startswith("__"):
            await agent(name, graph=graph.name)
    watched = _Watched()
    while True:
        await watched.follow(graph.astream(inputs, config, stream_mode=_Watched.MODES, subgraphs=True))
        state = await graph.aget_state(config)
        if state.interrupts:
            async with asyncio.TaskGroup() as group:
                asked = {one.id: group.create_task(_ask(one)) for one in state.interrupts}
            inputs = Command(resume={key: answer.result() for key, answer in asked.items()})
        elif state.next and await lock(f"Go on with {', '.join(state.next)}?"[:_MAX_TITLE], bool):
            inputs = None
        else:
            return watched.values


async def _ask(interrupt: Interrupt) -> Any:
    title, form = demand_of(interrupt)
    return await lock(title, form)


class _Watched:
    """Turns what a graph streams into events, and keeps its latest state."""

    MODES: ClassVar = ["tasks", "updates", "values", "custom"]

    def __init__(self) -> None:
        self.values: Any = None
        self._open: dict[str, tuple[str, float]] = {}  # of tasks: name and start

    async def follow(self, chunks: Any) -> None:
        """Take all chunks of one pass."""
        self._open.clear()  # a node that was interrupted starts anew
        try:
            async for path, mode, chunk in chunks:
                await self._take("/".join(part.partition(":")[0] for part in path), mode, chunk)
        except Exception as error:
            for name, started in self._open.values():
                await self._fail(name, started, type(error).__name__, str(error))
            raise

    async def _take(self, path: str, mode: str, chunk: Any) -> None:
        within = {"path": path} if path else {}
        if mode == "tasks" and "input" in chunk:
            self._open[chunk["id"]] = (chunk["name"], time.monotonic())
            await task(chunk["name"], id=chunk["id"], input=fit(chunk["input"]), **within)
        elif mode == "tasks":
            name, started = self._open.pop(chunk["id"], (chunk["name"], time.monotonic()))
            if chunk.get("error"):
                await self._fail(name, started, "", str(chunk["error"]))
            elif not chunk.get("interrupts"):
                seconds = round(time.monotonic() - started, 6)
                await action(name=name, id=chunk["id"], phase="end", runtime_s=seconds, **within)
        elif mode == "updates":
            for name, update in chunk.items():
                if not name.startswith("__"):
                    await result(node=name, update=fit(update), **within)
        elif mode == "custom":
            await action(value=fit(chunk), **within)
        elif not path:
            self.values = (
                {key: value for key, value in chunk.items() if key != "__interrupt__"}
                if isinstance(chunk, dict)
                else chunk
            )

    async def _fail(self, name: str, started: float, kind: str, message: str) -> None:
        seconds = round(time.monotonic() - started, 6)
        await emit("action-error", {"name": name, "type": kind, "message": message[:8000], "runtime_s": seconds})
