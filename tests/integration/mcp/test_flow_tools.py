"""Flows call tools of MCP servers: over stdio and streamable HTTP, in async and sync flows, with what events show."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kodo.flow import mcp
from kodo.p2p.errors import DeadlineError, KodoError, NetworkError, UsageError
from tests.integration.mcp.conftest import started
from tests.support.koco import eventually, koco, koco_json

SERVER = str(Path(__file__).parent / "tool_server.py")
COMMAND = (sys.executable, SERVER)


@contextlib.contextmanager
def over_http() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        [*COMMAND, "--http", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            eventually(listens, 60)
            yield f"http://127.0.0.1:{port}/mcp"
        finally:
            run.kill()


async def test_a_tool_gives_its_structured_content_or_its_text() -> None:
    async with mcp.server(*COMMAND, env={"TOOL_TOKEN": SecretStr("hush")}) as tools:
        assert await tools.call("add", a=1, b=2) == {"sum": 3}
        assert await tools.call("token") == "hush"
        rows = await tools.tools()
        assert {row["name"] for row in rows} >= {"add", "token", "fail"}
        assert next(row for row in rows if row["name"] == "add")["schema"]["properties"].keys() == {"a", "b"}


def test_a_sync_flow_calls_plainly() -> None:
    with mcp.server(*COMMAND) as tools:
        assert tools.call("add", a=1, b=2) == {"sum": 3}
        with pytest.raises(mcp.ToolError, match="cannot do x"):
            tools.call("fail", text="x")


async def test_headers_reach_a_server_over_http() -> None:
    with over_http() as url:
        async with mcp.server(url, headers={"Authorization": SecretStr("Bearer hush")}) as tools:
            assert await tools.call("header") == "Bearer hush"
            assert await tools.call("add", a=1, b=2) == {"sum": 3}


async def test_what_goes_wrong_is_an_error_of_its_kind() -> None:
    async with mcp.server(*COMMAND) as tools:
        with pytest.raises(mcp.ToolError, match="cannot do this"):
            await tools.call("fail", text="this")
        with pytest.raises(mcp.ToolError):
            await tools.call("no such tool")
        with pytest.raises(mcp.ToolError):
            await tools.call("add", a="no number")
    with pytest.raises(UsageError, match="inside of"):
        await tools.call("add", a=1, b=2)
    async with mcp.server(*COMMAND, timeout=0.5) as tools:
        with pytest.raises(DeadlineError):
            await tools.call("sleep", seconds=30)
    async with mcp.server(*COMMAND) as tools:
        with pytest.raises(NetworkError):
            await tools.call("die")


async def test_an_error_of_the_flows_own_stays_what_it_is() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with mcp.server(*COMMAND):
            raise LookupError("mine")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("/no/such/command",), UsageError),
        ((sys.executable, "-c", "print('no MCP')"), NetworkError),
        ((sys.executable, "-c", "raise SystemExit(1)"), NetworkError),
        (("http://127.0.0.1:9/mcp",), NetworkError),
    ],
)
async def test_what_is_no_server_is_said_at_once(words: tuple[str, ...], error: type[KodoError]) -> None:
    with pytest.raises(error):
        await asyncio.wait_for(mcp.server(*words).__aenter__(), 60)


@pytest.mark.parametrize(
    ("words", "options"),
    [(("http://x/mcp", "word"), {}), (("http://x/mcp",), {"env": {"A": "b"}}), (("x",), {"headers": {"A": "b"}})],
)
def test_options_have_to_fit_the_target(words: tuple[str, ...], options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        mcp.server(*words, **options)


FLOW = f'''
"""A flow that uses tools."""

from pydantic import SecretStr

from kodo.flow import flow, mcp

MADE_BY = {{"author": "x@example.com", "organization": "x", "release": "1"}}


@flow(name="Use tools", **MADE_BY)
async def use_tools(credential: SecretStr) -> dict:
    """Call tools of an MCP server."""
    async with mcp.server({sys.executable!r}, {SERVER!r}, env={{"TOOL_TOKEN": credential}}) as tools:
        same = await tools.call("token") == credential.get_secret_value()
        summed = await tools.call("add", a=1, b=2)
        try:
            await tools.call("fail", text=credential)
        except mcp.ToolError as error:
            return {{"same": same, "error": str(error), **summed}}
'''


async def test_in_a_run_each_call_is_an_action_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "tool_flows.py").write_text(FLOW)
    scope = tmp_path / "scope.yaml"
    scope.write_text("name: tools.local\nflows: [tool_flows]\n")
    home = tmp_path / "home"
    with started(home, scope=scope) as node:
        words = ("run", "Use tools", "credential=env:CREDENTIAL", "--no-lan", "--json")
        done = await asyncio.to_thread(koco, home, *words, CREDENTIAL="hush-hush")
        assert done.returncode == 0, done.stdout + done.stderr
        [answer] = koco_json(node.home, "ps", "--no-lan")
        run = answer["result"][0]["fid"]
        events = koco_json(home, "follow", run, "--no-lan")
    assert "hush-hush" not in done.stdout
    assert "about to fail with ••••••••" in str(events)
    actions = [row["data"] for row in events if row.get("event") == "action"]
    assert [(row["name"].rpartition(": ")[2], row["phase"]) for row in actions] == [
        *(("token", "start"), ("token", "end"), ("add", "start"), ("add", "end"), ("fail", "start")),
    ]
    assert actions[2]["arguments"] == {"a": 1, "b": 2}
    assert actions[4]["arguments"] == {"text": "••••••••"}
    [failed] = [row["data"] for row in events if row.get("event") == "action-error"]
    assert failed["type"] == "ToolError"
    [final] = [row["data"]["result"] for row in events if row.get("event") == "final"]
    assert final["same"] is True
    assert final["sum"] == 3
    assert "cannot do ••••••••" in final["error"]
