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
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Interrupt
from pydantic import BaseModel, TypeAdapter

from kodo.flow._runtime.context import fid
from kodo.flow.adapters.langgraph_threads import Threads, is_kept_in_memory
from kodo.flow.adapters.telling import MAX_TITLE, Deltas, Teller, approval_of
from kodo.flow.adapters.truncate import fit
from kodo.flow.locks import lock

__all__ = ["demand_of", "run", "schema"]

_TITLES = ("title", "question", "message", "description", "text")
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
    return asyncio.run(_run(_compiled(graph), dict(inputs)))


def schema(graph: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of a graph's input; None when its types have none."""
    try:
        graph = _compiled(graph)
        found: dict[str, Any] = graph.get_input_jsonschema()
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


def demand_of(interrupt: Interrupt) -> tuple[str, dict[str, Any]]:
    """Return the title and the JSON Schema by which a human answers an interrupt.

    A value that is a map may say them itself, as `title` (or `question` …) and `schema`.
    """
    value = fit(interrupt.value)
    if not isinstance(value, dict):
        return str(value)[:MAX_TITLE] or "Go on?", {}
    title = next((value[name] for name in _TITLES if isinstance(value.get(name), str)), "Go on?")
    asked = interrupt.value.get("schema", getattr(interrupt, "response_schema", None))
    if _is_model(asked):
        asked = asked.model_json_schema()
    form = dict(asked) if isinstance(asked, Mapping) else {}
    rest = {name: part for name, part in value.items() if part != title and name != "schema"}
    if rest and "description" not in form:
        form["description"] = json.dumps(rest, ensure_ascii=False, indent=1)
    return title[:MAX_TITLE], form


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
        graph = graph.copy(update={"checkpointer": InMemorySaver()})
    config["configurable"]["thread_id"] = thread or fid() or "kodo"
    watched = _Watched()
    for name in graph.nodes:
        if not name.startswith("__"):
            await watched.teller.say("agent", name=name, graph=graph.name)
    more = {} if context is None else {"context": context}
    while True:
        stream = graph.astream(given, config, stream_mode=_Watched.MODES, subgraphs=True, **more)
        await watched.follow(stream)
        state = await graph.aget_state(config)
        if state.interrupts:
            async with asyncio.TaskGroup() as group:
                asked = {one.id: group.create_task(_ask(watched.teller, one)) for one in state.interrupts}
            given = Command(resume={key: answer.result() for key, answer in asked.items()})
        elif state.next and await lock(f"Go on with {', '.join(state.next)}?"[:MAX_TITLE], bool):
            given = None
        else:
            return watched.values


def _split(graph: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any], Any]:
    """Return what of some inputs is the graph's input, its config and its context."""
    try:
        fields = set(graph.get_input_jsonschema().get("properties") or ())
        takes_map = graph.get_input_jsonschema().get("type") in ("object", None)
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


async def _ask(teller: Teller, interrupt: Interrupt) -> Any:
    value = interrupt.value
    if isinstance(value, dict) and value.get("action_requests") and "review_configs" in value:
        allowed = {config["action_name"]: config["allowed_decisions"] for config in value["review_configs"]}
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(_decide(teller, request, allowed.get(request["name"], ())))
                for request in value["action_requests"]
            ]
        return {"decisions": [each.result() for each in asked]}
    if isinstance(value, dict) and value.get("type") == "tool_approval":
        return await _decide(teller, value, _decisions_of(getattr(interrupt, "response_schema", None)))
    title, form = demand_of(interrupt)
    return await lock(teller.safe(title), teller.safe(form))


_DECISIONS = {"approve": "approve", "edit": "edit", "reject": "reject", "respond": "answer"}
"""Of `HumanInTheLoopMiddleware`, and how the lock's form calls them."""


def _decisions_of(schema: Any) -> list[str]:
    """Return which decisions a schema of answers has."""
    if schema is not None and not isinstance(schema, Mapping):
        schema = TypeAdapter(schema).json_schema()
    text = json.dumps(schema or {})
    return [name for name in _DECISIONS if f'"{name}"' in text]


async def _decide(teller: Teller, request: Mapping[str, Any], allowed: Iterable[str]) -> dict[str, Any]:
    """Ask a person about one call of a tool."""
    name, arguments = str(request["name"]), request.get("args") or {}
    names = [_DECISIONS[each] for each in allowed if each in _DECISIONS] or ["approve", "reject"]
    title, form = approval_of(name, arguments, about=str(request.get("description") or ""), decisions=tuple(names))
    given = await lock(teller.safe(title), teller.safe(form))
    edited = given.get("arguments")
    match given["decision"]:
        case "reject":
            return {"type": "reject", **({"message": given["message"]} if given.get("message") else {})}
        case "answer":
            return {"type": "respond", "message": given.get("message") or ""}
        case _ if edited not in (None, arguments, fit(arguments)) and "edit" in names:
            return {"type": "edit", "edited_action": {"name": name, "args": edited}}
        case _:
            return {"type": "approve"}


class _Watched:
    """Turns what a graph streams into events, and keeps its latest state."""

    MODES: ClassVar = ["tasks", "updates", "values", "custom", "messages"]

    def __init__(self) -> None:
        self.teller = Teller()
        self._deltas = Deltas(self.teller)
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
        finally:
            self._deltas.flush()

    async def _take(self, path: str, mode: str, chunk: Any) -> None:
        within = {"path": path} if path else {}
        if mode == "tasks" and "input" in chunk:
            self._open[chunk["id"]] = (chunk["name"], time.monotonic())
            await self.teller.say("task", name=chunk["name"], id=chunk["id"], input=chunk["input"], **within)
        elif mode == "tasks":
            self._deltas.flush()
            name, started = self._open.pop(chunk["id"], (chunk["name"], time.monotonic()))
            if chunk.get("error"):
                await self._fail(name, started, "", str(chunk["error"]))
            elif not chunk.get("interrupts"):
                seconds = round(time.monotonic() - started, 6)
                await self.teller.say("action", name=name, id=chunk["id"], phase="end", runtime_s=seconds, **within)
        elif mode == "updates":
            for name, update in chunk.items():
                if not name.startswith("__"):
                    await self.teller.say("result", node=name, update=update, **within)
        elif mode == "custom":
            await self.teller.say("action", value=chunk, **within)
        elif mode == "messages":
            message, about = chunk
            if type(message).__name__.endswith("Chunk") and (text := _text_of(message)):
                self._deltas.feed(text, node=str(about.get("langgraph_node", "")), **within)
        elif not path:
            self.values = (
                {key: value for key, value in chunk.items() if key != "__interrupt__"}
                if isinstance(chunk, dict)
                else chunk
            )

    async def _fail(self, name: str, started: float, kind: str, message: str) -> None:
        seconds = round(time.monotonic() - started, 6)
        await self.teller.say("action-error", name=name, type=kind, message=message[:8000], runtime_s=seconds)


def _text_of(message: Any) -> str:
    """Return the text of a piece of a message, which may be a list of blocks."""
    content = message.content
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))
