"""What followers and operators feel of runs: delays, many at once, a dead runner, a crowd of followers, memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

import psutil
from benchmarks.measure import Measurement, Row, Series, interleave

from kodo.client import Client
from kodo.node.executors.ray.cluster import MARK

NODE = "bench.local"
FOLLOWERS = 200
CROWD_SECONDS = 10
AT_ONCE = 20

Ready = Callable[[], Awaitable[None]]


async def rows(
    client: Client,
    home: Path,
    node: psutil.Process,
    bare: Measurement,
    ready: Ready,
    rounds: int,
    groups: Collection[str],
) -> list[Row]:
    """Measure the rows of `groups`.

    Args:
        home: of the client.
        bare: starts twenty fresh actors of bare Ray at once and waits for them; gives ms.
        ready: waits until the node has warm runners.
    """

    async def at_once() -> list[float]:
        await ready()
        begin = time.perf_counter()
        await asyncio.gather(*(_final(client, "noop") for _ in range(AT_ONCE)))
        return [(time.perf_counter() - begin) * 1000]

    few = max(rounds // 2, 2)
    measured: list[Row] = []
    if "many" in groups:
        (ours,), (theirs,) = await interleave(few, at_once, bare)
        measured.append(Row(f"{AT_ONCE} no-ops at once, all final", "ms", ours, theirs, "bare Ray, fresh actors"))
    if "delays" in groups:
        await ready()
        ticks = await _ticks(client)
        commits = await asyncio.to_thread(_commits, home.with_name("commits.db"))
        measured += delays("one event, emit → client, 10/s", ticks, commits, "a commit of SQLite alone")
        await ready()
        measured += delays("lock answered → flow goes on", await _answers(client))
        dead = []
        for _ in range(few):
            await ready()
            dead.append(await _dead(client))
        measured.append(Row("dead runner known to a follower", "ms", Series(tuple(dead))))
    if "idle" in groups:
        await ready()
        idle, memory, own = await _idle(client, node)
        measured += [
            Row("node with an idle follower", "% of a core", Series((idle,))),
            Row("memory idle, all processes (PSS)", "MB", Series((memory,))),
            Row("memory idle, the node's own process (PSS)", "MB", Series((own,))),
        ]
    if "crowd" in groups:
        await ready()
        used, late = await _crowd(client, home, node)
        measured += [
            Row(f"{FOLLOWERS} followers of 100 events/s: node", "% of a core", Series((used,))),
            Row(f"{FOLLOWERS} followers of 100 events/s: emit → client p95", "ms", Series((late,))),
        ]
    return measured


def delays(figure: str, values: Sequence[float], reference: Sequence[float] = (), name: str = "") -> list[Row]:
    """Return the rows of many delays, ms: the median with the spread, and the 95th percentile."""
    if reference:
        ours, theirs = delays(figure, values), delays(name, reference)
        middle = Series((theirs[0].ours.median,))
        return [
            Row(ours[0].figure, "ms", Series((ours[0].ours.median,)), middle, name),
            Row(ours[1].figure, "ms", ours[1].ours, theirs[1].ours, name),
        ]
    values = sorted(values)
    low, high = values[0], values[-1]
    p95 = values[int(len(values) * 0.95)]
    return [
        Row(f"{figure}, p50", "ms", Series((low, statistics.median(values), high))),
        Row(f"{figure}, p95", "ms", Series((p95,))),
    ]


async def _final(client: Client, flow: str, **inputs: object) -> None:
    run = await client.launch(f"{NODE}/bench_flows.{flow}", inputs=inputs)
    view = await run.wait()
    if view.final is None:
        raise RuntimeError(f"{flow} did not end with `final`: {view.fatal}")


async def _ticks(client: Client) -> list[float]:
    run = await client.launch(f"{NODE}/bench_flows.ticks", inputs={"count": 60, "seconds": 0.1})
    return [(time.monotonic() - event.data["at"]) * 1000 async for event in run.follow() if event.event == "result"][
        5:
    ]


def _commits(path: Path) -> list[float]:
    """Commit a row ten times a second to a file of its own, as durably as the node does; gives ms."""
    taken = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (data BLOB)")
        for _ in range(60):
            time.sleep(0.1)
            begin = time.perf_counter()
            connection.execute("INSERT INTO rows VALUES (?)", (bytes(200),))
            taken.append((time.perf_counter() - begin) * 1000)
    return taken


async def _answers(client: Client) -> list[float]:
    run = await client.launch(f"{NODE}/bench_flows.asks", inputs={"count": 20})
    asked: list[float] = []
    passed: list[float] = []
    async with asyncio.TaskGroup() as group:
        async for event in run.follow():
            if event.event == "lock":
                await asyncio.sleep(0.05)
                asked.append(time.monotonic())
                group.create_task(run.answer(event.data["lid"], True))
            elif event.event == "result":
                passed.append((event.data["at"] - asked[-1]) * 1000)
    return passed[2:]


async def _dead(client: Client) -> float:
    run = await client.launch(f"{NODE}/bench_flows.waits")
    begin = 0.0
    async for event in run.follow():
        if event.event == "result":
            begin = time.perf_counter()
            os.kill(event.data["pid"], signal.SIGKILL)
    return (time.perf_counter() - begin) * 1000


async def _idle(client: Client, node: psutil.Process) -> tuple[float, float, float]:
    run = await client.launch(f"{NODE}/bench_flows.waits")
    following = asyncio.create_task(run.wait())
    await asyncio.sleep(8)
    before, begin = sum(node.cpu_times()[:2]), time.perf_counter()
    await asyncio.sleep(10)
    used = (sum(node.cpu_times()[:2]) - before) / (time.perf_counter() - begin) * 100
    await run.kill()
    await following
    await asyncio.sleep(5)
    family = [node, *node.children(recursive=True), *_ray_of(node)]
    sizes = {}
    for process in family:
        with contextlib.suppress(psutil.Error):
            sizes[process.pid] = process.memory_full_info().pss / 1e6
    return used, sum(sizes.values()), sizes[node.pid]


def _ray_of(node: psutil.Process) -> list[psutil.Process]:
    """Find the processes of the node's embedded Ray: it is no child of the node's."""
    home = node.environ()["KODO_HOME"]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if home in " ".join(process.cmdline()) or home in process.environ().get(MARK, ""):
                found += [process, *process.children(recursive=True)]
    return found


async def _crowd(client: Client, home: Path, node: psutil.Process) -> tuple[float, float]:
    """Follow one run by many sessions; give the node's use of a core, and the 95th percentile of the delays, ms."""
    async with contextlib.AsyncExitStack() as stack:
        address = (await client.node(NODE)).addresses[0]
        folders = [home.with_name(f"follower{number}") for number in range(FOLLOWERS)]
        for folder in folders:
            folder.mkdir()
            (folder / "user.key").write_bytes((home / "user.key").read_bytes())
            (folder / "user.key").chmod(0o600)
        crowd = [await stack.enter_async_context(Client(home=folder, lan=False)) for folder in folders]
        run = await client.launch(
            f"{NODE}/bench_flows.ticks", inputs={"count": 100 * (CROWD_SECONDS + 4), "seconds": 0.01}
        )
        delays: list[float] = []

        async def follow(one: Client) -> None:
            seqs = []
            following = await one.run(f"{address}/{run.fid}")
            async for event in following.follow():
                seqs.append(event.seq)
                if event.event == "result" and event.seq % 50 == 0:
                    delays.append((time.monotonic() - event.data["at"]) * 1000)
            if seqs != list(range(1, len(seqs) + 1)):
                raise RuntimeError("a follower missed an event")

        async with asyncio.TaskGroup() as group:
            for one in crowd:
                group.create_task(follow(one))
            await asyncio.sleep(3.5)
            delays.clear()
            before, begin = sum(node.cpu_times()[:2]), time.perf_counter()
            await asyncio.sleep(CROWD_SECONDS)
            used = (sum(node.cpu_times()[:2]) - before) / (time.perf_counter() - begin) * 100
            seen = sorted(delays)
        return used, seen[int(len(seen) * 0.95)]
