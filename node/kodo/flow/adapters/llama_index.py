"""LlamaIndex: workflows, wherever a flow runs one, and a workflow as a flow.

| in the workflow | becomes |
|---|---|
| a step starts | `task` |
| a step ends | `action` with `phase: "end"` and the name of the event that it gives |
| what a step writes to the stream | `action`: event and data; its `delta`s of text in pieces |
| a workflow fails | `action-error`: step and message |
| `InputRequiredEvent` | a lock: its answer goes back as a `HumanResponseEvent` |
| the workflow's result | the result of the run, when the workflow is the flow |

LlamaIndex's agents are workflows, too; what becomes of them is in `llama_index_agents`.

Where the flow's own code streams a workflow's events, it answers them itself. Time in which a workflow waits for a
person does not count for its timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import PydanticUndefined
from workflows import Workflow
from workflows.errors import WorkflowCancelledByUser
from workflows.events import (
    HumanResponseEvent,
    InputRequiredEvent,
    InternalDispatchEvent,
    StartEvent,
    StepState,
    StepStateChanged,
    StopEvent,
    WorkflowFailedEvent,
)
from workflows.handler import WorkflowHandler
from workflows.plugins.basic import InternalAsyncioAdapter

from kodo.flow.adapters.llama_index_agents import Agents, answer_of, is_agent
from kodo.flow.adapters.telling import MAX_TITLE, Deltas, Teller, prompt_of, prompt_schema
from kodo.flow.adapters.truncate import fit
from kodo.flow.locks import lock

__all__ = ["instrument", "run", "schema"]

_TITLES = ("prefix", "question", "prompt", "message", "title")


def run(workflow: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a workflow with inputs as its start event; give its result.

    Raises:
        Exception: whatever it raises.
    """
    return asyncio.run(_run(workflow, inputs))


