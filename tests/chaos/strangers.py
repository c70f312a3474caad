"""A user beside strangers: how long what it does takes, alone, and while `attacks` are under way.

    koco up · koco registry · a user ─► for some time alone ─► for some time beside all attacks ─► compared

The strangers have a process and addresses of their own on loopback; they share the machine, and step back for the
others' work (`nice`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kodo.client import Client
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, KodoError
from kodo.registry.client.client import RegistryClient
from tests.chaos.attacks import ATTACKS
from tests.chaos.soak import running_registry
from tests.support.koco import NodeProcess, end_all

__all__ = ["GOAL", "Beside", "beside_strangers"]

SCOPE = Path(__file__).parent / "scope" / "strangers.yaml"
GOAL = 2.0
"""How many times as long as alone an act of the user's may take beside strangers, at the 99th percentile."""
PATIENCE_S = 30.0
"""After which an act has failed."""
PAUSE_S = 0.1
LEAD_S = 5.0
"""For how long the attacks are under way before the user is looked at."""
CROWDS = 4
"""Processes of strangers."""
OUTPUT_BYTES = 4 << 20
SMALL_BYTES = 256 << 10


@dataclass
class Acts:
    """How long each act took, in seconds, and how it failed."""

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: Counter[str] = field(default_factory=Counter)

    def at(self, act: str, percent: int) -> float:
        """Give a percentile, in ms."""
        times = sorted(self.took[act])
        if len(times) < 2:
            return 1000 * sum(times)
        return 1000 * statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


@dataclass
class Beside:
    """What came out.

    Attributes:
        alone, crowded: the user's acts without and with strangers.
        told: what strangers did and how it was refused, by attack.
        most: the most memory and descriptors that the node and the registry had.
    """

    alone: Acts
    crowded: Acts
    told: dict[str, dict[str, int]]
    most: dict[str, int]

    def ratio(self, act: str) -> float:
        """Give how many times as long an act takes beside strangers, at the 99th percentile."""
        return self.crowded.at(act, 99) / max(self.alone.at(act, 99), 0.001)


class _Node(NodeProcess):
    scope = SCOPE


class User:
    """Calls, launches and follows, downloads, searches, without end."""

    def __init__(self, client: Client, node: str, registry: str, folder: Path):
        self._client, self._node, self._registry, self._folder = client, node, registry, folder

    async def prepare(self) -> str:
        """Make what is downloaded; give a link for strangers."""
        large = await self._client.launch("strangers_flows.make", node=self._node, inputs={"size": OUTPUT_BYTES})
        await large.wait()
        self._small = await self._client.launch("strangers_flows.make", node=self._node, inputs={"size": SMALL_BYTES})
        await self._small.wait()
        return str(await large.share())

    async def act_for(self, seconds: float) -> Acts:
        """Do all of it in turn."""
        acts = Acts()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for act in (self.call, self.connect, self.run, self.download, self.search):
                begin = time.monotonic()
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        await act()
                except CallError as error:
                    acts.failed[f"{act.__name__}: {error.code} {error.reason}"] += 1
                except (KodoError, OSError, TimeoutError) as error:
                    acts.failed[f"{act.__name__}: {type(error).__name__}"] += 1
                acts.took[act.__name__].append(time.monotonic() - begin)
                await asyncio.sleep(PAUSE_S)
        return acts

    async def call(self) -> None:
        await (await self._client.node(self._node)).request("node.state")

    async def connect(self) -> None:
        async with _client(self._folder / "again", self._client._open_host().identity) as client:
            await (await client.node(self._node)).request("node.state")

    async def run(self) -> None:
        run = await self._client.launch("strangers_flows.work", node=self._node, inputs={"n": 3})
        view = await run.wait()
        assert view.final is not None, view.fatal

    async def download(self) -> None:
        await self._small.download(self._folder / "downloads", overwrite=True, keep=True)
        await asyncio.to_thread((self._folder / "downloads" / "made.bin").unlink)

    async def search(self) -> None:
        async with RegistryClient(self._registry) as registry:
            await registry.flows(search="*work*")


def _client(home: Path, identity: Identity | None = None) -> Client:
    return Client(home, lan=False, registries=[], timeout=PATIENCE_S, identity=identity)


async def beside_strangers(
    folder: Path, seconds: float, attacks: Sequence[str] = (), say: Callable[[str], None] = print
) -> Beside:
    """Measure both for so many seconds, and tell."""
    homes = {name: folder / name for name in ("node", "registry", "user", "strangers")}
    async with contextlib.AsyncExitStack() as stack:
        for home in homes.values():
            stack.callback(end_all, home)
        registry_pid, registry = await stack.enter_async_context(running_registry(homes["registry"]))
        words = ["--host", "127.0.0.1", "--registry", registry]
        node = await asyncio.to_thread(_Node, homes["node"], *words)
        stack.callback(node.stop)
        client = await stack.enter_async_context(_client(homes["user"]))
        user = User(client, node.address, registry, homes["user"])
        link = await user.prepare()
        await user.act_for(5.0)
        alone = await user.act_for(seconds)
        say(f"alone: {sum(map(len, alone.took.values()))} acts")
        chosen = list(attacks) or list(ATTACKS)
        given = [node.address, registry, link, str(homes["strangers"]), str(seconds + LEAD_S)]
        most: dict[str, int] = {}
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch({"node": node.process.pid, "registry": registry_pid}, most))
            # Several processes: what an attack costs its own is not to slow the others down.
            crowds = [group.create_task(_crowd(given, chosen[each::CROWDS])) for each in range(CROWDS)]
            await asyncio.sleep(LEAD_S)
            crowded = await user.act_for(seconds)
            told = {name: counts for crowd in crowds for name, counts in (await crowd).items()}
            watching.cancel()
    result = Beside(alone, crowded, told, most)
    tell(result, say)
    return result


async def _crowd(given: Sequence[str], attacks: Sequence[str]) -> dict[str, dict[str, int]]:
    """Have a process carry out some attacks; give what became of them."""
    if not attacks:
        return {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.chaos.attacks", *given, *attacks, stdout=asyncio.subprocess.PIPE
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    found: dict[str, dict[str, int]] = json.loads(told or b"{}")
    return found


async def _watch(pids: dict[str, int], most: dict[str, int]) -> None:
    """Note the most that processes have."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    while True:
        for name, process in processes.items():
            with contextlib.suppress(psutil.Error):
                for what, now in (("MiB", process.memory_info().rss >> 20), ("descriptors", process.num_fds())):
                    most[f"{name} {what}"] = max(most.get(f"{name} {what}", 0), now)
        await asyncio.sleep(0.2)


def tell(result: Beside, say: Callable[[str], None]) -> None:
    """Print it."""
    say(
        f"{'ms':10} {'p50 alone':>10} {'p99 alone':>10} {'p50 beside':>11} {'p99 beside':>11} {'p99 ratio':>10}  acts"
    )
    for act in result.alone.took:
        alone, crowded = result.alone, result.crowded
        times: list[Any] = [each.at(act, percent) for each in (alone, crowded) for percent in (50, 99)]
        row = f"{times[0]:10.1f} {times[1]:10.1f} {times[2]:10.1f} {times[3]:10.1f} {result.ratio(act):10.1f}"
        say(f"{act:10} {row}  {len(alone.took[act])} {len(crowded.took[act])}")
    say(f"failed: alone {dict(result.alone.failed)}, beside strangers {dict(result.crowded.failed)}")
    say(f"the most: {result.most}")
    for attack, told in result.told.items():
        say(f"{attack}: {told}")
