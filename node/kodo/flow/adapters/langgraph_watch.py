"""LangGraph graphs, wherever a flow runs one: what they do is told, and what they ask is asked by locks.

Each pass of a graph, and of the graphs within it, is a `PregelLoop`, which says what it does whether or not somebody
streams that. `invoke` and `ainvoke` of the outermost graph ask people what it stopped for, and go on, as often as it
stops; code that handles interrupts itself, or that streams, is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from langchain_core.runnables.config import ensure_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.pregel import Pregel
from langgraph.pregel._loop import PregelLoop

from kodo.flow.adapters.langgraph_locks import answered
from kodo.flow.adapters.telling import Teller

__all__ = ["instrument", "path_of", "saver"]

_INTERRUPT = "__interrupt__"
_TASK_ID = "__pregel_task_id"
_HANDLES = frozenset([_INTERRUPT, "interrupts", "Command"])
_LIBRARIES = ("langgraph.", "langchain_core.", "kodo.")
_MAX_TASKS = 10_000
"""Tasks whose start is remembered; of more than these at once the oldest end without their time."""


@contextlib.contextmanager
def instrument() -> Iterator[None]:
    """Report all graphs within the block, and ask people for those that are invoked."""
    watched = _Watched()
    say, stream, astream = PregelLoop._emit, Pregel.stream, Pregel.astream
    invoke, ainvoke = Pregel.invoke, Pregel.ainvoke

    @functools.wraps(say)
    def say_and_tell(self: Any, mode: Any, values: Any, *args: Any, **kwargs: Any) -> None:
        if mode in ("tasks", "updates"):
            for chunk in values(*args, **kwargs):
                watched.take(path_of(self.checkpoint_ns), mode, chunk)
        say(self, mode, values, *args, **kwargs)

    @functools.wraps(stream)
    def stream_and_tell(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        watched.introduce(self, config)
        return stream(self, input, config, **kwargs)

    @functools.wraps(astream)
    def astream_and_tell(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        watched.introduce(self, config)
        return astream(self, input, config, **kwargs)

    @functools.wraps(invoke)
    def invoke_and_ask(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        if not _is_asked_for(config, kwargs, sys._getframe(1)):
            return invoke(self, input, config, **kwargs)
        graph, config, kwargs = _with_saver(self, config, kwargs)
        while True:
            output = invoke(graph, input, config, **kwargs)
            if not (asked := _interrupts_of(output)):
                return output
            # A thread may run an event loop here, in which a lock has to be awaited.
            with ThreadPoolExecutor(1) as apart:
                input = apart.submit(asyncio.run, answered(watched.teller, asked)).result()

    @functools.wraps(ainvoke)
    async def ainvoke_and_ask(self: Any, input: Any, config: Any = None, **kwargs: Any) -> Any:
        if not _is_asked_for(config, kwargs, sys._getframe(1)):
            return await ainvoke(self, input, config, **kwargs)
        graph, config, kwargs = _with_saver(self, config, kwargs)
        while True:
            output = await ainvoke(graph, input, config, **kwargs)
            if not (asked := _interrupts_of(output)):
                return output
            input = await answered(watched.teller, asked)

    patches: list[tuple[Any, str, Any, Any]] = [
        (PregelLoop, "_emit", say, say_and_tell),
        (Pregel, "stream", stream, stream_and_tell),
        (Pregel, "astream", astream, astream_and_tell),
        (Pregel, "invoke", invoke, invoke_and_ask),
        (Pregel, "ainvoke", ainvoke, ainvoke_and_ask),
    ]
    for owner, name, _, new in patches:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old, _ in patches:
            setattr(owner, name, old)


def path_of(namespace: tuple[str, ...]) -> str:
    """Return where a graph within another one is: the names of the nodes that lead to it."""
    return "/".join(part.partition(":")[0] for part in namespace if part)


def saver() -> InMemorySaver:
    """Return a checkpointer for one run, which takes any state, as a graph without one does."""
    return InMemorySaver(serde=_AnyState())


class _AnyState(JsonPlusSerializer):
    """Keeps what cannot be written as bytes, such as a connection, as it is."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Any] = []

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Return a kind and bytes."""
        try:
            return super().dumps_typed(obj)
        except Exception:  # of whatever the state holds
            self._kept.append(obj)
            return "kept", str(len(self._kept) - 1).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Return what these are of."""
        return self._kept[int(data[1])] if data[0] == "kept" else super().loads_typed(data)


