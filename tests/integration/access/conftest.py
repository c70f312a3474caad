"""Nodes with users, over real sockets; `koco` and the library as users of homes of their own.

What is looked at here is who may do what, so flows run in process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kodo.client import Client
from kodo.client.config import load_settings
from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.p2p.net.keystore import load_identity, make_home

LID = "0" * 25 + "1"


async def work(run: InProcessRunner) -> str:
    run.output("report.md", b"# Report")
    return "done"


async def ask(run: InProcessRunner) -> Any:
    return await run.lock(LID, {"type": "boolean"}, default=False, expires_s=3600)


async def describe(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [flow.rpartition(".")[2] for flow in asked["flows"]]
    schema = {"type": "object", "properties": {}}
    return [
        {"path": f"flows.{name}", "name": name, "entry": name, "schema": schema, "release": "1"} for name in names
    ]


@contextlib.asynccontextmanager
async def node_at(home: Path, **more: Any) -> AsyncIterator[Node]:
    """Run a node on loopback."""
    settings: dict[str, Any] = {
        "home": home,
        "entries": ("flows.work", "flows.ask"),
        "name": "here.example",
        "hosts": ("127.0.0.1",),
        "announce_lan": False,
        "disk_reserve_bytes": 0,
        **more,
    }
    async with (
        InProcessExecutor({"work": work, "ask": ask}) as executor,
        Node(NodeConfig(**settings), executor=executor, describe=describe) as node,
    ):
        yield node


def address(node: Node) -> str:
    return str(node.addresses[0])


def peer_id_of(home: Path) -> str:
    return str(load_identity(make_home(home), "user").peer_id)


def client_of(home: Path, **flags: Any) -> Client:
    flags = {"lan": False, "keyring": False, "patience": 5.0, **flags}
    return Client(settings=load_settings(home, flags, {}))


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def row(self) -> dict[str, Any]:
        return json.loads(self.out.splitlines()[-1])


async def koco(home: Path, *words: str, stdin: str = "") -> Done:
    """Run a command in a process of its own while the node of this one answers."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KODO_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from kodo.cli.main import main; main()", *words),
        env={**kept, "KODO_HOME": str(home), "KODO_LAN": "no", "KODO_KEYRING": "no", "COLUMNS": "120"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Done(process.returncode or 0, out.decode(), err.decode())
