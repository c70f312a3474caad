"""Questions of runs, answered by a person through the host: once, whoever else answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ElicitResult, InputRequiredResult

from tests.integration.mcp.conftest import REVISIONS, Bridge, BridgeNode, Hosts, text_of
from tests.support.koco import koco, koco_json

pytestmark = pytest.mark.asyncio(loop_scope="session")

MODERN = "2026-07-28"
YES = {"approved": True, "why": "fine"}


def person(*replies: Any) -> tuple[Callable[..., Any], list[Any]]:
    """Return a person who gives these replies one after the other, and what they were asked."""
    asked: list[Any] = []
    left = list(replies)

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params)
        reply = left.pop(0)
        return ElicitResult(action=reply) if isinstance(reply, str) else ElicitResult(action="accept", content=reply)

    return answer, asked


def events(node: BridgeNode, run: str) -> list[dict[str, Any]]:
    """The run's events, as `koco` has them."""
    return koco_json(node.home, "follow", run, "--no-lan")


def rows(node: BridgeNode, command: str) -> list[dict[str, Any]]:
    """What a command lists."""
    [answer] = koco_json(node.home, command, "--no-lan")
    result: list[dict[str, Any]] = answer["result"]
    return result


def unlocks(node: BridgeNode, run: str) -> list[Any]:
    """What the run's locks were answered with."""
    return [row["data"]["answer"] for row in events(node, run) if row.get("event") == "unlock"]


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_lock_is_answered_by_a_form(hosts: Hosts, shared_node: BridgeNode, mode: str) -> None:
    answer, asked = person(YES)
    async with hosts.host(mode, answer) as here:
        done = await here.tool("approve", topic="bikes")
        assert done.structured_content["result"] == {"topic": "bikes", **YES}
    [params] = asked
    assert "asks: Approve bikes?" in params.message
    assert params.requested_schema["properties"]["approved"]["type"] == "boolean"
    assert unlocks(shared_node, done.structured_content["run"]) == [YES]


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_denied_answer_is_asked_for_again_with_the_reasons(
    hosts: Hosts, shared_node: BridgeNode, mode: str
) -> None:
    answer, asked = person({"approved": True, "why": ""}, {"approved": "not a truth"}, YES)
    async with hosts.host(mode, answer) as here:
        done = await here.tool("approve", topic="bikes")
        assert done.structured_content["result"]["why"] == "fine"
    first, second, third = asked
    assert "did not take" not in first.message
    assert "say why you approve" in second.message
    assert "did not take the latest answer" in third.message
    assert unlocks(shared_node, done.structured_content["run"]) == [YES]


@pytest.mark.parametrize("mode", REVISIONS)
@pytest.mark.parametrize("how", ["decline", "cancel"])
async def test_declining_leaves_a_lock_open_for_later(
    hosts: Hosts, shared_node: BridgeNode, mode: str, how: str
) -> None:
    answer, asked = person(how, YES)
    async with hosts.host(mode, answer) as here:
        left = await here.tool("approve", topic="bikes")
        assert left.structured_content["state"] == "locked"
        assert not left.is_error
        assert "left a question open" in text_of(left)
        run = left.structured_content["run"]
        open_now = rows(shared_node, "locks")
        assert left.structured_content["locks"][0]["lid"] in [row.get("lid") for row in open_now]
        assert len(asked) == 1
        done = await here.tool("run_wait", run=run)
        assert done.structured_content["result"]["approved"] is True
    assert len(asked) == 2


async def test_a_question_ends_when_it_is_answered_elsewhere(hosts: Hosts, shared_node: BridgeNode) -> None:
    shown, dropped = asyncio.Event(), asyncio.Event()

    async def hesitate(context: Any, params: Any) -> ElicitResult:
        shown.set()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            dropped.set()
            raise
        raise AssertionError("nobody waits so long")

    async with hosts.host("legacy", hesitate) as here:
        call = asyncio.create_task(here.tool("approve", topic="bikes"))
        await asyncio.wait_for(shown.wait(), 60)
        [row] = [row for row in rows(shared_node, "ps") if row.get("state") == "locked"][:1]
        run = f"{row['peer_id']}/{row['fid']}"
        words = ("answer", run, "approved=yes", "why=terminal", "--no-lan")
        assert (await asyncio.to_thread(koco, shared_node.home, *words)).returncode == 0
        done = await asyncio.wait_for(call, 60)
        assert done.structured_content["result"]["why"] == "terminal"
        assert "answered elsewhere" in text_of(done)
        await asyncio.wait_for(dropped.wait(), 60)  # the host takes its form away
    assert unlocks(shared_node, run) == [{"approved": True, "why": "terminal"}]


async def begun(here: Bridge, name: str, **arguments: Any) -> InputRequiredResult:
    """Call a tool, and return what it asks, as the revision without sessions has it."""
    asked = await here.client.session.call_tool(here.named(name), arguments, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult), asked
    return asked


async def again(here: Bridge, name: str, asked: InputRequiredResult, reply: Any, **arguments: Any) -> Any:
    """Make the same call again, with a reply to all that was asked."""
    result = ElicitResult(action=reply) if isinstance(reply, str) else ElicitResult(action="accept", content=reply)
    responses: Any = dict.fromkeys(asked.input_requests or {}, result)
    return await here.client.session.call_tool(
        here.named(name),
        arguments,
        input_responses=responses,
        request_state=asked.request_state,
        allow_input_required=True,
    )


async def no_person(context: Any, params: Any) -> ElicitResult:
    """Stand for one in a host whose rounds the test makes itself."""
    raise AssertionError("it asks by its results")


