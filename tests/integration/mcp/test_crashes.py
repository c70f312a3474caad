"""Runs outlive hosts, bridges and nodes; a call that was cut and made again launches nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitResult

from tests.integration.mcp.conftest import REVISIONS, Bridge, BridgeNode, bridge, started
from tests.support.koco import KOCO, environment, eventually, koco_json

YES = {"approved": True, "why": "fine"}
HOST = """
import asyncio, json, sys
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

async def never(context, params):
    await asyncio.sleep(600)

async def main():
    command, args, env, tool, arguments = json.loads(sys.argv[1])
    transport = stdio_client(StdioServerParameters(command=command, args=args, env=env))
    async with Client(transport, mode="legacy", cache=None, elicitation_callback=never) as client:
        await client.call_tool(tool, arguments)

asyncio.run(main())
"""
"""A host in a process of its own, with the package's client: it calls one tool, and never answers a question."""


async def yes(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content=YES)


def is_asked(node: BridgeNode, marks: Path) -> bool:
    """Whether a run that leaves marks waits for an answer."""
    if not marks.exists():
        return False
    [answer] = koco_json(node.home, "ps", "--no-lan")
    return bool(answer["result"][0]["state"] == "locked")


async def begun(node: BridgeNode, marks: Path, *, asked: bool) -> None:
    """Wait until the latest run has left its mark, and has `asked` something."""
    await asyncio.to_thread(eventually, lambda: is_asked(node, marks) if asked else marks.exists(), 60)


@contextlib.asynccontextmanager
async def doomed(node: BridgeNode, mode: str, tmp: Path, **options: Any) -> AsyncIterator[Bridge]:
    """Provide a bridge that the test kills."""
    try:
        async with bridge(node.home, mode=mode, tmp=tmp, **options) as here:
            yield here
    except* (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError, ConnectionError):
        pass


async def kill_in(here: Bridge, node: BridgeNode, marks: Path, name: str, *, asked: bool, **arguments: Any) -> None:
    """Call a tool, and kill the bridge once its run has begun, or has asked something."""
    call = asyncio.create_task(here.tool(name, marks=str(marks), **arguments))
    await begun(node, marks, asked=asked)
    here.process.kill()
    with pytest.raises(MCPError):
        await asyncio.wait_for(call, 60)


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_killed_bridge_leaves_its_run_to_the_next(tmp_path: Path, shared_node: BridgeNode, mode: str) -> None:
    node, marks = shared_node, tmp_path / "marks"
    arguments = {"seconds": 4, "marks": str(marks)}
    async with doomed(node, mode, tmp_path) as here:
        await kill_in(here, node, marks, "wait", asked=False, seconds=4)
    async with bridge(node.home, mode=mode, tmp=tmp_path) as here:
        found, *_ = (await here.tool("runs")).structured_content["runs"]
        # The same call made again is about the same launch: the first was never answered.
        done = await here.tool("wait", **arguments)
        assert done.structured_content["run"] == found["run"]
        assert done.structured_content["result"] == "waited"
        other = await here.tool("wait", **{**arguments, "seconds": 0.2})
        assert other.structured_content["run"] != found["run"]
    assert marks.read_text() == "wait\nwait\n"


async def test_a_killed_bridge_leaves_its_question_to_the_next(tmp_path: Path, shared_node: BridgeNode) -> None:
    async def hesitate(context: Any, params: Any) -> ElicitResult:
        await asyncio.sleep(600)
        raise AssertionError("nobody waits so long")

    node, marks = shared_node, tmp_path / "marks"
    async with doomed(node, "legacy", tmp_path, elicitation_callback=hesitate) as here:
        await kill_in(here, node, marks, "approve", asked=True, topic="bikes")
    async with bridge(node.home, mode="legacy", tmp=tmp_path, elicitation_callback=yes) as here:
        found, *_ = (await here.tool("runs", state="locked")).structured_content["runs"]
        done = await here.tool("run_wait", run=found["run"])
        assert done.structured_content["result"]["why"] == "fine"
    events = koco_json(node.home, "follow", found["run"], "--no-lan")
    assert [row.get("event") for row in events].count("unlock") == 1
    assert marks.read_text() == "bikes\n"