def schema(workflow: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of a workflow's start event, when it has one of its own; a prompt of an agent."""
    if is_agent(workflow):
        return prompt_schema()
    start: Any = StartEvent if isinstance(workflow, type) else getattr(workflow, "start_event_class", StartEvent)
    if start is StartEvent or not start.model_fields:
        return None
    found: dict[str, Any] = start.model_json_schema()
    return {key: part for key, part in found.items() if key not in ("title", "description")}


async def _run(workflow: Any, inputs: Mapping[str, Any]) -> Any:
    if is_agent(workflow):
        return answer_of(await workflow.run(user_msg=prompt_of(inputs)))
    return await workflow.run(**inputs)


@contextlib.contextmanager
def instrument() -> Iterator[None]:
    """Report all workflows within the block, and ask people for them."""
    watched = _Watched(Teller())
    begin, stream, await_end = Workflow.run, WorkflowHandler.stream_events, WorkflowHandler.stop_event_result
    write, tell_time = InternalAsyncioAdapter.write_to_event_stream, InternalAsyncioAdapter.get_now

    @functools.wraps(begin)
    def run_and_watch(self: Any, *args: Any, **kwargs: Any) -> Any:
        handler = begin(self, *args, **kwargs)
        watched.handlers[handler.run_id] = (self, handler)
        return handler

    @functools.wraps(stream)
    def stream_and_note(self: Any, *args: Any, **kwargs: Any) -> Any:
        watched.streamed.add(self.run_id)
        return stream(self, *args, **kwargs)

    @functools.wraps(write)
    async def write_and_tell(self: Any, event: Any) -> None:
        watched.take(self.run_id, event)
        await write(self, event)

    @functools.wraps(tell_time)
    async def tell_own_time(self: Any) -> float:
        return float(await tell_time(self)) - watched.waited(self.run_id)

    @functools.wraps(await_end)
    async def await_end_or_error(self: Any) -> Any:
        try:
            return await await_end(self)
        except WorkflowCancelledByUser:
            if self.run_id in watched.failed:
                raise watched.failed[self.run_id] from None
            raise

    patches: list[tuple[Any, str, Any, Any]] = [
        (Workflow, "run", begin, run_and_watch),
        (WorkflowHandler, "stream_events", stream, stream_and_note),
        (WorkflowHandler, "stop_event_result", await_end, await_end_or_error),
        (InternalAsyncioAdapter, "write_to_event_stream", write, write_and_tell),
        (InternalAsyncioAdapter, "get_now", tell_time, tell_own_time),
    ]
    for owner, name, _, new in patches:
        setattr(owner, name, new)
    try:
        yield
    finally:
        for owner, name, old, _ in patches:
            setattr(owner, name, old)


class _Watched:
    """Turns events of workflows into events of the run."""

    def __init__(self, teller: Teller):
        self._teller = teller
        self._deltas = Deltas(teller)
        self._agents = Agents(teller, self._deltas)
        self._steps: dict[tuple[str, str, str], float] = {}
        self._ended: dict[str, dict[str, Any]] = {}  # by run: a step that gave nothing, and may have failed
        self._asking: set[asyncio.Task[None]] = set()
        self.handlers: dict[str, tuple[Any, Any]] = {}
        self.streamed: set[str] = set()
        self.failed: dict[str, Exception] = {}
        self._pauses: dict[str, tuple[int, float, float]] = {}  # open questions, since when, seconds before

    def waited(self, run_id: str) -> float:
        """Return the seconds for which a workflow has waited for people."""
        asked, since, before = self._pauses.get(run_id, (0, 0.0, 0.0))
        return before + (time.monotonic() - since if asked else 0.0)

    def _pause(self, run_id: str, change: int) -> None:
        asked = self._pauses.get(run_id, (0, 0.0, 0.0))[0]
        self._pauses[run_id] = (asked + change, time.monotonic(), self.waited(run_id))

    def take(self, run_id: str, event: Any) -> None:
        """Report one event, or ask what it asks."""
        workflow = self.handlers.get(run_id, (None,))[0]
        if is_agent(workflow) and (isinstance(event, StepStateChanged) or self._agents.take(run_id, workflow, event)):
            return
        ended = self._ended.pop(run_id, None)
        if ended is not None and not (isinstance(event, WorkflowFailedEvent) and event.step_name == ended["name"]):
            self._teller.say("action", **ended)
        if isinstance(event, StepStateChanged):
            self._step(run_id, event)
        elif isinstance(event, WorkflowFailedEvent):
            error = event.exception
            name, message = event.step_name, str(error)[:8000]
            self._teller.say("action-error", name=name, type=type(error).__name__, message=message)
        elif isinstance(event, StopEvent):
            self._deltas.flush()
            self.handlers.pop(run_id, None)
        elif isinstance(event, InputRequiredEvent) and run_id not in self.streamed and run_id in self.handlers:
            task = asyncio.get_running_loop().create_task(self._ask(run_id, event))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        elif not isinstance(event, (InternalDispatchEvent, InputRequiredEvent)):
            data = _data_of(event)
            if isinstance(delta := data.get("delta"), str):
                self._deltas.feed(delta, event=type(event).__name__)
            else:
                self._teller.say("action", event=type(event).__name__, data=data or None)

    def _step(self, run_id: str, event: Any) -> None:
        key = (run_id, event.name, event.worker_id)
        if event.step_state is StepState.RUNNING:
            self._steps[key] = time.monotonic()
            self._teller.say("task", name=event.name, input=_class_name(event.input_event_name))
        elif event.step_state is StepState.NOT_RUNNING and key in self._steps:
            self._deltas.flush()
            seconds = round(time.monotonic() - self._steps.pop(key), 6)
            output = _class_name(event.output_event_name)
            told = {"name": event.name, "phase": "end", "output": output, "runtime_s": seconds}
            if output is None:
                self._ended[run_id] = told
            else:
                self._teller.say("action", **told)

    async def _ask(self, run_id: str, event: Any) -> None:
        workflow, handler = self.handlers[run_id]
        self._pause(run_id, 1)
        try:
            data = _data_of(event)
            response = _response_of(workflow)
            title, form = _demand_of(self._teller, data, response)
            answer = await lock(title, form)
            given = answer if isinstance(answer, dict) else {"response": answer}
            handler.ctx.send_event(response(**{**data, **given}))
        except Exception as error:  # as an expired lock: the workflow would wait for ever
            self.failed[run_id] = error
            await handler.cancel_run()
        finally:
            self._pause(run_id, -1)


def _data_of(event: Any) -> dict[str, Any]:
    """Return an event's fields, those that it declares and any others."""
    return {**{name: getattr(event, name) for name in type(event).model_fields}, **dict(event.items())}


def _response_of(workflow: Any) -> Any:
    """Return the class of answers that a workflow's steps take."""
    taken = [
        kind
        for config in workflow._step_configs().values()
        for kind in config.accepted_events
        if isinstance(kind, type) and issubclass(kind, HumanResponseEvent)
    ]
    return taken[0] if len(set(taken)) == 1 else HumanResponseEvent


def _demand_of(teller: Teller, data: Mapping[str, Any], response: Any) -> tuple[str, dict[str, Any]]:
    """Return the title and form of what an event asks: the fields of its answer, or a text."""
    name = next((each for each in _TITLES if isinstance(data.get(each), str) and data[each].strip()), None)
    title = teller.safe(data[name].strip())[:MAX_TITLE] if name else "Input?"
    about = "\n".join(f"{key}: {fit(value)}" for key, value in data.items() if key != name)
    missing = [key for key in response.model_fields if key not in data]
    if missing:
        form = response.model_json_schema()
        form["properties"] = {key: part for key, part in form["properties"].items() if key in missing}
        needed = [key for key in missing if response.model_fields[key].default is PydanticUndefined]
        form = {**form, "required": [key for key in needed if key in form.get("required", ())]}
        form.pop("title", None)
    else:
        form = {"type": "string"}
    return title, {**form, **({"description": teller.safe(about)} if about else {})}


def _class_name(shown: str | None) -> str | None:
    """Return the bare name of an event's class, which comes as `<class 'module.Name'>`."""
    found = re.search(r"(\w+)\W*$", shown or "")
    return found[1] if found and found[1] not in ("None", "NoneType") else None