async def test_an_answer_that_comes_second_is_told_so(hosts: Hosts, shared_node: BridgeNode) -> None:
    async with hosts.host(MODERN, no_person) as here:
        asked = await begun(here, "approve", topic="bikes")
        [(lid, _)] = (asked.input_requests or {}).items()
        [lock] = [row for row in rows(shared_node, "locks") if row.get("lid") == lid]
        run = f"{lock['peer_id']}/{lock['fid']}"
        koco_json(shared_node.home, "answer", run, "approved=no", "--no-lan")
        done = await again(here, "approve", asked, YES, topic="bikes")
        assert done.structured_content["result"]["approved"] is False
    assert unlocks(shared_node, run) == [{"approved": False, "why": ""}]


async def test_a_repeated_round_launches_and_answers_once(
    hosts: Hosts, shared_node: BridgeNode, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    arguments = {"topic": "bikes", "marks": str(marks)}
    async with hosts.host(MODERN, no_person) as here:
        asked = await begun(here, "approve", **arguments)
        rounds = [again(here, "approve", asked, YES, **arguments) for _ in range(3)]
        answers = await asyncio.gather(*rounds)
        runs = {each.structured_content["run"] for each in answers}
        assert len(runs) == 1
        assert all(each.structured_content["result"]["approved"] for each in answers)
        late = await again(here, "approve", asked, {"approved": False}, **arguments)
        assert late.structured_content["result"]["approved"] is True
    assert marks.read_text() == "bikes\n"
    assert unlocks(shared_node, runs.pop()) == [YES]


async def test_a_repeated_round_with_inputs_launches_once(hosts: Hosts, tmp_path: Path) -> None:
    marks = str(tmp_path / "marks")
    async with hosts.host(MODERN, no_person) as here:
        asked = await begun(here, "greet", marks=marks)
        assert not (tmp_path / "marks").exists()
        rounds = [again(here, "greet", asked, {"name": "Ada"}, marks=marks) for _ in range(3)]
        answers = await asyncio.gather(*rounds)
        assert len({each.structured_content["run"] for each in answers}) == 1
    assert (tmp_path / "marks").read_text() == "Ada\n"


async def test_what_a_host_carries_cannot_be_made_up(hosts: Hosts) -> None:
    async with hosts.host(MODERN, no_person) as here:
        asked = await begun(here, "approve", topic="bikes")
        state = asked.request_state or ""
        middle = len(state) // 2
        for forged in (
            state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :],
            "{}",
            "v1.AAAA",
        ):
            with pytest.raises(MCPError, match="requestState"):
                await again(here, "approve", asked.model_copy(update={"request_state": forged}), YES, topic="bikes")
        with pytest.raises(MCPError, match="requestState"):
            await again(here, "approve", asked, YES, topic="another")
        with pytest.raises(MCPError, match="requestState"):
            await again(here, "greet", asked, YES, topic="bikes")
        stray = asked.model_copy(update={"input_requests": {"01arz3ndektsv4rrffq69g5fav": None}})
        still = await again(here, "approve", stray, YES, topic="bikes")
        assert isinstance(still, InputRequiredResult)
        done = await again(here, "approve", still, YES, topic="bikes")
        assert isinstance(done, CallToolResult)
        await here.tool("run_cancel", run=done.structured_content["run"])


@pytest.mark.parametrize("mode", REVISIONS)
@pytest.mark.parametrize("kind", ["nested", "secret"])
async def test_what_no_form_may_ask_is_told_where_to_answer(
    hosts: Hosts, shared_node: BridgeNode, mode: str, kind: str, tmp_path: Path
) -> None:
    answer, asked = person()
    async with hosts.host(mode, answer) as here:
        told = await here.tool("ask_deeply", kind=kind)
        facts = told.structured_content
        assert facts["state"] == "locked"
        command = f"koco answer {facts['run']} {facts['locks'][0]['lid']}"
        assert command in text_of(told)
        candidate = tmp_path / "answer.json"
        inner = '{"address": {"street": "High St"}}' if kind == "nested" else '{"password": "hush"}'
        candidate.write_text(inner)
        words = [*command.split()[1:], "--inputs", str(candidate), "--no-lan"]
        waiting = asyncio.create_task(here.tool("run_wait", run=facts["run"]))
        ended = await asyncio.to_thread(koco, shared_node.home, *words)
        assert ended.returncode == 0, ended.stderr
        done = await asyncio.wait_for(waiting, 60)
        assert done.structured_content["state"] == "done"
        assert "hush" not in text_of(done)
    assert asked == []


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_lock_of_others_is_told_and_not_offered(hosts: Hosts, mode: str) -> None:
    answer, asked = person()
    async with hosts.host(mode, answer) as here:
        told = await here.tool("approve", topic="bikes", roles=["boss"])
        [lock] = told.structured_content["locks"]
        assert lock["may_answer"] is False
        assert lock["awaited"] == ["role boss"]
        assert "role boss" in text_of(told)
        await here.tool("run_cancel", run=told.structured_content["run"])
    assert asked == []


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_host_that_cannot_ask_tells_where_to_answer(hosts: Hosts, shared_node: BridgeNode, mode: str) -> None:
    async with hosts.host(mode) as here:
        told = await here.tool("approve", topic="bikes")
        facts = told.structured_content
        assert f"koco answer {facts['run']}" in text_of(told)
        waiting = asyncio.create_task(here.tool("run_wait", run=facts["run"]))
        words = ("answer", facts["run"], "approved=no", "--no-lan")
        assert (await asyncio.to_thread(koco, shared_node.home, *words)).returncode == 0
        done = await asyncio.wait_for(waiting, 60)
        assert done.structured_content["result"]["approved"] is False
