"""What comes and goes leaves nothing in anybody's memory: each life cycle, hundreds of times.

Two nodes, a registry and their users in this process, with flows in process and sessions in memory. What there is
more of after each of several rounds, for each cycle, grows without end; what caches and pools keep stops to grow.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kodo.client import Client
from kodo.client.config import Loaded
from kodo.node import app
from kodo.node.config import NodeConfig
from kodo.node.executors.executor import Runner, RunSpec
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.p2p.core.identity import Identity
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport
from kodo.registry.server import Registry, RegistryConfig
from kodo.settings.home import Settings
from tests.support.census import Census, grown, old_objects_aside, take_census
from tests.support.life_cycles import CYCLES, STRANGERS, Visitor

WARM_UP = STRANGERS
ROUND = 50
ROUNDS = 10
"""The most that are looked at: what caches and pools keep stops to grow in one of them."""

_lids = (f"{number:026d}" for number in itertools.count(1))


async def count(run: InProcessRunner) -> int:
    for number in range(run.spec.inputs["n"]):
        run.emit("result", {"number": number})
    return int(run.spec.inputs["n"])


async def ask(run: InProcessRunner) -> Any:
    return await run.lock(next(_lids), {"type": "object"})


async def make(run: InProcessRunner) -> None:
    for number in range(run.spec.inputs["files"]):
        run.output(f"made/file{number}.bin", bytes([number]) * run.spec.inputs["size"])


async def relay(run: InProcessRunner) -> Any:
    inputs = run.spec.inputs
    launched = await run.ask("delegate.launch", flow=inputs["target"], inputs=inputs["inputs"])
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["event"] not in ("final", "fatal"):
        after = seen[-1]["seq"] if seen else 0
        seen += (await run.ask("delegate.events", run=launched["run"], after=after))["events"]
    return seen[-1]["data"]["result"]


FLOWS = {"story.count": count, "story.ask": ask, "story.make": make, "abilities.relay": relay}


async def describe(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"path": path, "name": path, "entry": path, "schema": {"type": "object"}} for path in FLOWS]


class ForgetfulExecutor(InProcessExecutor):
    """Keeps nothing of runners that were released, as one whose runners are processes."""

    async def launch(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None = None) -> Runner:
        runner = await super().launch(spec, about_to_start)
        self.launched.clear()
        for fid in [fid for fid, each in self.runners.items() if each.released]:
            del self.runners[fid]
        return runner


@pytest.fixture
async def visitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Visitor]:
    network = MemoryNetwork()
    transport = partial(MemoryTransport, network)

    def outgoing(config: NodeConfig, identity: Identity) -> Client:
        settings = Settings.model_validate({"registry": [], "lan": False})
        loaded = Loaded(config.home / "outgoing", settings, {})
        return Client(settings=loaded, identity=identity, transport=transport())

    def client(identity: Identity | None = None) -> Client:
        return Client(tmp_path / "user", registries=[], finders=[], transport=transport(), identity=identity)

    monkeypatch.setattr(app, "outgoing_client", outgoing)
    async with AsyncExitStack() as stack:
        addresses = []
        for number in (1, 2):
            executor = await stack.enter_async_context(ForgetfulExecutor(FLOWS))
            config = NodeConfig(
                home=tmp_path / f"node{number}",
                entries=("flows",),
                name=f"n{number}.example",
                hosts=(f"10.0.0.{number}",),
                announce_lan=False,
                disk_reserve_bytes=0,
            )
            node = app.Node(config, executor=executor, transport=transport(), describe=describe)
            await stack.enter_async_context(node)
            addresses.append(str(node.addresses[0]))
        registry = await stack.enter_async_context(Registry(RegistryConfig(home=tmp_path / "registry", port=0)))
        of_all = await stack.enter_async_context(client())
        visitor = Visitor(of_all, client, *addresses, registry.url, tmp_path / "downloads")
        visitor.folder.mkdir()
        await visitor.prepare()
        yield visitor


async def settled_census(tasks: int) -> Census:
    """Count once what the cycles began has come to its end."""
    for _ in range(10_000):
        if len(asyncio.all_tasks()) <= tasks:
            break
        await asyncio.sleep(0.001)
    return await take_census()


@pytest.mark.parametrize("name", CYCLES)
async def test_nothing_is_left_of(name: str, visitor: Visitor, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(WARM_UP):
        await CYCLES[name](visitor)
    tasks = len(asyncio.all_tasks())
    growing: dict[str, list[float]] | None = None
    with old_objects_aside():
        before = await settled_census(tasks)
        for _ in range(ROUNDS):
            for _ in range(ROUND):
                await CYCLES[name](visitor)
            after = await settled_census(tasks)
            more = grown(before, after, ROUND)
            kinds = more if growing is None else growing.keys() & more
            growing = {kind: [*(growing or {}).get(kind, []), more[kind]] for kind in kinds}
            before = after
            if not growing:
                break
    # What strangers can have written to a log fills a disk in the end.
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert growing == {}
