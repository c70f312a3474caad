"""A node with a long past: 10,000 finished runs with 1,000,000 events in its database."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from benchmarks.measure import Row, Series

from kodo.client import Client
from kodo.node.home import hold_home
from kodo.node.store.rows import NewEvent, NewRun
from kodo.node.store.store import Store
from kodo.p2p.net.keystore import load_identity, make_home
from kodo.protocol.ids import make_id

RUNS = 10_000
EVENTS = 100
LISTS = 200


async def fill(home: Path) -> None:
    """Write the past into the database of a home whose node is not running."""
    make_home(home)
    with hold_home(home):
        principal = str(load_identity(home, "user").peer_id)
        first = [NewEvent.make("version", {}), NewEvent.make("flow", {"name": "Past"}), NewEvent.make("inputs", {})]
        said = [NewEvent.make("result", {"number": n, "text": "x" * 60}, n) for n in range(1, EVENTS - 3)]
        said.append(NewEvent.make("final", {"result": "done", "runtime_s": 1.0, "runtime": "1 s"}, EVENTS - 3))
        begun = int(time.time() * 1000) - RUNS * 1000
        async with Store(home / "node.db") as store:

            async def past(number: int) -> None:
                fid = make_id(begun + number * 1000, os.urandom(10))
                path = f"bench_flows.past{number % 7}"
                await store.create(NewRun(fid, principal, path, "Past", "bench_flows:past"), first)
                await store.append(fid, said)

            for start in range(0, RUNS, 500):
                await asyncio.gather(*map(past, range(start, start + 500)))


async def rows(client: Client, node: str) -> list[Row]:
    """Measure `run.list` of a node with that past, in turn with every filter and page."""
    remote = await client.node(node)
    pages: list[dict[str, object]] = [
        {"pp": 100},
        {"pp": 100, "p": 50},
        {"pp": 100, "state": "done"},
        {"pp": 100, "path": "bench_flows.past3"},
    ]
    taken: list[float] = []
    for number in range(LISTS):
        begin = time.perf_counter()
        answer = await remote.request("run.list", pages[number % len(pages)])
        taken.append((time.perf_counter() - begin) * 1000)
        if len(answer["result"]) != 100:
            raise RuntimeError("a page is not full")
    taken.sort()
    return [
        Row(f"run.list of {RUNS:,} runs, {RUNS * EVENTS:,} events: p50", "ms", Series((taken[LISTS // 2],))),
        Row(f"run.list of {RUNS:,} runs, {RUNS * EVENTS:,} events: p95", "ms", Series((taken[int(LISTS * 0.95)],))),
    ]
