"""Pydantic AI: agents, wherever a flow runs one, and an agent as a flow.

| in the agent | becomes |
|---|---|
| an agent that runs | `agent`, once; `action` when it starts and ends |
| a request to its model | `action` with the model, its usage in the end |
| a tool that is called | `action` with the arguments and what it gives |
| one of these fails | `action-error` |
| a tool that needs approval | a lock: approve, edit the arguments, reject |
| a tool that is deferred otherwise | a lock: its answer is what the tool gives |
| the agent's output | the result of the run, when the agent is the flow |

An agent whose `output_type` has `DeferredToolRequests` handles them itself, unless it is the flow.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, ToolApproved, ToolDenied
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred

from kodo.flow.adapters.telling import MAX_TITLE, Teller, approval_of, prompt_of, prompt_schema
from kodo.flow.locks import lock

__all__ = ["instrument", "run", "schema"]

_is_flow: contextvars.ContextVar[bool] = contextvars.ContextVar("is_flow", default=False)


def run(agent: Any, inputs: Mapping[str, Any]) -> Any:
    """Run an agent with the prompt among some inputs; give its output.

    Raises:
        Exception: whatever it raises.
    """
    token = _is_flow.set(True)
    try:
        return asyncio.run(_run(agent, prompt_of(inputs)))
    finally:
        _is_flow.reset(token)


def schema(agent: Any) -> dict[str, Any]:
    """Return the form of an agent: a prompt."""
    return prompt_schema()


async def _run(agent: Any, prompt: str) -> Any:
    return (await agent.run(prompt)).output


@contextlib.contextmanager
def instrument() -> Iterator[None]:
    """Report all agents within the block, and ask people for them."""
    teller, original = Teller(), Agent.iter

    @functools.wraps(original)
    def iterate(self: Any, *args: Any, capabilities: Any = None, **kwargs: Any) -> Any:
        return original(self, *args, capabilities=[*(capabilities or ()), _Told(teller)], **kwargs)

    Agent.iter = iterate
    try:
        yield
    finally:
        Agent.iter = original


class _Told(AbstractCapability[Any]):  # type: ignore[misc]
    """Reports what one run of an agent does."""

    def __init__(self, teller: Teller):
        self._teller = teller

    async def wrap_run(self, ctx: Any, *, handler: Any) -> Any:
        name = getattr(ctx.agent, "name", None) or "agent"
        client = getattr(ctx.model, "client", None)
        self._teller.hide(getattr(client, "api_key", None))
        self._teller.announce("agent", name, model=_name_of(ctx.model))
        span = self._teller.span(name=name)
        with _failing(span):
            result = await handler()
        span.end(output=getattr(result, "output", None))
        return result

    async def wrap_model_request(self, ctx: Any, *, request_context: Any, handler: Any) -> Any:
        span = self._teller.span(model=_name_of(request_context.model), agent=getattr(ctx.agent, "name", None))
        with _failing(span):
            response = await handler(request_context)
        usage = response.usage
        span.end(usage={"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens})
        return response

    async def wrap_tool_execute(self, ctx: Any, *, call: Any, tool_def: Any, args: Any, handler: Any) -> Any:
        span = self._teller.span(tool=call.tool_name, arguments=args)
        with _failing(span):
            output = await handler(args)
        span.end(output=output)
        return output

    async def handle_deferred_tool_calls(self, ctx: Any, *, requests: Any) -> Any:
        if _handles_itself(ctx.agent) and not _is_flow.get():
            return None
        async with asyncio.TaskGroup() as group:
            approvals = {each.tool_call_id: group.create_task(self._approve(each)) for each in requests.approvals}
            calls = {each.tool_call_id: group.create_task(self._answer(each)) for each in requests.calls}
        return DeferredToolResults(
            approvals={key: task.result() for key, task in approvals.items()},
            calls={key: task.result() for key, task in calls.items()},
        )

    async def _approve(self, call: Any) -> Any:
        decision = await lock(*self._teller.safe(list(approval_of(call.tool_name, call.args_as_dict()))))
        match decision["decision"]:
            case "approve" | "edit":
                edited = decision.get("arguments")
                return ToolApproved(override_args=None if edited in (None, call.args_as_dict()) else edited)
            case _:
                return ToolDenied(decision["message"]) if decision.get("message") else ToolDenied()

    async def _answer(self, call: Any) -> Any:
        about = "\n".join(f"{name}: {value}" for name, value in call.args_as_dict().items())
        form = {"type": "string", "description": self._teller.safe(about)}
        return await lock(f"What does {call.tool_name} give?"[:MAX_TITLE], form)


def _handles_itself(agent: Any) -> bool:
    kinds = getattr(agent, "output_type", None)
    return DeferredToolRequests in (kinds if isinstance(kinds, (list, tuple)) else [kinds])


def _name_of(model: Any) -> str | None:
    name = getattr(model, "model_name", None)
    return str(name) if name else None


@contextlib.contextmanager
def _failing(span: Any) -> Iterator[None]:
    try:
        yield
    except (ApprovalRequired, CallDeferred):
        span.end(deferred=True)
        raise
    except Exception as error:
        span.fail(error)
        raise