def _is_nested(config: Any) -> bool:
    return _TASK_ID in ensure_config(config).get("configurable", {})


def _is_asked_for(config: Any, options: Mapping[str, Any], caller: FrameType | None) -> bool:
    """Return whether people are asked for an invoked graph: it is the outermost, and its caller does not do so."""
    return options.get("stream_mode", "values") == "values" and not _is_nested(config) and not _is_handled(caller)


def _is_handled(frame: FrameType | None) -> bool:
    """Return whether code that waits for a graph names what it takes to handle interrupts."""
    while frame is not None:
        code = frame.f_code
        own = not f"{frame.f_globals.get('__name__', '')}.".startswith(_LIBRARIES)
        if own and not _HANDLES.isdisjoint([*code.co_names, *(x for x in code.co_consts if isinstance(x, str))]):
            return True
        frame = frame.f_back
    return False


def _with_saver(graph: Any, config: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """Return a graph with a checkpointer, without which it could not go on, and how it is invoked then."""
    if isinstance(graph.checkpointer, BaseCheckpointSaver) or graph.checkpointer is False:
        return graph, config, options
    graph = graph.copy(update={"checkpointer": saver()})
    configurable = {"thread_id": uuid.uuid4().hex, **((config or {}).get("configurable") or {})}
    return graph, {**(config or {}), "configurable": configurable}, {"durability": "exit", **options}


def _interrupts_of(output: Any) -> list[Any]:
    found = output.get(_INTERRUPT) if isinstance(output, dict) else getattr(output, "interrupts", None)
    return list(found or ())


class _Watched:
    """Turns what graphs do into events. Called in any thread."""

    def __init__(self) -> None:
        self.teller = Teller()
        self._open: dict[str, float] = {}  # of tasks: when they started

    def introduce(self, graph: Any, config: Any) -> None:
        """Report who takes part in an outermost graph."""
        if not _is_nested(config):
            for name in graph.nodes:
                if not name.startswith("__"):
                    self.teller.announce("agent", name, graph=graph.get_name())

    def take(self, path: str, mode: str, chunk: Any) -> None:
        """Report one thing that a graph does."""
        within = {"path": path} if path else {}
        if mode == "updates":
            for name, update in chunk.items():
                if not name.startswith("__"):
                    self.teller.say("result", node=name, update=update, **within)
        elif "input" in chunk:
            self._open[chunk["id"]] = time.monotonic()
            if len(self._open) > _MAX_TASKS:
                self._open.pop(next(iter(self._open)))
            self.teller.say("task", name=chunk["name"], id=chunk["id"], input=chunk["input"], **within)
        else:
            self._end(chunk, within)

    def _end(self, chunk: Any, within: Mapping[str, Any]) -> None:
        started = self._open.pop(chunk["id"], None)
        time_taken = {} if started is None else {"runtime_s": round(time.monotonic() - started, 6)}
        about = {"name": chunk["name"], "id": chunk["id"], **time_taken, **within}
        error = chunk.get("error")
        if isinstance(error, BaseException):
            self.teller.say("action-error", type=type(error).__name__, message=str(error)[:8000], **about)
        elif error:
            self.teller.say("action-error", message=str(error)[:8000], **about)
        elif not chunk.get("interrupts"):
            self.teller.say("action", phase="end", **about)
