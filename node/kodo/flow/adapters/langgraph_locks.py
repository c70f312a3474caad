"""What LangGraph asks people, as locks: values of `interrupt`, and calls of tools that are reviewed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any

from langgraph.types import Command, Interrupt
from pydantic import BaseModel, TypeAdapter

from kodo.flow.adapters.telling import MAX_TITLE, Teller, approval_of
from kodo.flow.adapters.truncate import fit
from kodo.flow.locks import lock

__all__ = ["answered"]

_TITLES = ("title", "question", "message", "description", "text")


async def answered(teller: Teller, interrupts: Iterable[Interrupt]) -> Command[Any]:
    """Ask people what a graph stopped for, all at once; gives what the graph goes on with.

    Raises:
        LockExpiredError: one was not answered in time.
    """
    async with asyncio.TaskGroup() as group:
        asked = {one.id: group.create_task(_ask(teller, one)) for one in interrupts}
    return Command(resume={key: answer.result() for key, answer in asked.items()})


def _demand_of(interrupt: Interrupt) -> tuple[str, dict[str, Any]]:
    """Return the title and the JSON Schema by which a human answers an interrupt.

    A value that is a map may say them itself, as `title` (or `question` …) and `schema`.
    """
    value = fit(interrupt.value)
    if not isinstance(value, dict):
        return str(value)[:MAX_TITLE] or "Go on?", {}
    title = next((value[name] for name in _TITLES if isinstance(value.get(name), str)), "Go on?")
    asked = interrupt.value.get("schema", getattr(interrupt, "response_schema", None))
    if isinstance(asked, type) and issubclass(asked, BaseModel):
        asked = asked.model_json_schema()
    form = dict(asked) if isinstance(asked, Mapping) else {}
    rest = {name: part for name, part in value.items() if part != title and name != "schema"}
    if rest and "description" not in form:
        form["description"] = json.dumps(rest, ensure_ascii=False, indent=1)
    return title[:MAX_TITLE], form


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
    title, form = _demand_of(interrupt)
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
