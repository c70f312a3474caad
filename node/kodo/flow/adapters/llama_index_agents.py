"""LlamaIndex's own agents, which are workflows: told as agents, not by their inner steps. Knows no class of theirs.

| in the agent | becomes |
|---|---|
| an agent that takes part | `agent`, once, with its model |
| a request to its model | `action` with the model and the agent |
| a tool that is called | `action` with the arguments and what it gives, or `action-error` |
| text as the model writes it | `action` with `phase: "text"` |
| what the agent answers | the result of the run, when the agent is the flow |
"""

from __future__ import annotations

from typing import Any

from kodo.flow.adapters.telling import Deltas, Span, Teller

__all__ = ["Agents", "answer_of", "is_agent"]


def is_agent(workflow: Any) -> bool:
    """Return whether a workflow is one of LlamaIndex's agents, or several of them."""
    names = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(workflow).__mro__}
    return bool(names & {"llama_index.AgentWorkflow", "llama_index.BaseWorkflowAgent"})


def answer_of(output: Any) -> Any:
    """Return what an agent answers: a map where it was asked for one, else its text; anything else as it is."""
    if type(output).__name__ != "AgentOutput" or not hasattr(output, "structured_response"):
        return output
    return output.structured_response or str(output)


class Agents:
    """Turns the events that agents write into events of the run."""

    def __init__(self, teller: Teller, deltas: Deltas):
        self._teller, self._deltas = teller, deltas
        self._requests: dict[tuple[str, str], Span] = {}
        self._calls: dict[tuple[str, str], Span] = {}

    def take(self, run_id: str, workflow: Any, event: Any) -> bool:
        """Report one event; return whether it was an agent's."""
        match type(event).__name__:
            case "AgentInput":
                name = event.current_agent_name
                model = _model_of(workflow, name)
                self._teller.announce("agent", name, model=model)
                self._requests[run_id, name] = self._teller.span(model=model or "model", agent=name)
            case "AgentOutput":
                self._deltas.flush()
                if span := self._requests.pop((run_id, event.current_agent_name), None):
                    span.end()
            case "AgentStream":
                self._deltas.feed(event.delta, name=event.current_agent_name)
            case "ToolCall":
                span = self._teller.span(tool=event.tool_name, arguments=event.tool_kwargs)
                self._calls[run_id, event.tool_id] = span
            case "ToolCallResult":
                if span := self._calls.pop((run_id, event.tool_id), None):
                    output = event.tool_output
                    if output.is_error:
                        span.fail(str(output.content))
                    else:
                        span.end(output=output.content)
            case "AgentSetup":
                pass
            case _:
                return False
        return True


def _model_of(workflow: Any, name: str) -> str | None:
    agents = getattr(workflow, "agents", None)
    agent = agents.get(name, workflow) if isinstance(agents, dict) else workflow
    name_of_model = getattr(getattr(getattr(agent, "llm", None), "metadata", None), "model_name", None)
    return str(name_of_model) if name_of_model not in (None, "unknown") else None
