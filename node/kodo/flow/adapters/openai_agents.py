"""OpenAI Agents: agents, wherever a flow runs one, and an agent as a flow.

| in the agent | becomes |
|---|---|
| an agent that runs | `agent`, once; `action` when it starts and ends |
| a request to its model | `action` with the model, its usage in the end |
| a tool that is called | `action` with the arguments and what it gives, once it has been approved |
| a handoff, a guardrail that stops the agent | `action` |
| one of these fails | `action-error` |
| a tool that needs approval | a lock: approve or reject |
| text as a streamed agent's model writes it | `action` with `phase: "text"`, twice a second at most |
| the agent's output | the result of the run, when the agent is the flow |

Traces are taken in this process, by a processor, and go to nobody else: the one that sends them to their maker stays
away, unless the flow's environment has turned traces on. Code that reads `interruptions` handles them itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from types import FrameType
from typing import Any

from agents import Runner, set_trace_processors, set_tracing_disabled
from agents.lifecycle import RunHooksBase
from agents.result import RunResultStreaming
from agents.run import AgentRunner
from agents.tracing import TracingProcessor, get_current_span, get_trace_provider

from kodo.flow.adapters.telling import Deltas, Span, Teller, approval_of, prompt_of, prompt_schema
from kodo.flow.locks import lock

__all__ = ["instrument", "run", "schema"]

_OFF = "OPENAI_AGENTS_DISABLE_TRACING"
_RESUME = "_kodo_resume"
"""Where a streamed result keeps how it goes on after an approval."""


def run(agent: Any, inputs: Mapping[str, Any]) -> Any:
    """Run an agent with the prompt among some inputs; give its output.

    Raises:
        Exception: whatever it raises.
    """
    return asyncio.run(_run(agent, prompt_of(inputs)))


def schema(agent: Any) -> dict[str, Any]:
    """Return the form of an agent: a prompt."""
    return prompt_schema()


async def _run(agent: Any, prompt: str) -> Any:
    return (await Runner.run(agent, prompt)).final_output


@contextlib.contextmanager
def instrument() -> Iterator[None]:
    """Report all agents within the block, and ask people for them."""
    teller = Teller()
    deltas = Deltas(teller)
    processor = _Processor(teller, deltas)
    quiet = os.environ.get(_OFF, "").lower() in ("1", "true")
    if quiet:
        set_trace_processors([processor])
        set_tracing_disabled(False)
    else:
        get_trace_provider().register_processor(processor)
    original = AgentRunner.run

    @functools.wraps(original)
    async def run_and_ask(self: Any, starting_agent: Any, input: Any, **kwargs: Any) -> Any:
        handled = _is_handled(sys._getframe(1))
        kwargs["hooks"] = _hooks(kwargs.get("hooks"), processor)
        result = await original(self, starting_agent, input, **kwargs)
        while result.interruptions and not handled:
            state = result.to_state()
            async with asyncio.TaskGroup() as group:
                for each in result.interruptions:
                    group.create_task(_decide(teller, state, each))
            result = await original(self, starting_agent, state, **kwargs)
        return result

    begin, stream = AgentRunner.run_streamed, RunResultStreaming.stream_events

    @functools.wraps(begin)
    def begin_and_note(self: Any, starting_agent: Any, input: Any, **kwargs: Any) -> Any:
        kwargs["hooks"] = _hooks(kwargs.get("hooks"), processor)
        result = begin(self, starting_agent, input, **kwargs)
        if not _is_handled(sys._getframe(1)):
            result.__dict__[_RESUME] = functools.partial(begin, self, starting_agent, **kwargs)
        return result

    @functools.wraps(stream)
    async def stream_and_ask(self: Any) -> AsyncIterator[Any]:
        try:
            async for event in stream(self):
                _feed(deltas, self.current_agent.name, event)
                yield event
        finally:
            deltas.flush()
        if self.interruptions and (resume := self.__dict__.get(_RESUME)) is not None:
            state = self.to_state()
            async with asyncio.TaskGroup() as group:
                for each in self.interruptions:
                    group.create_task(_decide(teller, state, each))
            further = resume(input=state)
            further.__dict__[_RESUME] = resume
            async for event in further.stream_events():
                yield event
            # Who holds the first result reads from it what came of it all.
            vars(self).update(vars(further))

    AgentRunner.run = run_and_ask
    AgentRunner.run_streamed = begin_and_note
    RunResultStreaming.stream_events = stream_and_ask
    try:
        yield
    finally:
        AgentRunner.run = original
        AgentRunner.run_streamed = begin
        RunResultStreaming.stream_events = stream
        processor.finish()
        if quiet:
            set_trace_processors([])
            set_tracing_disabled(True)


def _feed(deltas: Deltas, name: str, event: Any) -> None:
    """Take the text of a piece that a model wrote."""
    data: Any = getattr(event, "data", None)
    if getattr(data, "type", "") == "response.output_text.delta":
        deltas.feed(str(data.delta), name=name)


def _is_handled(frame: FrameType | None) -> bool:
    """Return whether code that waits for an agent reads `interruptions`: it decides about them itself."""
    while frame is not None:
        own = not frame.f_globals.get("__name__", "").startswith(("agents.", "kodo."))
        if own and "interruptions" in frame.f_code.co_names:
            return True
        frame = frame.f_back
    return False


async def _decide(teller: Teller, state: Any, item: Any) -> None:
    given = _read(getattr(item.raw_item, "arguments", None))
    tool = str(item.tool_name or "a tool")
    title, form = approval_of(tool, given, decisions=("approve", "reject"))
    decision = await lock(title, teller.safe(form))
    if decision["decision"] == "approve":
        state.approve(item)
    else:
        state.reject(item, rejection_message=decision.get("message") or None)


def _read(value: Any) -> Any:
    """Return the arguments of a tool as data where they are JSON."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


