"""Hosts that do not keep to the rules of stdio: they read nothing, write garbage, or go away in mid-call."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.mcp.conftest import OLDEST, BridgeNode
from tests.support.koco import KOCO, environment, eventually, koco_json

SECONDS = 60
MIB = 1 << 20


class RawHost:
    """A host that writes and reads lines itself.

    Attributes:
        process: the bridge.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._next = 0

    def write(self, line: bytes) -> None:
        """Write bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    def send(self, method: str, **params: Any) -> int:
        """Write a request; returns its id."""
        self._next += 1
        message = {"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}
        self.write(json.dumps(message).encode() + b"\n")
        return self._next

    async def answer(self, number: int) -> dict[str, Any]:
        """Read until the answer to a request; what else is said must be JSON-RPC too."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while True:
                line = await self.process.stdout.readline()
                assert line, "the bridge ended"
                message: dict[str, Any] = json.loads(line)
                assert message["jsonrpc"] == "2.0"
                if message.get("id") == number and "method" not in message:
                    return message

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Make a request, and return its result."""
        answer = await self.answer(self.send(method, **params))
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def begin(self, revision: str = OLDEST, **capabilities: Any) -> dict[str, Any]:
        """Shake hands."""
        who = {"name": "raw", "version": "1"}
        begun = await self.ask("initialize", protocolVersion=revision, capabilities=capabilities, clientInfo=who)
        self.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        return begun

    async def call(self, flow: str, **arguments: Any) -> dict[str, Any]:
        """Call a flow's tool."""
        return await self.ask("tools/call", name=f"bridge_local-bridge_flows_{flow}", arguments=arguments)

    async def ended(self) -> int:
        """Wait until the bridge has ended; asyncio's own `wait` waits for its pipes too."""
        await asyncio.to_thread(eventually, lambda: self.process.returncode is not None, SECONDS)
        assert self.process.returncode is not None
        return self.process.returncode


@contextlib.asynccontextmanager
async def raw(home: Path, *words: str) -> AsyncIterator[RawHost]:
    """Start a bridge; at the end no process of it is left."""
    process = await asyncio.create_subprocess_exec(
        KOCO,
        *("mcp", "--no-lan", *words),
        env=environment(home),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=64 * MIB,
    )
    found = psutil.Process(process.pid)
    try:
        yield RawHost(process)
    finally:
        children = found.children(recursive=True) if found.is_running() else []
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
                raise
        process._transport.close()  # type: ignore[attr-defined]  # what is left in its pipes is not read
        assert not [child for child in children if child.is_running()]


def rows(node: BridgeNode) -> list[dict[str, Any]]:
    """The home's runs, the latest first."""
    [answer] = koco_json(node.home, "ps", "--no-lan")
    found: list[dict[str, Any]] = answer["result"]
    return found


async def test_a_host_of_2025_06_18_in_raw_json(shared_node: BridgeNode) -> None:
    async with raw(shared_node.home) as host:
        begun = await host.begin(elicitation={"form": {}, "url": {}})
        assert begun["protocolVersion"] == OLDEST
        tools = {tool["name"]: tool for tool in (await host.ask("tools/list"))["tools"]}
        returns = tools["bridge_local-bridge_flows_greet"]["outputSchema"]["properties"]["result"]
        assert returns["type"] == "string"
        done = await host.call("greet", name="Ada")
        assert done["structuredContent"]["result"] == "# Hello Ada"
        # That revision has no questions at a URL, whatever its host says: where to answer is told.
        told = await host.call("ask_deeply", kind="secret")
        assert told["structuredContent"]["state"] == "locked"
        await host.ask("tools/call", name="run_cancel", arguments={"run": told["structuredContent"]["run"]})


GARBAGE = [
    b"\n",
    b"no json\n",
    b"\xff\xfe\x00\n",
    b"{}\n",
    b"[]\n",
    b'{"jsonrpc":"2.0","id":{},"method":"tools/list"}\n',
    b'{"jsonrpc":"2.0","id":77,"result":{}}\n',
    b'{"jsonrpc":"2.0","id":78,"method":"no/such"}\n',
    b'{"jsonrpc":"2.0","id":79,"method":"tools/call","params":{"name":7}}\n',
    b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1e99}}\n',
    b"[" * 100_000 + b"\n",
    b'{"jsonrpc":"2.0","id":80,"method":"tools/call","params":{"name":"' + b"x" * MIB + b'"}}\n',
]


async def test_garbage_is_answered_or_passed_over_and_what_comes_next_is_served(shared_node: BridgeNode) -> None:
    async with raw(shared_node.home) as host:
        await host.begin()
        for line in GARBAGE:
            host.write(line)
            assert (await host.call("greet", name="Ada"))["structuredContent"]["state"] == "done"
        # A request that comes in pieces is one.
        request = {"jsonrpc": "2.0", "id": 500, "method": "tools/list"}
        for byte in json.dumps(request).encode() + b"\n":
            host.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await host.answer(500))["result"]["tools"]


