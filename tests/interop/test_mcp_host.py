"""An MCP host that is not ours, made with the TypeScript SDK from npm, against `koco mcp`."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.mcp.conftest import BridgeNode, started
from tests.support.koco import KOCO, environment

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BridgeNode]:
    with started(tmp_path_factory.mktemp("mcp-host") / "home") as node:
        yield node


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
def test_it_lists_launches_answers_and_reads(era: str, node: BridgeNode) -> None:
    executable = shutil.which("node")
    assert executable, "Node.js is missing; scripts/test installs it"
    done = subprocess.run(
        [executable, "mcp-host.mjs", era, KOCO],
        cwd=HERE,
        env=environment(node.home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    steps = {row.pop("step"): row for row in map(json.loads, done.stdout.splitlines())}
    assert "bridge_local-bridge_flows_greet" in steps["listed"]["tools"]
    assert steps["launched"] == {"state": "done", "result": "# Hello Ada"}
    assert steps["read"] == {"text": "Hello Ada!\n"}
    assert "Approve bikes?" in steps["asked"]["message"]
    assert steps["answered"]["result"] == {"topic": "bikes", "approved": True, "why": "by another host"}
