"""A registry at its full size: each kind of read, heartbeats beside reads, memory, file, restart.

The registry is a process of its own, asked over HTTP on loopback. Its file is filled first, which takes minutes:
`--keep DIR` keeps it for the next time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import psutil
from benchmarks.measure import Row, Series, Table
from benchmarks.registry_fill import FLOWS_PER_NODE, enliven, fill, identity, words
from benchmarks.registry_mesh import mesh

from kodo.p2p.errors import CallError
from kodo.registry.client.client import RegistryClient
from kodo.registry.records.record import Heartbeat, sign_heartbeat

READS = 40
BEATS = 6_000
SENDERS = 32
SERVE = """
import asyncio, sys
from pathlib import Path
from kodo.registry.server import Registry, RegistryConfig

async def main():
    async with Registry(RegistryConfig(home=Path(sys.argv[1]), port=0)) as registry:
        print(registry.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

Given = Mapping[str, str | int]
Make = Callable[[random.Random], Given]


def _frequent(rng: random.Random) -> str:
    return words()[0][rng.randrange(50)]


def _middling(rng: random.Random) -> str:
    return words()[0][rng.randrange(200, 3000)]


def _rare(rng: random.Random) -> str:
    return words()[0][rng.randrange(5000, 20_000)]


def _foreign(rng: random.Random) -> str:
    return rng.choice(("GRÖSSE", "straße", "ΕΛΛΆΔΑ", "анализ", "市場調査", "résumé"))


FLOW_READS: Mapping[str, Make] = {
    "all": lambda rng: {},
    "all, deep page": lambda rng: {"p": rng.randrange(1, 100)},
    "search, frequent word": lambda rng: {"search": _frequent(rng)},
    "search, frequent word, deep page": lambda rng: {"search": _frequent(rng), "p": rng.randrange(2, 30)},
    "search, middling word": lambda rng: {"search": _middling(rng)},
    "search, rare word": lambda rng: {"search": _rare(rng)},
    "search, nothing fits": lambda rng: {"search": "zzqqzz"},
    "search, one character": lambda rng: {"search": rng.choice("aeß数")},
    "search, two characters": lambda rng: {"search": rng.choice(("an", "st", "zv", "数据", "čt"))},
    "search, Unicode": lambda rng: {"search": _foreign(rng)},
    "search, glob from the start": lambda rng: {"search": f"{_middling(rng)}*"},
    "search, glob of two words": lambda rng: {"search": f"*{_middling(rng)}*{_frequent(rng)}*"},
    "search, glob with a set": lambda rng: {"search": f"*{_middling(rng)[:3]}[a-m]*"},
    "search, by online desc, name": lambda rng: {"search": _middling(rng), "by": "online desc,name asc"},
    "query, online and a number": lambda rng: {"query": f"online and performance > {rng.random() * 4:.2f}"},
    "query, rare number": lambda rng: {"query": f"performance > {4.95 + rng.random() * 0.05:.3f}"},
    "query, contains": lambda rng: {"query": f'name.str.lower().str.contains("{_middling(rng)[:7]}")'},
    "query, a tag": lambda rng: {"query": f'"{words()[0][rng.randrange(500)]}" in tags'},
    "query, four conditions": lambda rng: {
        "query": f'online and performance > 1.2 and "{words()[0][rng.randrange(500)]}" in tags '
        f'and name.str.lower().str.contains("{_frequent(rng)[:5]}")'
    },
    "query, equals": lambda rng: {"query": f'organization == "{_middling(rng).title()} GmbH"'},
    "query, dates": lambda rng: {"query": f"published >= '2026-0{rng.randrange(1, 9)}-01' and online"},
    "by performance": lambda rng: {"by": "performance desc"},
    "by availability": lambda rng: {"by": "availability desc"},
    "by online, name": lambda rng: {"by": "online desc,name asc"},
    "by published": lambda rng: {"by": "published desc"},
}
NODE_READS: Mapping[str, Make] = {
    "all": lambda rng: {},
    "search, middling word": lambda rng: {"search": _middling(rng)},
    "search, rare word": lambda rng: {"search": _rare(rng)},
    "query": lambda rng: {"query": "online and performance > 4.5"},
    "by online, name": lambda rng: {"by": "online desc,name asc"},
    "by seen_at": lambda rng: {"by": "seen_at desc"},
}


async def measure(rounds: int, nodes: int = 100_000, keep: Path | None = None) -> Table:
    """Measure the table; `keep` is a folder whose file is used again."""
    with contextlib.ExitStack() as stack:
        home = keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows: list[Row] = []
        rate = await fill(home / "registry.db", nodes)
        if rate:
            rows.append(Row("records stored", "1/s", Series((rate,)), higher_is_better=True))
        enliven(home / "registry.db")
        empty = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        starts, bare = [], []
        for _ in range(rounds):
            async with running(home) as (_, _, seconds):
                starts.append(seconds)
            async with running(empty) as (_, _, seconds):
                bare.append(seconds)
        rows.append(Row("start to first answer", "s", Series(tuple(starts)), Series(tuple(bare)), "empty file"))
        async with running(home) as (process, client, _):
            rows += await heartbeats(client, process, nodes)
            for kind, reads, call in (("flows", FLOW_READS, client.flows), ("nodes", NODE_READS, client.nodes)):
                for name, make in reads.items():
                    rows += await timed(f"GET /{kind}, {name}", make, call, process)
            rows.append(Row("memory, RSS", "MB", Series((process.memory_info().rss / 1e6,))))
        size = (home / "registry.db").stat().st_size
    rows.append(Row("file", "MB", Series((size / 1e6,))))
    rows += await mesh(rounds)
    flows = nodes * FLOWS_PER_NODE
    return Table("Registry", rows, [f"{nodes:,} nodes with {flows:,} flows; times are p50 and p95 of {READS} reads"])


@contextlib.asynccontextmanager
async def running(home: Path) -> AsyncIterator[tuple[psutil.Process, RegistryClient, float]]:
    """Run a registry on `home`: its process, a client, and the seconds until it answered."""
    begin = time.perf_counter()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(home), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        url = (await child.stdout.readline()).decode().strip()
        async with RegistryClient(url) as client:
            await client.registry_state()
            yield psutil.Process(child.pid), client, time.perf_counter() - begin
    finally:
        child.terminate()
        await child.wait()


async def timed(figure: str, make: Make, call: Callable[..., object], process: psutil.Process) -> list[Row]:
    """Read `READS` times, each with other words; a read that is stopped for its time counts with that time."""
    rng, times, stopped, before = random.Random(3), [], 0, spent(process)
    for _ in range(READS):
        begin = time.perf_counter()
        try:
            await call(**make(rng))  # type: ignore[misc]
        except CallError as error:
            if error.code != 422:
                raise
            stopped += 1
        times.append((time.perf_counter() - begin) * 1000)
    work = (spent(process) - before) / READS * 1000
    late = f", {stopped} of {READS} stopped" if stopped else ""
    return [
        Row(f"{figure}, p50", "ms", Series((statistics.median(times),))),
        Row(f"{figure}, p95{late}", "ms", Series((statistics.quantiles(times, n=20)[-1],))),
        Row(f"{figure}, CPU of the registry a read", "ms", Series((work,))),
    ]


def spent(process: psutil.Process) -> float:
    """Return the seconds of CPU that `process` has used."""
    used = process.cpu_times()
    return float(used.user + used.system)


async def heartbeats(client: RegistryClient, process: psutil.Process, nodes: int) -> list[Row]:
    """Send heartbeats of many nodes at once, while somebody searches; each node may send one."""
    numbers = [number for number in range(1, nodes + 1) if number % 20][:BEATS]
    now = time.time_ns() // 1_000_000
    signed = [
        sign_heartbeat(Heartbeat(peer_id=str(identity(number).peer_id), seq=1, at=now), identity(number))
        for number in numbers
    ]
    waiting = iter(signed)
    stop = asyncio.Event()
    rng, reads = random.Random(5), [0]

    async def send() -> None:
        for each in waiting:
            await client.state(each)

    async def search() -> None:
        while not stop.is_set():
            with contextlib.suppress(CallError):
                await client.flows(search=_rare(rng))
            reads[0] += 1

    before = spent(process)
    begin = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(search())
        await asyncio.gather(*(send() for _ in range(SENDERS)))
        stop.set()
        await reader
    seconds = time.perf_counter() - begin
    return [
        Row(
            f"heartbeats beside {reads[0] / seconds:.0f} searches/s",
            "1/s",
            Series((len(signed) / seconds,)),
            higher_is_better=True,
        ),
        Row("CPU of the registry meanwhile", "cores", Series(((spent(process) - before) / seconds,))),
    ]
