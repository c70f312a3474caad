"""Each revision of MCP that hosts speak, agreed on as its host asks, over stdio: what its host sees and may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult

from tests.integration.mcp.conftest import OLDEST, BridgeNode, bridge, text_of

pytestmark = pytest.mark.parametrize("mode", [OLDEST, "2025-11-25", "2026-07-28"])


def spoken(mode: str) -> str:
    """How the package's client is told a revision."""
    return "legacy" if mode == "2025-11-25" else mode


async def test_a_host_lists_launches_is_asked_and_reads(shared_node: BridgeNode, mode: str, tmp_path: Path) -> None:
    asked: list[Any] = []
    seen: list[str | None] = []
    replies: list[Any] = [{"name": "Ada"}, {"approved": True, "why": ""}, None, {"approved": True, "why": "fine"}]

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params)
        reply = replies.pop(0)
        return ElicitResult(action="accept", content=reply) if reply else ElicitResult(action="decline")

    async def progress(value: float, total: float | None, message: str | None) -> None:
        seen.append(message)

    async with bridge(shared_node.home, mode=spoken(mode), tmp=tmp_path, elicitation_callback=answer) as here:
        assert here.client.protocol_version == mode
        tools = {tool.name: tool for tool in (await here.client.list_tools()).tools}
        assert tools[here.named("greet")].output_schema["properties"]["result"]["type"] == "string"
        # Missing inputs are asked for, then it is launched; its result and the link to its output are read.
        greeted = await here.tool("greet")
        assert greeted.structured_content["result"] == "# Hello Ada"
        [link] = [part for part in greeted.content if part.type == "resource_link"]
        [read] = (await here.client.read_resource(str(link.uri))).contents
        assert read.text == "Hello Ada!\n"
        waited = await here.client.call_tool(here.named("wait"), {"seconds": 0.5}, progress_callback=progress)
        assert waited.structured_content["result"] == "waited"
        assert any("step" in (message or "") for message in seen)
        # An answer is denied, then the question is left open, and answered in another call.
        left = await here.tool("approve", topic="bikes")
        assert left.structured_content["state"] == "locked"
        done = await here.tool("run_wait", run=left.structured_content["run"])
        assert done.structured_content["result"]["why"] == "fine"
        assert here.stderr.read_text() == ""
    assert [params.requested_schema is not None for params in asked] == [True] * 4
    assert "say why you approve" in asked[2].message


async def test_a_result_is_held_against_what_the_host_was_told(
    shared_node: BridgeNode, mode: str, tmp_path: Path
) -> None:
    async with bridge(shared_node.home, mode=spoken(mode), tmp=tmp_path) as here:
        tools = {tool.name: tool for tool in (await here.client.list_tools()).tools}
        told = tools[here.named("stray")].output_schema["properties"]["result"]
        assert set(told["properties"]) == {"approved", "why"}
        kept = await here.tool("stray", keep=True)  # the package's client checks it
        assert kept.structured_content["result"] == {"approved": True, "why": "kept"}
        stray = await here.tool("stray", keep=False)
        assert "result" not in stray.structured_content
        assert stray.structured_content["other_result"] == {"approved": "perhaps"}
        assert "perhaps" in text_of(stray)
        assert not stray.is_error
