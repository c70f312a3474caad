"""LangGraph: a graph, compiled or not, as a flow.

| in the graph | becomes |
|---|---|
| its nodes | `agent`, once each at the start |
| a node starts | `task` with its `id` and input |
| a node ends or fails | `action` with `phase: "end"`, or `action-error` |
| a state update | `result`: node and update |
| what a node writes to its stream | `action` |
| text as a model writes it | `action` with `phase: "text"`, twice a second at most |
| `interrupt` | a lock; its answer is what `interrupt` gives back |
| `HumanInTheLoopMiddleware` | a lock for each call of a tool: approve, edit, reject, answer |
| a breakpoint (`interrupt_before`, `interrupt_after`) | a lock that asks whether to go on |
| the state in the end | the run's result |

A graph that was compiled without checkpointer gets one in memory, which interrupts need; with a `thread` among its
inputs it gets one on `memory.long`, and goes on where that thread's last run of the same principal ended. Inputs that
its state does not have make its config: `thread`, `recursion_limit`, `context` and `configurable`. Messages may be
given as one text, or as `{"role": "user", "content": …}`.

Nodes, updates and failures are told of any graph in the process, and its interrupts are asked: see `langgraph_watch`.
The rest of this table is of a graph that is a flow, or that a function returns.
"""

from __future__ import annotations

import asyncio
import json
import typing
from collections.abc import Mapping
from typing import Any, ClassVar

from langgraph.checkpoint.base import BaseCheckpointSaver
from pydantic import BaseModel, TypeAdapter

from kodo.flow._runtime.current import fid
from kodo.flow._runtime.form import of_this_python
from kodo.flow.adapters.langgraph_locks import answered
from kodo.flow.adapters.langgraph_threads import Threads, is_kept_in_memory
from kodo.flow.adapters.langgraph_watch import path_of, saver
from kodo.flow.adapters.telling import MAX_TITLE, Deltas, Teller
from kodo.flow.locks import lock

__all__ = ["run", "run_later", "schema"]

_CONFIG = ("thread", "recursion_limit", "context", "configurable")
_MESSAGES = "messages"
_ONLY = "input"
"""The input of a graph that takes no map, as of `@entrypoint def f(n: int)`."""


def run(graph: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a compiled graph to its end, in an event loop of its own; gives what its `invoke` would.

    Raises:
        LockExpiredError: an interrupt was not answered in time.
        Exception: whatever the graph raises.
    """
    return asyncio.run(run_later(graph, inputs))


async def run_later(graph: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a graph as `run`, in the event loop that there is.

    Raises:
        LockExpiredError: an interrupt was not answered in time.
        Exception: whatever the graph raises.
    """
    return await _run(_compiled(graph), dict(inputs))


def schema(graph: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of a graph's input; None when its types have none."""
    try:
        graph = _compiled(graph)
        found = _input_schema(graph)
    except Exception:  # types of the author's, which JSON Schema may not know
        return None
    if found.get("type") != "object":
        if not found.get("type") and not found.get("anyOf"):
            return None
        definitions = {"$defs": found.pop("$defs")} if "$defs" in found else {}
        one = {**found, "title": _ONLY.capitalize()}
        found = {"type": "object", "properties": {_ONLY: one}, "required": [_ONLY], **definitions}
    builder = getattr(graph, "builder", None)
    state = getattr(builder, "state_schema", None)
    if getattr(builder, "input_schema", None) is state and not _is_model(state):
        # A state's keys are what its nodes fill in: which of them are inputs, it does not say.
        found = {key: value for key, value in found.items() if key != "required"}
    found.pop("title", None)
    properties = dict(found.get("properties") or {})
    if _has_messages(graph):
        properties[_MESSAGES] = _MESSAGES_FORM
        if len(properties) == 1:
            found["required"] = [_MESSAGES]
    found["properties"] = {**properties, **_config_form(graph, properties)}
    if "$defs" in found and "$ref" not in json.dumps(found["properties"]):
        del found["$defs"]
    return found


_MESSAGES_FORM: dict[str, Any] = {
    "title": "Messages",
    "anyOf": [
        {"title": "Text", "type": "string", "format": "textarea"},
        {
            "title": "Messages",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "enum": ["user", "assistant", "system"]},
                    "content": {"type": "string"},
                },
                "required": ["role", "content"],
            },
        },
    ],
}


def _input_schema(graph: Any) -> dict[str, Any]:
    """Return the JSON Schema of a graph's input, also of a `typing.TypedDict` before Python 3.12.

    Raises:
        Exception: its types have none.
    """
    builder = getattr(graph, "builder", None)
    kind = getattr(builder, "input_schema", None) or getattr(builder, "state_schema", None)
    if typing.is_typeddict(kind) and (known := of_this_python(kind)) is not kind:
        return TypeAdapter(known).json_schema()
    found: dict[str, Any] = graph.get_input_jsonschema()
    return found


