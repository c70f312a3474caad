"""Thousands of each life cycle against a node and a registry, and what each leaves in the memory of all three.

    koco up · koco registry · a client, in processes of their own
    for each cycle: some ─► weigh ─► half ─► weigh ─► half ─► weigh

Memory is what a process has for itself alone; what caches take first shows in the first half and not in the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from kodo.client import Client
from kodo.p2p.core.identity import Identity
from tests.support.koco import KOCO, NodeProcess, end_all, environment
from tests.support.life_cycles import CYCLES, OTHERS, Visitor

__all__ = ["running_registry", "soak"]

PARTIES = ("node", "registry", "client")
WARM_UP = 50
SETTLE_S = 2.0
"""Seconds for what the last cycles began to come to its end, before memory is looked at."""
READY_S = 60.0


class Parties:
    """The processes that are weighed."""

    def __init__(self, node: int, registry: int, client: int):
        self._processes = dict(zip(PARTIES, (node, registry, client), strict=True))

    def weigh(self) -> dict[str, int]:
        """Give the bytes that each has for itself, and how many descriptors are open."""
        weights = {}
        for name, pid in self._processes.items():
            process = psutil.Process(pid)
            weights[name] = process.memory_full_info().uss
            weights[f"{name} descriptors"] = process.num_fds()
        return weights


async def soak(folder: Path, cycles: Sequence[str], count: int, say: Callable[[str], None] = print) -> None:
    """Go through each of `cycles` so many times, and say what a cycle leaves behind, in bytes."""
    homes = {name: folder / name for name in ("node", "other", "registry", "user")}
    async with contextlib.AsyncExitStack() as stack:
        for home in homes.values():
            stack.callback(end_all, home)
        registry_pid, registry = await stack.enter_async_context(running_registry(homes["registry"]))
        node = await asyncio.to_thread(NodeProcess, homes["node"], "--registry", registry)
        stack.callback(node.stop)
        other = node
        if OTHERS & set(cycles):
            other = await asyncio.to_thread(NodeProcess, homes["other"])
            stack.callback(other.stop)
        downloads = folder / "downloads"
        await asyncio.to_thread(downloads.mkdir)
        given = [homes["user"], node.address, other.address, registry, downloads]
        client = await stack.enter_async_context(_process(sys.executable, "-m", __name__, *map(str, given)))
        await _told(client)
        parties = Parties(node.process.pid, registry_pid, client.pid)
        parts = " ".join(f"{party:>16}" for party in PARTIES)
        say(f"{'bytes per cycle, first and second half':42} {parts}    ms  descriptors")
        for name in cycles:
            await _carry_out(client, name, min(WARM_UP, count))
            weights = [await _settled(parties)]
            begin = time.monotonic()
            for _ in range(2):
                await _carry_out(client, name, count // 2)
                weights.append(await _settled(parties))
            took = time.monotonic() - begin - 2 * SETTLE_S
            say(_row(name, weights, count // 2, took))


def _row(name: str, weights: list[dict[str, int]], half: int, took: float) -> str:
    before, middle, after = weights
    cells = []
    for party in PARTIES:
        first, second = (middle[party] - before[party]) / half, (after[party] - middle[party]) / half
        cells.append(f"{first:8.0f} {second:7.0f}")
    opened = sum(after[key] - before[key] for key in after if key.endswith("descriptors"))
    return f"{name:42} " + " ".join(cells) + f" {1000 * took / (2 * half):5.1f} {opened:5d}"


async def _settled(parties: Parties) -> dict[str, int]:
    await asyncio.sleep(SETTLE_S)
    return parties.weigh()


async def _carry_out(client: asyncio.subprocess.Process, name: str, count: int) -> None:
    assert client.stdin is not None
    client.stdin.write(json.dumps([name, count]).encode() + b"\n")
    await client.stdin.drain()
    await _told(client)


async def _told(process: asyncio.subprocess.Process) -> Any:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a process of the soak has ended")
    return json.loads(line)


@contextlib.asynccontextmanager
async def _process(*command: str, **more: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20, **more
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def running_registry(
    home: Path, *words: str, program: Sequence[str] = (KOCO,), more: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[tuple[int, str]]:
    """Run a registry; return its process and URL.

    Args:
        words: further options.
        program: what stands for `koco`.
        more: further environment.
    """
    command = [*program, "registry", "--port", "0", "--json", *words]
    async with _process(*command, env=environment(home, **more)) as process:
        async with asyncio.timeout(READY_S):
            url = (await _told(process))["url"]
        yield process.pid, str(url)


# --- the client's process ---


async def visit(home: Path, node: str, other: str, registry: str, folder: Path) -> None:
    """Go through cycles as they are asked for on stdin, a JSON list of a name and a count each."""

    def make_client(identity: Identity | None = None) -> Client:
        return Client(home, lan=False, registries=[], timeout=60.0, identity=identity)

    async with make_client() as client:
        visitor = Visitor(client, make_client, node, other, registry, folder)
        await visitor.prepare()
        print(json.dumps("ready"), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, count = json.loads(line)
            for _ in range(count):
                await CYCLES[name](visitor)
            print(json.dumps("done"), flush=True)


if __name__ == "__main__":
    _home, _node, _other, _url, _folder = sys.argv[1:]
    asyncio.run(visit(Path(_home), _node, _other, _url, Path(_folder)))
