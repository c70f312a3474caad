"""A node with users and passwords, for strangers who try to log in: without Ray, in a process of its own.

    python -m tests.chaos.users_node HOME HOST

says its address as one line of JSON once it is ready, and runs until its stdin ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.node.executors.in_process import InProcessExecutor
from kodo.p2p.net.calls import request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.keystore import load_identity
from kodo.p2p.net.turns import new_loop
from tests.chaos.slow_callbacks import watch

__all__ = ["PASSWORD", "USERS"]

USERS = tuple(f"user{number}" for number in range(12))
PASSWORD = "correct horse battery"


async def _no_flows(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    return []


async def _run(home: Path, host: str) -> None:
    config = NodeConfig(home=home, entries=("none",), name="users.local", host=(host,), lan=False, auth="local")
    async with InProcessExecutor({}) as executor, Node(config, executor=executor, describe=_no_flows) as node:
        operator = load_identity(home, "user")
        async with Host(operator, WebRtcTransport()) as own:
            session = await own.connect(node.addresses, timeout=20)
            for name in USERS:
                await request(session, "user.add", {"name": name, "password": PASSWORD}, timeout=60)
        print(json.dumps({"address": str(node.addresses[0])}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    watch()
    with asyncio.Runner(loop_factory=new_loop) as runner:  # as `koco up`
        runner.run(_run(Path(sys.argv[1]), sys.argv[2]))