def _has_messages(graph: Any) -> bool:
    """Return whether the state of a graph has messages of LangChain's."""
    builder = getattr(graph, "builder", None)
    hints = getattr(getattr(builder, "input_schema", None) or getattr(builder, "state_schema", None), "__mro__", ())
    annotated: Any = next((vars(kind).get("__annotations__", {}) for kind in hints), {})
    return _MESSAGES in annotated and "essage" in str(annotated[_MESSAGES])


def _config_form(graph: Any, taken: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form of a graph's config, but for what its state has fields of the same name."""
    said = {
        "thread": {"title": "Thread", "type": "string", "description": "Go on with what was said under this name."},
        "recursion_limit": {"title": "Recursion limit", "type": "integer", "minimum": 1, "maximum": 100_000},
        "context": _context_form(graph),
        "configurable": {"title": "Configurable", "type": "object"},
    }
    return {name: part for name, part in said.items() if part and name not in taken}


def _context_form(graph: Any) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] | None = graph.get_context_jsonschema()
    except Exception:  # types of the author's
        return {"title": "Context", "type": "object"}
    if not found or "$defs" in found:  # references would not lead to where they stand then
        return {"title": "Context", "type": "object"} if found else None
    return {**found, "title": "Context"}


def _compiled(graph: Any) -> Any:
    """Compile a `StateGraph` that its author did not."""
    return graph if hasattr(graph, "astream") else graph.compile()


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


async def _run(graph: Any, inputs: dict[str, Any]) -> Any:
    given, config, context = _split(graph, inputs)
    thread = config["configurable"].get("thread_id")
    if thread and is_kept_in_memory(graph.checkpointer):
        delta = any(type(channel).__name__ == "DeltaChannel" for channel in graph.channels.values())
        graph = graph.copy(update={"checkpointer": Threads(latest=not delta)})
    elif not isinstance(graph.checkpointer, BaseCheckpointSaver):
        graph = graph.copy(update={"checkpointer": saver()})
    config["configurable"]["thread_id"] = thread or fid() or "kodo"
    watched = _Watched()
    more = {} if context is None else {"context": context}
    while True:
        await watched.follow(graph.astream(given, config, stream_mode=_Watched.MODES, subgraphs=True, **more))
        state = await graph.aget_state(config)
        if state.interrupts:
            given = await answered(watched.teller, state.interrupts)
        elif state.next and await lock(f"Go on with {', '.join(state.next)}?"[:MAX_TITLE], bool):
            given = None
        else:
            return watched.values


def _split(graph: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """Return what of some inputs is the graph's input, its config and its context."""
    try:
        found = _input_schema(graph)
        fields = set(found.get("properties") or ())
        takes_map = found.get("type") in ("object", None)
    except Exception:  # types of the author's, which JSON Schema may not know
        fields, takes_map = set(inputs), True
    said = {name: inputs[name] for name in _CONFIG if name in inputs and name not in fields}
    rest: Any = {name: value for name, value in inputs.items() if name not in said}
    if not takes_map and len(rest) == 1:
        rest = next(iter(rest.values()))
    elif isinstance(rest, dict) and isinstance(rest.get(_MESSAGES), str) and _has_messages(graph):
        rest[_MESSAGES] = [{"role": "user", "content": rest[_MESSAGES]}]
    config: dict[str, Any] = {"configurable": dict(said.get("configurable") or {})}
    if said.get("thread"):
        config["configurable"]["thread_id"] = str(said["thread"])
    if said.get("recursion_limit"):
        config["recursion_limit"] = int(said["recursion_limit"])
    return rest, config, said.get("context")


class _Watched:
    """Keeps the latest state of a graph that streams, and tells what its nodes and models write meanwhile."""

    MODES: ClassVar = ["values", "custom", "messages"]

    def __init__(self) -> None:
        self.teller = Teller()
        self._deltas = Deltas(self.teller)
        self.values: Any = None

    async def follow(self, chunks: Any) -> None:
        """Take all chunks of one pass."""
        try:
            async for path, mode, chunk in chunks:
                await self._take(path_of(path), mode, chunk)
        finally:
            self._deltas.flush()

    async def _take(self, path: str, mode: str, chunk: Any) -> None:
        within = {"path": path} if path else {}
        if mode == "custom":
            await self.teller.say("action", value=chunk, **within)
        elif mode == "messages":
            message, about = chunk
            if type(message).__name__.endswith("Chunk") and (text := _text_of(message)):
                self._deltas.feed(text, node=str(about.get("langgraph_node", "")), **within)
            else:
                self._deltas.flush()
        elif not path:
            self._deltas.flush()
            self.values = (
                {key: value for key, value in chunk.items() if key != "__interrupt__"}
                if isinstance(chunk, dict)
                else chunk
            )


def _text_of(message: Any) -> str:
    """Return the text of a piece of a message, which may be a list of blocks."""
    content = message.content
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
