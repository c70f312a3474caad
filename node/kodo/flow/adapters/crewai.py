"""crewAI: crews and crewAI flows, wherever a flow starts one, and one as a flow.

| in the crew | becomes |
|---|---|
| its agents and their tools | `agent` and `tool`, once each when the crew starts |
| a task starts | `task` |
| a task ends or fails | `result` or `result-error` |
| an agent, also by its own `kickoff`, or a method of a flow starts and ends | `action` with its `phase` |
| a tool is called, a model is asked | `action` with its `phase` |
| one of these fails, or a memory or knowledge does | `action-error` |
| a task with `human_input` has its answer | a lock: an empty text is content, any other goes back to the agent |
| a method of a flow has `@human_feedback`, or calls `self.ask` | a lock: its answer is what the human says |
| the crew's output | the run's result: its model or map when it has one, else its text |

What a crew remembers and knows is kept over runs (`crewai_memory`). The keys of the crew's models are cut out of
everything that is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from kodo.flow._runtime.kept_code import kept_text
from kodo.flow.adapters import is_crew_class
from kodo.flow.adapters.crew_names import names_in
from kodo.flow.adapters.telling import MAX_TITLE, Teller, prompt_of, prompt_schema
from kodo.flow.adapters.truncate import fit
from kodo.flow.locks import lock
from kodo.p2p.errors import KodoError

__all__ = ["CrewError", "Listener", "instrument", "run", "schema"]


_FLUSH_SECONDS = 5.0
"""For which what crewAI's own handlers do is waited for at the end."""


class CrewError(KodoError):
    """A crew failed, and what it said held a key of its model: said here without it."""


