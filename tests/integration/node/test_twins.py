"""Two nodes run from copies of one home: each tells of the other."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.node.parts import outgoing_client
from kodo.node.twins import reached
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import NetworkError
from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.server import Registry, RegistryConfig
from tests.support.lossy_relay import lossy_relay

TWIN = """
import asyncio, sys
from pathlib import Path
from kodo.node.app import Node
from kodo.node.config import NodeConfig

async def main():
    config = NodeConfig(home=Path(sys.argv[1]), executor="process", lan=False, host=("127.0.0.1",), runners=0,
                        registry=(sys.argv[2],), name="flows.example.com")
    async with Node(config) as node:
        while not node.twins:
            await asyncio.sleep(0.05)
        print(*node.twins, flush=True)

asyncio.run(main())
"""


async def test_a_copy_of_a_home_is_noticed_by_both(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir(mode=0o700)
    async with Registry(RegistryConfig(home=tmp_path / "registry", port=0)) as registry:
        config = NodeConfig(
            home=tmp_path / "node", executor="process", lan=False, host=("127.0.0.1",), runners=0,
            registry=(registry.url,), name="flows.example.com",
        )  # fmt: skip
        async with Node(config) as node:
            async with asyncio.timeout(60), RegistryClient(registry.url) as client:
                while not (await client.nodes()).result:  # noqa: ASYNC110 - another program
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(shutil.copytree, tmp_path / "node", tmp_path / "copy")
            (tmp_path / "copy" / "node.port").unlink()
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-c", TWIN, str(tmp_path / "copy"), registry.url],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.stdout.split() == [f"127.0.0.1:{node.addresses[0].port}"], done.stderr
            assert len(node.twins) == 1
            assert node.twins[0].startswith("127.0.0.1:")


async def test_a_node_that_reaches_itself_by_another_address_is_no_twin(tmp_path: Path) -> None:
    """As where a neighbour announces this node at its own address, or a router forwards a public one."""
    config = NodeConfig(
        home=tmp_path, executor="process", lan=False, host=("127.0.0.1",), runners=0,
        registry=("http://127.0.0.1:9",), name="flows.example.com",
    )  # fmt: skip
    async with Node(config) as node:
        identity = load_identity(tmp_path, "node")
        own = node.addresses[0]
        async with lossy_relay((own.host, own.port), seed=1) as forwarder:
            elsewhere = Multiaddr.webrtc_direct("127.0.0.1", forwarder.port, own.certhash, own.peer_id)
            with pytest.raises(NetworkError, match="this node itself"):
                await reached(partial(outgoing_client, config, identity), elsewhere)
            assert forwarder.newcomer.is_set()
        assert list(node.twins) == []