def is_over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("flow", "more", "asked", "mark"),
    [("wait", {"seconds": 4}, False, "wait\n"), ("approve", {"topic": "bikes"}, True, "bikes\n")],
    ids=["running", "asked"],
)
async def test_a_killed_host_takes_its_bridge_along_and_leaves_its_run_to_the_next(
    tmp_path: Path, shared_node: BridgeNode, flow: str, more: dict[str, Any], asked: bool, mark: str
) -> None:
    node, marks = shared_node, tmp_path / "marks"
    arguments = {**more, "marks": str(marks)}
    told = [KOCO, ["mcp", "--no-lan"], environment(node.home), Bridge.named(flow), arguments]
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", HOST, json.dumps(told))
    try:
        await begun(node, marks, asked=asked)
        bridges = psutil.Process(host.pid).children(recursive=True)
    finally:
        host.kill()
        await host.wait()
    assert bridges
    await asyncio.to_thread(eventually, lambda: all(map(is_over, bridges)), 60)
    async with bridge(node.home, mode="legacy", tmp=tmp_path, elicitation_callback=yes) as here:
        found, *_ = (await here.tool("runs")).structured_content["runs"]
        done = await here.tool("run_wait", run=found["run"])
        assert done.structured_content["state"] == "done"
    assert marks.read_text() == mark


async def test_a_round_goes_on_with_another_bridge(tmp_path: Path, shared_node: BridgeNode) -> None:
    from tests.integration.mcp import test_locks

    home, marks = shared_node.home, str(tmp_path / "marks")
    async with doomed(shared_node, "2026-07-28", tmp_path, elicitation_callback=yes) as here:
        asked = await test_locks.begun(here, "approve", topic="bikes", marks=marks)
        here.process.kill()
    async with bridge(home, mode="2026-07-28", tmp=tmp_path, elicitation_callback=yes) as here:
        done = await test_locks.again(here, "approve", asked, YES, topic="bikes", marks=marks)
        assert done.structured_content["result"]["why"] == "fine"
    assert (tmp_path / "marks").read_text() == "bikes\n"


async def waited_for(home: Path, mode: str, tmp: Path) -> None:
    """Call a flow by a bridge of its own, and get its result although the node is killed meanwhile."""
    async with bridge(home, "--wait", "30", mode=mode, tmp=tmp) as here:
        facts = (await here.tool("wait", seconds=5, marks=str(tmp / "marks"))).structured_content
        while facts["state"] not in ("done", "error"):
            facts = (await here.tool("run_wait", run=facts["run"])).structured_content
        assert facts["result"] == "waited"


async def test_a_killed_node_is_waited_for(tmp_path: Path) -> None:
    home, folders = tmp_path / "home", {mode: tmp_path / mode for mode in REVISIONS}
    for folder in folders.values():
        folder.mkdir()
    with started(home) as killed:
        async with asyncio.timeout(180), asyncio.TaskGroup() as hosts:
            for mode, folder in folders.items():
                hosts.create_task(waited_for(home, mode, folder))
            for folder in folders.values():
                await begun(killed, folder / "marks", asked=False)
            await asyncio.to_thread(killed.kill)
            node = await asyncio.to_thread(BridgeNode, home)
        assert await asyncio.to_thread(node.stop) == 0, node.stderr


async def test_a_lock_outlives_the_node_and_is_answered_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started(home) as node:
        async with bridge(home, "--wait", "5", mode="legacy", tmp=tmp_path) as here:
            run = (await here.tool("approve", topic="bikes")).structured_content["run"]
            await asyncio.to_thread(node.kill)
            away = await here.tool("run_wait", run=run)
            assert away.is_error or away.structured_content["state"] in ("locked", "unknown")
        with started(home):
            async with bridge(home, mode="legacy", tmp=tmp_path, elicitation_callback=yes) as here:
                done = await here.tool("run_wait", run=run)
                assert done.structured_content["result"]["why"] == "fine"
            events = koco_json(home, "follow", run, "--no-lan")
            assert [row.get("event") for row in events].count("unlock") == 1


@pytest.mark.parametrize("mode", REVISIONS)
async def test_a_call_that_its_host_cut_launches_once(tmp_path: Path, shared_node: BridgeNode, mode: str) -> None:
    marks = tmp_path / "marks"
    arguments = {"seconds": 3, "marks": str(marks)}
    async with bridge(shared_node.home, mode=mode, tmp=tmp_path) as here:
        with pytest.raises(MCPError):
            await here.client.session.call_tool(here.named("wait"), arguments, read_timeout_seconds=1.0)
        done = await here.tool("wait", **arguments)
        assert done.structured_content["result"] == "waited"
    assert marks.read_text() == "wait\n"


async def test_a_signal_ends_a_bridge_whose_host_is_silent(tmp_path: Path, shared_node: BridgeNode) -> None:
    async with doomed(shared_node, "legacy", tmp_path) as here:
        await here.client.list_tools()
        process = here.process
        process.terminate()
        await asyncio.to_thread(process.wait, 30)
