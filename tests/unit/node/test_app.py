"""The composition root: a node comes up whole, is reached by a peer, and leaves nothing behind."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kodo.node.app import Node
from kodo.node.config import NodeConfig
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import UsageError
from kodo.p2p.net.calls import Call, request
from kodo.p2p.net.host import Host
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport


async def hello(run: InProcessRunner) -> str:
    return "hello " + run.spec.inputs["name"]


async def describe(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    assert asked["flows"] == ["flows.hello"]
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    return [{"path": "flows.hello", "name": "Hello", "entry": "hello", "schema": schema, "release": "1"}]


def config(home: Path, **more: Any) -> NodeConfig:
    said = {"entries": ("flows.hello",), "name": "here.example", "hosts": ("10.0.0.1",), "announce_lan": False}
    return NodeConfig(home=home, **{**said, "disk_reserve_bytes": 0, **more})


async def test_a_peer_launches_and_follows_a_run(tmp_path: Path) -> None:
    network = MemoryNetwork()
    home = tmp_path / "home"
    async with InProcessExecutor({"hello": hello}) as executor:
        node = Node(config(home), executor=executor, transport=MemoryTransport(network), describe=describe)
        async with node, Host(Identity.from_seed(b"u" * 32), MemoryTransport(network)) as host:
            assert (node.name, [flow.path for flow in node.flows]) == ("here.example", ["flows.hello"])
            session = await host.connect(node.addresses)
            state = await request(session, "node.state")
            assert (state["name"], state["peer_id"]) == ("here.example", node.peer_id)
            launched = await request(session, "run.launch", {"path": "flows.hello", "inputs": {"name": "Ana"}})
            async with Call(session, "run.stream", {"fid": launched["fid"]}) as stream:
                events = [event["event"] async for event in stream]
                done = await stream.done()
            assert events == ["version", "flow", "inputs", "final"]
            assert done["state"] == "done"
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {path.name for path in home.iterdir()} >= {"node.key", "user.key", "node.db", "outputs", "node.lock"}


async def test_two_nodes_never_share_a_home(tmp_path: Path) -> None:
    async with InProcessExecutor({}) as executor:
        transport = MemoryTransport(MemoryNetwork())
        async with Node(config(tmp_path), executor=executor, transport=transport, describe=describe):
            with pytest.raises(UsageError, match="another node"):
                await Node(config(tmp_path), executor=executor, describe=describe).__aenter__()
        async with Node(config(tmp_path), executor=executor, transport=transport, describe=describe):
            pass


async def test_a_node_keeps_its_peer_id_and_its_port(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        async with InProcessExecutor({}) as executor:
            transport = MemoryTransport(MemoryNetwork())
            async with Node(config(tmp_path), executor=executor, transport=transport, describe=describe) as node:
                seen.append((node.peer_id, [str(address) for address in node.addresses]))
    assert seen[0] == seen[1]


async def test_a_scope_names_the_node_and_its_folder_is_a_root(tmp_path: Path) -> None:
    scope = tmp_path / "flows" / "scope.yaml"
    scope.parent.mkdir()
    scope.write_text("name: scope.example\nflows: [flows.hello]\n")
    asked: list[Mapping[str, Any]] = []

    async def listening(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        asked.append(request)
        return await describe(request)

    async with InProcessExecutor({}) as executor:
        settings = config(tmp_path / "home", entries=(), name=None, scope=scope)
        transport = MemoryTransport(MemoryNetwork())
        async with Node(settings, executor=executor, transport=transport, describe=listening) as node:
            assert node.name == "scope.example"
    assert (asked[0]["roots"], asked[0]["base"]) == ([str(scope.parent)], str(scope.parent))


async def test_a_start_that_fails_lets_the_home_go(tmp_path: Path) -> None:
    scope = tmp_path / "scope.yaml"
    scope.write_text("flwos: []\n")
    with pytest.raises(UsageError, match="flows"):
        await Node(config(tmp_path / "home", scope=scope), describe=describe).__aenter__()
    async with InProcessExecutor({}) as executor:
        transport = MemoryTransport(MemoryNetwork())
        async with Node(config(tmp_path / "home"), executor=executor, transport=transport, describe=describe):
            pass


def test_unknown_settings_and_bad_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="colour"):
        NodeConfig(home=tmp_path, colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="domain"):
        NodeConfig(home=tmp_path, name="a b")
