"""Runs as tasks, for hosts that declare the extension: with the package's own client and its extensions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import TypeAdapter

from tests.integration.mcp.conftest import Bridge, BridgeNode, bridge
from tests.support.koco import koco_json

MODERN = "2026-07-28"
TASKS = "io.modelcontextprotocol/tasks"
ANY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])
YES = {"approved": True, "why": "fine"}


class TaskParams(RequestParams):
    task_id: str
    input_responses: dict[str, Any] | None = None


async def ask(session: Any, method: str, task: str, **more: Any) -> dict[str, Any]:
    """Make a request of the extension."""
    request = Request[TaskParams, str](method=method, params=TaskParams(task_id=task, **more))
    answer: dict[str, Any] = await session.send_request(request, ANY)
    return answer


class Made(Result):
    """A task that was made."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    created_at: str
    last_updated_at: str
    ttl_ms: int | None
    poll_interval_ms: int | None = None


class Tasks(ClientExtension):
    """What a host does with tasks: it follows them, and has a person answer what they ask."""

    identifier = TASKS

    def __init__(self, answer: Callable[[str, Any], Awaitable[Any]] | None = None) -> None:
        self.made: list[Made] = []
        self.keys: list[str] = []
        self._answer = answer

    def claims(self) -> Sequence[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Made, resolve=self._resolve)]

    async def _resolve(self, made: Made, context: ClaimContext) -> CallToolResult:
        self.made.append(made)
        while True:
            task = await ask(context.session, "tasks/get", made.task_id)
            if task["status"] == "completed":
                return CallToolResult.model_validate(task["result"])
            assert task["status"] in ("working", "input_required"), task
            for key, request in task.get("inputRequests", {}).items():
                if key not in self.keys and self._answer is not None:
                    self.keys.append(key)
                    reply = await self._answer(key, request["params"])
                    await ask(context.session, "tasks/update", made.task_id, input_responses={key: reply})
            await asyncio.sleep(0.1)


async def no_person(context: Any, params: Any) -> Any:
    raise AssertionError("tasks bring their questions themselves")


def accept(content: dict[str, Any]) -> dict[str, Any]:
    return {"action": "accept", "content": content}


async def test_a_launch_is_a_task_that_is_a_run(shared_node: BridgeNode, tmp_path: Path) -> None:
    tasks = Tasks()
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path, extensions=[tasks]) as here:
        done = await here.tool("greet", name="Ada")
        assert done.structured_content["result"] == "# Hello Ada"
        [made] = tasks.made
        assert made.task_id == done.structured_content["run"]
        assert made.status == "working"
        assert made.ttl_ms is None
        [state] = koco_json(shared_node.home, "state", made.task_id, "--no-lan")
        assert state["state"] == "done"
        stray = await here.tool("stray", keep=False)  # not what its hint says, so by another name
        assert stray.structured_content["other_result"] == {"approved": "perhaps"}
        failed = await here.tool("fail", message="too bad")
        assert failed.is_error
        assert failed.structured_content["error"]["message"] == "too bad"


async def test_a_task_is_answered_with_new_keys_after_each_answer(shared_node: BridgeNode, tmp_path: Path) -> None:
    messages: list[str] = []
    replies = [accept({"approved": True, "why": ""}), accept({"approved": "no truth"}), accept(YES)]

    async def answer(key: str, params: Any) -> Any:
        messages.append(params["message"])
        return replies.pop(0)

    tasks = Tasks(answer)
    options: dict[str, Any] = {"extensions": [tasks], "elicitation_callback": no_person}
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path, **options) as here:
        done = await asyncio.wait_for(here.tool("approve", topic="bikes"), 60)
        assert done.structured_content["result"]["why"] == "fine"
    assert len(set(tasks.keys)) == 3
    assert "say why you approve" in messages[1]
    assert "did not take the latest answer" in messages[2]


async def made(here: Bridge, name: str, **arguments: Any) -> str:
    """Launch a flow, and return its task's id at once."""
    answer: Any = await here.client.session.call_tool(
        here.named(name), arguments, allow_claimed=True, allow_input_required=True
    )
    assert isinstance(answer, Made), answer
    return answer.task_id


async def test_a_task_survives_its_bridge_and_is_cancelled_by_another(
    shared_node: BridgeNode, tmp_path: Path
) -> None:
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path, extensions=[Tasks()]) as here:
        task = await made(here, "wait", seconds=600)
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path, extensions=[Tasks()]) as here:
        session = here.client.session
        assert (await ask(session, "tasks/get", task))["status"] == "working"
        assert (await ask(session, "tasks/cancel", task))["resultType"] == "complete"
        assert (await ask(session, "tasks/get", task))["status"] == "cancelled"
        assert (await ask(session, "tasks/cancel", task))["resultType"] == "complete"  # it is over already


async def test_a_declined_question_of_a_task_stays_open(shared_node: BridgeNode, tmp_path: Path) -> None:
    options: dict[str, Any] = {"extensions": [Tasks()], "elicitation_callback": no_person}
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path, **options) as here:
        task = await made(here, "approve", topic="bikes")
        session = here.client.session
        state = await ask(session, "tasks/get", task)
        while state["status"] == "working":
            await asyncio.sleep(0.1)
            state = await ask(session, "tasks/get", task)
        [key] = state["inputRequests"]
        await ask(session, "tasks/update", task, input_responses={key: {"action": "decline"}, "stray": accept(YES)})
        assert list((await ask(session, "tasks/get", task))["inputRequests"]) == [key]
        await ask(session, "tasks/update", task, input_responses={key: accept(YES)})
        await ask(session, "tasks/update", task, input_responses={key: accept({"approved": False})})
        state = await ask(session, "tasks/get", task)
        while state["status"] == "working":
            await asyncio.sleep(0.1)
            state = await ask(session, "tasks/get", task)
        assert state["result"]["structuredContent"]["result"]["approved"] is True


async def test_who_did_not_declare_tasks_gets_none(shared_node: BridgeNode, tmp_path: Path) -> None:
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path) as here:
        done = await here.tool("greet", name="Ada")
        with pytest.raises(MCPError) as refused:
            await ask(here.client.session, "tasks/get", done.structured_content["run"])
        assert refused.value.error.code == -32021
    async with bridge(shared_node.home, mode="legacy", tmp=tmp_path, extensions=[Tasks()]) as here:
        done = await here.tool("greet", name="Ada")
        assert done.structured_content["state"] == "done"


@pytest.mark.parametrize("task", ["", "x", "12D3KooWx/y", "01arz3ndektsv4rrffq69g5fav", "x" * 10_000])
async def test_what_is_no_task_is_refused(shared_node: BridgeNode, task: str, tmp_path: Path) -> None:
    async with bridge(shared_node.home, mode=MODERN, tmp=tmp_path, extensions=[Tasks()]) as here:
        for method in ("tasks/get", "tasks/cancel"):
            with pytest.raises(MCPError) as refused:
                await ask(here.client.session, method, task)
            assert refused.value.error.code == -32602