class _Hooks(RunHooksBase):  # type: ignore[misc]
    """Passes all on to the hooks of whoever runs an agent, and notes when a tool begins: by then it is approved."""

    def __init__(self, own: Any, processor: _Processor):
        self._own, self._processor = own, processor

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_") and name != "on_tool_start":
            return getattr(object.__getattribute__(self, "_own"), name)
        return object.__getattribute__(self, name)

    async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
        """Report that a tool begins."""
        self._processor.begin_tool(get_current_span())
        await self._own.on_tool_start(context, agent, tool)


def _hooks(own: Any, processor: _Processor) -> Any:
    """Return hooks that note when a tool begins; what is no hooks is given back, for the framework to refuse."""
    if own is not None and not isinstance(own, RunHooksBase):
        return own
    return own if isinstance(own, _Hooks) else _Hooks(own if own is not None else RunHooksBase(), processor)


class _Processor(TracingProcessor):  # type: ignore[misc]
    """Turns spans into events; called in any thread.

    An agent that waits for an approval ends, and is run anew when there is one: it is told as one. So is a tool
    that runs such an agent.
    """

    def __init__(self, teller: Teller, deltas: Deltas):
        self._teller, self._deltas = teller, deltas
        self._guard = threading.Lock()
        self._open: dict[str, Span] = {}
        self._parents: dict[str, str | None] = {}
        self._names: dict[str, str] = {}  # of agents, by their spans
        self._waits: set[str] = set()  # spans in which something waits for an approval
        self._paused: dict[str, list[Span]] = {}  # what goes on after it, by what it is
        self.active = True

    def on_trace_start(self, trace: Any) -> None:
        """Report nothing: an agent starts in it."""

    def on_trace_end(self, trace: Any) -> None:
        """Report nothing."""

    def on_span_start(self, span: Any) -> None:
        """Report what starts."""
        with self._guard:
            self._parents[span.span_id] = span.parent_id
        about = self._about(span.span_data)
        if not self.active or about is None or "tool" in about:
            return
        if "name" in about:
            self._teller.announce("agent", about["name"], handoffs=span.span_data.handoffs or None)
            with self._guard:
                self._names[span.span_id] = about["name"]
        else:
            about |= self._within(span.parent_id)
        self._begin(span.span_id, about)

    def _within(self, parent: str | None) -> dict[str, str]:
        """Return which agent a span belongs to."""
        with self._guard:
            while parent is not None and parent not in self._names:
                parent = self._parents.get(parent)
            return {"agent": self._names[parent]} if parent is not None else {}

    def begin_tool(self, span: Any) -> None:
        """Report that a tool starts: its span was there before, when it may have had to be approved."""
        if self.active and span is not None and span.span_data.type == "function":
            with self._guard:
                told = span.span_id in self._open
            if not told:
                self._begin(span.span_id, {"tool": span.span_data.name})

    def _begin(self, span_id: str, about: dict[str, Any]) -> None:
        with self._guard:
            paused = self._paused.get(str(about))
            opened = paused.pop() if paused else None
        opened = opened or self._teller.span(**about)
        with self._guard:
            self._open[span_id] = opened

    def on_span_end(self, span: Any) -> None:
        """Report how it ended."""
        data = span.span_data
        with self._guard:
            parent = self._parents.pop(span.span_id, None)
            self._names.pop(span.span_id, None)
        if not self.active:
            return
        if data.type in ("agent", "generation", "response"):
            self._deltas.flush()
        if data.type == "handoff":
            self._teller.say("action", handoff=data.to_agent, agent=data.from_agent)
        elif data.type == "guardrail" and data.triggered:
            self._teller.say("action", guardrail=data.name, triggered=True)
        with self._guard:
            opened = self._open.pop(span.span_id, None)
        if data.type == "function" and opened is None and (span.error or data.output is not None):
            opened = self._teller.span(tool=data.name)  # it was refused before it began
        if self._is_paused(span, parent, opened) or opened is None:
            return
        if span.error:
            about, why = str(span.error.get("message", "")), span.error.get("data") or {}
            said = why.get("error") if isinstance(why, dict) else None
            if data.type == "function" and isinstance(data.output, str):
                said = data.output  # what the model is told, where the error itself is left out
            opened.fail(f"{about}: {said}" if said else about, details=why or None)
        elif data.type == "function":
            opened.end(arguments=_read(data.input), output=data.output)
        elif data.type == "response":
            opened.end(
                model=getattr(data.response, "model", None), usage=_tokens(getattr(data.response, "usage", None))
            )
        elif data.type == "generation":
            opened.end(model=data.model, usage=_tokens(data.usage))
        else:
            opened.end()

    def _is_paused(self, span: Any, parent: str | None, opened: Span | None) -> bool:
        """Return whether a span ended because it waits for an approval, and keep it for when the run goes on."""
        data = span.span_data
        unbegun = data.type == "function" and opened is None
        with self._guard:
            if not unbegun and (span.span_id not in self._waits or span.error):
                return False
            self._waits.discard(span.span_id)
            if opened is not None:
                self._paused.setdefault(str(self._about(data)), []).append(opened)
            if parent is not None:
                self._waits.add(parent)
        return True

    def finish(self) -> None:
        """Report no more; what waits still has ended with the block."""
        with self._guard:
            paused, self._paused = self._paused, {}
        for opened in [each for group in paused.values() for each in group]:
            opened.end()
        self.active = False

    def shutdown(self) -> None:
        """Hold nothing back."""

    def force_flush(self) -> None:
        """Hold nothing back."""

    @staticmethod
    def _about(data: Any) -> dict[str, Any] | None:
        match data.type:
            case "agent":
                return {"name": data.name}
            case "function":
                return {"tool": data.name}
            case "generation" | "response":
                return {"model": getattr(data, "model", None) or "model"}
            case _:
                return None


def _tokens(usage: Any) -> dict[str, int] | None:
    if usage is None:
        return None
    get = usage.get if isinstance(usage, dict) else functools.partial(getattr, usage)
    found = {name: get(name, None) for name in ("input_tokens", "output_tokens")}
    told = {name: int(count) for name, count in found.items() if count is not None}
    return told if any(told.values()) else None  # a stream may have none