async def test_a_message_without_end_is_left_out_and_costs_no_memory(shared_node: BridgeNode) -> None:
    async with raw(shared_node.home) as host:
        await host.begin()
        await host.ask("tools/list")
        bridge = psutil.Process(host.process.pid)
        before = bridge.memory_info().rss
        assert host.process.stdin is not None
        for _ in range(96):
            host.write(b"x" * MIB)
            await host.process.stdin.drain()
        assert bridge.memory_info().rss - before < 64 * MIB
        host.write(b"\n")
        assert (await host.call("greet", name="Ada"))["structuredContent"]["state"] == "done"


async def test_a_host_that_reads_nothing_is_heard_no_more_and_its_runs_go_on(
    shared_node: BridgeNode, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    async with raw(shared_node.home) as host:
        await host.begin()
        arguments = {"name": "Ada", "marks": str(marks)}
        host.send("tools/call", name="bridge_local-bridge_flows_greet", arguments=arguments)
        await asyncio.to_thread(eventually, marks.exists, SECONDS)
        assert host.process.stdin is not None
        # Nothing is read from here on: asyncio itself holds some, then the pipe is full, then the bridge waits.
        host.process.stdout._transport.pause_reading()  # type: ignore[union-attr, attr-defined]
        bridge = psutil.Process(host.process.pid)
        before = bridge.memory_info().rss
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 20_000:
                for _ in range(100):
                    host.send("tools/list")
                written += 100
                await asyncio.wait_for(host.process.stdin.drain(), 2)
        assert written < 20_000
        assert bridge.memory_info().rss - before < 100 * MIB
        host.process.stdin.transport.abort()  # it closes its end, with much that the bridge has not taken
        assert await host.ended() == 0  # although what it has to say was never read
    assert rows(shared_node)[0]["state"] == "done"
    assert marks.read_text() == "Ada\n"


async def test_too_many_requests_at_once_are_refused_and_the_others_answered(shared_node: BridgeNode) -> None:
    async with raw(shared_node.home) as host:
        await host.begin()
        run = (await host.call("make"))["structuredContent"]["run"]
        numbers = [host.send("tools/call", name="run_wait", arguments={"run": run}) for _ in range(200)]
        found: dict[int, dict[str, Any]] = {}
        assert host.process.stdout is not None
        while len(found) < len(numbers):
            message = json.loads(await asyncio.wait_for(host.process.stdout.readline(), SECONDS))
            found[message["id"]] = message
        refused = [each for each in found.values() if "error" in each]
        assert all("requests are being answered" in each["error"]["message"] for each in refused)
        assert len(found) - len(refused) >= 64
        assert (await host.call("greet", name="Ada"))["structuredContent"]["state"] == "done"  # all are free again


@pytest.mark.parametrize("half", [b"", b'{"jsonrpc":"2.0","id":9,"method":"tools/ca'])
async def test_a_host_that_goes_in_the_middle_of_a_call_leaves_its_run_and_no_process(
    shared_node: BridgeNode, tmp_path: Path, half: bytes
) -> None:
    marks = tmp_path / "marks"
    async with raw(shared_node.home) as host:
        await host.begin()
        host.send(
            "tools/call",
            name="bridge_local-bridge_flows_wait",
            arguments={"seconds": 1.5, "marks": str(marks)},
        )
        await asyncio.to_thread(eventually, marks.exists, SECONDS)
        host.write(half)
        assert host.process.stdin is not None
        host.process.stdin.close()
        assert await host.ended() == 0
    await asyncio.to_thread(eventually, lambda: rows(shared_node)[0]["state"] == "done", SECONDS)
    assert marks.read_text() == "wait\n"


async def test_nothing_that_a_bridge_keeps_is_for_other_accounts(shared_node: BridgeNode) -> None:
    """Files and folders of the home, and what the bridge listens at."""
    async with raw(shared_node.home) as host:
        await host.begin(elicitation={})
        host.send("tools/call", name="bridge_local-bridge_flows_wait", arguments={"seconds": 600})
        kept = [shared_node.home / name for name in ("mcp.key", "mcp_launches.json")]
        await asyncio.to_thread(eventually, lambda: all(path.exists() for path in kept), SECONDS)
        await asyncio.to_thread(eventually, lambda: rows(shared_node)[0]["state"] not in ("done", "error"), SECONDS)
        assert stat.S_IMODE(shared_node.home.stat().st_mode) & 0o077 == 0
        for path in kept:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
            assert path.stat().st_uid == os.getuid()
        bridge = psutil.Process(host.process.pid)
        assert [each for each in bridge.net_connections("all") if each.status == psutil.CONN_LISTEN] == []
        assert [each.laddr for each in bridge.net_connections("unix") if each.laddr] == []
        run = rows(shared_node)[0]
        koco_json(shared_node.home, "kill", f"{run['peer_id']}/{run['fid']}", "--no-lan")