def run(crew: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a crew, crewAI flow or agent, or what one that streams has given, with a map of inputs to its end.

    Raises:
        CrewError: it failed, and said a key.
        Exception: whatever it raises.
    """
    if getattr(type(crew), "is_crew_class", False):
        crew = crew.crew()
    teller = Teller(_keys_of(crew))
    try:
        if _is_agent(crew):
            output = crew.kickoff(prompt_of(inputs))
        else:
            output = crew.kickoff(inputs=dict(inputs)) if hasattr(crew, "kickoff") else crew
        if inspect.isawaitable(output):
            output = asyncio.run(_wait(output))
        output = _streamed(output)
    except Exception as error:
        text = str(error)
        if teller.safe(text) == text:
            raise
        raise CrewError(f"{type(error).__name__}: {teller.safe(text)}") from None
    for name in ("pydantic", "json_dict", "raw"):
        value = getattr(output, name, None)
        if value is not None:
            return teller.safe(value) if isinstance(value, str) else value
    return output


def schema(crew: Any) -> dict[str, Any] | None:
    """Return the form of the inputs: the names in braces in the texts of a crew's agents and tasks, or of the files
    that a class with `@CrewBase` has them in; the state of a crewAI flow; the prompt of an agent.
    """
    if _is_agent(crew):
        return prompt_schema()
    if is_crew_class(crew):
        return _form_of_names(_names_in_files(crew))
    if isinstance(state := getattr(crew, "_initial_state_t", None), type) and issubclass(state, BaseModel):
        return _form_of_state(state)
    if inspect.isclass(crew) or not hasattr(crew, "tasks"):
        return None
    fetch = getattr(crew, "fetch_inputs", None)
    return _form_of_names(sorted(fetch()) if callable(fetch) else [])


def _form_of_names(names: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
    }


def _names_in_files(kind: Any) -> list[str]:
    """Return the names in braces in the YAML files of a class with `@CrewBase`, in the order in which they come."""
    import yaml

    texts: list[str] = []
    for name in ("original_agents_config_path", "original_tasks_config_path"):
        path = getattr(kind, name, None)
        if not isinstance(path, str):
            continue
        with contextlib.suppress(OSError, ValueError, yaml.YAMLError):  # making the crew will say what is wrong
            said = yaml.safe_load(kept_text(Path(kind.base_directory) / path))
            parts = said.values() if isinstance(said, dict) else ()
            texts += [text for part in parts if isinstance(part, dict) for text in map(str, part.values())]
    return names_in(texts)


def _form_of_state(state: type[BaseModel]) -> dict[str, Any]:
    """Return the form of a flow's state; crewAI sets its `id`."""
    found = state.model_json_schema()
    properties = {name: part for name, part in found.get("properties", {}).items() if name != "id"}
    required = [name for name in found.get("required", ()) if name != "id"]
    definitions = {"$defs": found["$defs"]} if "$defs" in found else {}
    return {"type": "object", "properties": properties, "required": required, **definitions}


def _is_agent(target: Any) -> bool:
    return any(base.__name__ == "BaseAgent" for base in type(target).__mro__)


async def _wait(output: Any) -> Any:
    return await output


def _streamed(output: Any) -> Any:
    """Run one with `stream=True` to its end: it runs only while its pieces are taken."""
    if not any(base.__name__ == "StreamingOutputBase" for base in type(output).__mro__):
        return output
    if hasattr(output, "is_completed") and output.is_completed:
        return output.result
    for _ in output:
        pass
    return output.result


@contextlib.contextmanager
def instrument() -> Iterator[None]:
    """Report all crews and crewAI flows within the block, and ask people for them."""
    from kodo.flow.adapters.crewai_memory import kept_over_runs

    listener = Listener()
    with listener.listening(), _asking(_Human(listener)), _without_panels(), kept_over_runs():
        yield


class Listener(Teller):
    """Turns what happens on crewAI's event bus into events."""

    def __init__(self, keys: frozenset[str] = frozenset()):
        super().__init__(keys)
        self._asked: Counter[tuple[Any, Any]] = Counter()  # requests that are under way, by model and agent

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen for as long as the block lasts.

        The bus calls its handlers in threads, in any order; so what is emitted is taken on its way in.
        """
        from crewai.events import crewai_event_bus

        from kodo.flow.adapters.crewai_memory import take_memory_of

        original = crewai_event_bus.emit

        def emit_and_tell(source: Any, event: Any, *rest: Any, **more: Any) -> Any:
            if event.type in ("crew_kickoff_started", "lite_agent_execution_started"):
                take_memory_of(source)
                self.hide(*_keys_of(source))
                self.introduce(source)
            self.tell(event)
            return original(source, event, *rest, **more)

        vars(crewai_event_bus)["emit"] = emit_and_tell
        try:
            yield
        finally:
            vars(crewai_event_bus).pop("emit", None)

    def introduce(self, crew: Any) -> None:
        """Report who takes part."""
        for agent in _agents_of(crew):
            model = getattr(getattr(agent, "llm", None), "model", None)
            self.announce("agent", agent.role, goal=agent.goal, backstory=agent.backstory, model=model)
            for tool in getattr(agent, "tools", None) or []:
                self.announce("tool", tool.name, description=getattr(tool, "description", None), agent=agent.role)

    def tell(self, event: Any) -> None:
        """Take one event of the bus; one of a kind that is not known here is passed over."""
        kind, about = event.type, _About(event)
        match kind:
            case "task_started":
                task = event.task
                self.say(
                    "task",
                    name=about.task,
                    description=getattr(task, "description", None),
                    expected_output=getattr(task, "expected_output", None),
                    agent=about.agent,
                )
            case "task_completed":
                self.say("result", task=about.task, agent=about.agent, text=event.output.raw)
            case "task_failed":
                self.say("result-error", task=about.task, agent=about.agent, message=event.error)
            case "crew_kickoff_failed":
                self.say("result-error", crew=event.crew_name, message=event.error)
            case "agent_execution_started":
                self.say("action", name=about.agent, phase="start", task=about.task)
            case "agent_execution_completed":
                output = None if about.task else event.output  # the task's result has it
                self.say("action", name=about.agent, phase="end", task=about.task, output=output)
            case "agent_execution_error":
                self.say("action-error", name=about.agent, task=about.task, message=event.error)
            case "lite_agent_execution_started":
                self.say("action", name=event.agent_info.get("role"), phase="start")
            case "lite_agent_execution_completed":
                self.say("action", name=event.agent_info.get("role"), phase="end", output=event.output)
            case "lite_agent_execution_error":
                self.say("action-error", name=event.agent_info.get("role"), message=event.error)
            case "memory_save_failed" | "memory_query_failed" | "memory_retrieval_failed":
                self.say("action-error", name="memory", agent=about.agent, message=event.error)
            case "knowledge_query_failed" | "knowledge_search_query_failed":
                self.say("action-error", name="knowledge", agent=about.agent, message=event.error)
            case "tool_usage_started":
                self.say("action", tool=event.tool_name, phase="start", agent=about.agent, arguments=event.tool_args)
            case "tool_usage_finished":
                self.say("action", tool=event.tool_name, phase="end", agent=about.agent, output=event.output)
            case "tool_usage_error" | "tool_validate_input_error" | "tool_selection_error" | "tool_execution_error":
                self.say("action-error", tool=event.tool_name, agent=about.agent, message=str(event.error))
            case "llm_call_started":
                self._asked[event.model, about.agent] += 1
                self.say("action", model=event.model, phase="start", agent=about.agent)
            case "llm_call_completed":
                self._asked[event.model, about.agent] -= 1
                self.say("action", model=event.model, phase="end", agent=about.agent, usage=event.usage)
            case "llm_call_failed" if self._asked[event.model, about.agent] > 0:  # one failure is told several times
                self._asked[event.model, about.agent] -= 1
                self.say("action-error", model=event.model, agent=about.agent, message=event.error)
            case "method_execution_started":
                self.say("task", name=event.method_name, flow=event.flow_name)
            case "method_execution_finished":
                self.say("result", task=event.method_name, flow=event.flow_name, value=event.result)
            case "method_execution_failed":
                self.say("result-error", task=event.method_name, flow=event.flow_name, message=str(event.error))


@contextlib.contextmanager
def _without_panels() -> Iterator[None]:
    """Keep crewAI from drawing boxes around what it does: events have all that is in them."""
    from crewai.events import crewai_event_bus
    from crewai.events.event_listener import event_listener

    console = event_listener.formatter.console
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        crewai_event_bus.flush(timeout=_FLUSH_SECONDS)  # they are drawn in threads
        console.quiet = before


@contextlib.contextmanager
def _asking(human: _Human) -> Iterator[None]:
    """Make crews and flows ask their humans by locks, unless their author chose how they ask."""
    from crewai.core.providers.human_input import SyncHumanInputProvider, get_provider, reset_provider, set_provider
    from crewai.flow.flow_config import flow_config

    with contextlib.ExitStack() as stack:
        if type(get_provider()) is SyncHumanInputProvider:
            stack.callback(reset_provider, set_provider(human))
        for name in ("hitl_provider", "input_provider"):
            if getattr(flow_config, name) is None:
                setattr(flow_config, name, human)
                stack.callback(setattr, flow_config, name, None)
        yield


class _Human:
    """What crewAI asks humans by, for tasks, `@human_feedback` and `Flow.ask`: a lock.

    crewAI's own reads the terminal, which a runner has not.
    """

    def __init__(self, listener: Listener):
        self._listener = listener

    def request_feedback(self, context: Any, flow: Any) -> str:
        """Return what a human says of what a method with `@human_feedback` gave."""
        output = context.method_output
        shown = output if isinstance(output, str) else json.dumps(fit(output), ensure_ascii=False, indent=1)
        choice = f"\n\nIt is read as one of: {', '.join(context.emit)}." if context.emit else ""
        form = {"type": "string", "description": f"{fit(self._listener.safe(shown))}{choice}"}
        return self._ask(context.message, form)

    def request_input(self, message: str, flow: Any, metadata: dict[str, Any] | None = None) -> str:
        """Return what a human answers to a flow's `ask`."""
        return self._ask(message, {"type": "string"})

    def _ask(self, question: str, form: dict[str, Any]) -> str:
        # A thread may run an event loop here, in which a lock has to be awaited.
        with ThreadPoolExecutor(1) as apart:
            title = self._listener.safe(str(question))[:MAX_TITLE]
            return str(apart.submit(lock, title, form).result())

    def setup_messages(self, context: Any) -> bool:
        """Leave it to crewAI."""
        return False

    def post_setup_messages(self, context: Any) -> None:
        """Leave it to crewAI."""

    def handle_feedback(self, formatted_answer: Any, context: Any) -> Any:
        """Return the agent's answer when the human is content with it."""
        while context.ask_for_human_input:
            feedback = self._ask(*self._demand(formatted_answer, context))
            if self._take(feedback, context):
                formatted_answer = context._invoke_loop()
        return formatted_answer

    async def handle_feedback_async(self, formatted_answer: Any, context: Any) -> Any:
        """Return the agent's answer when the human is content with it."""
        while context.ask_for_human_input:
            feedback = await asyncio.to_thread(self._ask, *self._demand(formatted_answer, context))
            if self._take(feedback, context):
                formatted_answer = await context._ainvoke_loop()
        return formatted_answer

    def _demand(self, answer: Any, context: Any) -> tuple[str, dict[str, Any]]:
        task = context.task
        name = getattr(task, "name", None) or getattr(task, "description", None) or "the answer"
        output = answer.output
        text = output if isinstance(output, str) else output.model_dump_json()
        shown = self._listener.safe(text)
        form = {"type": "string", "description": f"What should be better? Empty: nothing.\n\n{fit(shown)}"}
        return f"Feedback on {name.rstrip(' .!?')}?", form

    @staticmethod
    def _take(feedback: str, context: Any) -> bool:
        """Hand feedback to the agent; gives whether there is any."""
        context.ask_for_human_input = bool(feedback.strip())
        if context.ask_for_human_input:
            context.messages.append(context._format_feedback_message(feedback))
        return bool(context.ask_for_human_input)


class _About:
    """Whom and what an event of the bus is about: it says so in one of several ways."""

    def __init__(self, event: Any):
        task = getattr(event, "task", None) or getattr(event, "from_task", None)
        agent = getattr(event, "agent", None) or getattr(event, "from_agent", None) or getattr(task, "agent", None)
        self.task = getattr(task, "name", None) or getattr(task, "description", None) or event.task_name
        self.agent = getattr(agent, "role", None) or event.agent_role


def _agents_of(crew: Any) -> list[Any]:
    """Return the agents of a crew; an agent is its own."""
    return list(getattr(crew, "agents", None) or ([crew] if _is_agent(crew) else []))


def _keys_of(crew: Any) -> frozenset[str]:
    """Return the keys of a crew's models."""
    found = set()
    for agent in _agents_of(crew):
        for model in (getattr(agent, "llm", None), getattr(agent, "function_calling_llm", None)):
            key = getattr(model, "api_key", None)
            found.add(str(getattr(key, "get_secret_value", lambda key=key: key or "")()))
    return frozenset(found)
