"""Runs on a node of its own process, followed by a client over WebRTC, beside bare Ray on the same machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from benchmarks import history, lives
from benchmarks.measure import Row, Series, Table, interleave

from kodo.client import Client

EVENTS = 10_000
CPUS = 2
OBJECT_STORE = "150MB"
BARE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
"""What bare Ray is told: nothing leaves the machine, nothing is written to the user's home."""
SCOPE = """
name: bench.local
flows: ["bench_flows"]
"""


@contextlib.asynccontextmanager
async def process(*command: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process that says when it is ready, in one line of JSON, and end it."""
    running = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[1],
        limit=1 << 20,
    )
    try:
        yield running
    finally:
        assert running.stdin is not None
        running.stdin.close()
        if running.returncode is None and "up" in command:
            running.terminate()
        try:
            await asyncio.wait_for(running.wait(), 30)
        except TimeoutError:
            running.kill()
            await running.wait()


async def line(running: asyncio.subprocess.Process) -> Any:
    """Read what a process says next."""
    assert running.stdout is not None
    while text := await asyncio.wait_for(running.stdout.readline(), 120):
        with contextlib.suppress(ValueError):  # Ray itself prints too
            return json.loads(text)
    raise RuntimeError("the process ended before it was ready")


async def ask(running: asyncio.subprocess.Process, question: str) -> float:
    """Ask the process of bare Ray for one measurement, ms."""
    assert running.stdin is not None
    running.stdin.write(question.encode() + b"\n")
    return float(await line(running))


def bare_ray() -> None:
    """The process of bare Ray: measures what it is asked for, line by line."""
    import ray

    ray.init(num_cpus=CPUS, include_dashboard=False, object_store_memory=150 << 20, log_to_driver=False)

    class Callee:
        def call(self) -> int:
            return 1

    actor: Any = ray.remote(num_cpus=0)(Callee)
    spare = actor.remote()
    ray.get(spare.call.remote())
    print(json.dumps("ready"), flush=True)
    for question in sys.stdin:
        begin = time.perf_counter()
        many = int(question) if question.strip().isdigit() else 1
        actors = [spare] if question.strip() == "spare" else [actor.remote() for _ in range(many)]
        ray.get([each.call.remote() for each in actors])
        print(json.dumps((time.perf_counter() - begin) * 1000), flush=True)
    ray.shutdown()


async def free_runner(client: Client) -> None:
    """Wait until a warm runner is free, as it is on a node that is not overrun."""
    node = await client.node("bench.local")
    while True:
        state = await node.request("node.state")
        if state["load"]["runners"]["free"] >= 2:
            return
        await asyncio.sleep(0.05)


async def measure(rounds: int) -> Table:
    """Measure the table."""
    with tempfile.TemporaryDirectory() as folder:
        scope = Path(folder) / "scope.yaml"
        scope.write_text(SCOPE)
        home = Path(folder) / "home"
        flows = Path(__file__).with_name("bench_flows.py")
        (Path(folder) / flows.name).write_text(flows.read_text())
        begin = time.perf_counter()
        up = ["up", str(scope), "--json", "--num-cpus", str(CPUS), "--object-store", OBJECT_STORE]
        async with (
            process(str(Path(sys.executable).with_name("koco")), *up, KODO_HOME=str(home)) as node,
            process(sys.executable, "-m", "benchmarks.runs", **BARE) as bare,
        ):
            await line(node)
            started = time.perf_counter() - begin
            await line(bare)
            async with Client(home=home) as client:
                table = Table("Runs", await rows(client, bare, rounds, started), [NOTE])

                async def twenty() -> list[float]:
                    return [await ask(bare, str(lives.AT_ONCE))]

                of = psutil.Process(node.pid)
                table.rows += await lives.rows(client, home, of, twenty, partial(free_runner, client), rounds)
        past = Path(folder) / "past"
        await history.fill(past)
        begin = time.perf_counter()
        async with process(str(Path(sys.executable).with_name("koco")), *up, KODO_HOME=str(past)) as node:
            await line(node)
            again = time.perf_counter() - begin
            async with Client(home=past) as client:
                table.rows.append(
                    Row("start with a past of 1,000,000 events", "s", Series((again,)), Series((started,)), "without")
                )
                table.rows += await history.rows(client, "bench.local")
        return table


NOTE = (
    f"{EVENTS:,} events: from the launch to the last at the client, each stored durably first, checked to be in order"
    " and once each; bare Ray: one call of an actor made ahead (spare) or made for it (fresh)"
)


async def rows(client: Client, bare: asyncio.subprocess.Process, rounds: int, started: float) -> list[Row]:
    """Measure all rows."""

    async def noop() -> list[float]:
        await free_runner(client)
        begin = time.perf_counter()
        run = await client.launch("bench.local/bench_flows.noop")
        first = 0.0
        async for event in run.follow():
            first = first or (time.perf_counter() - begin) * 1000
            if event.event == "final":
                return [first, (time.perf_counter() - begin) * 1000]
        raise RuntimeError("the run did not end with `final`")

    async def events() -> list[float]:
        await free_runner(client)
        begin = time.perf_counter()
        run = await client.launch("bench.local/bench_flows.events", inputs={"count": EVENTS})
        seen, numbers = [], []
        async for event in run.follow():
            seen.append(event.seq)
            if event.event == "result":
                numbers.append(event.data["number"])
        elapsed = time.perf_counter() - begin
        assert numbers == list(range(EVENTS))
        assert seen == list(range(1, len(seen) + 1))
        return [EVENTS / elapsed]

    async def spare() -> list[float]:
        return [await ask(bare, "spare")]

    async def fresh() -> list[float]:
        return [await ask(bare, "fresh")]

    (first, final), (spare_call,), (fresh_call,) = await interleave(rounds, noop, spare, fresh)
    ((rate,),) = await interleave(max(rounds // 2, 1), events)
    return [
        Row("launch → first event at the client (warm)", "ms", first, spare_call, "bare Ray, spare actor"),
        Row("launch → final of a no-op", "ms", final, fresh_call, "bare Ray, fresh actor"),
        Row(f"{EVENTS:,} events, durable and followed", "1/s", rate, higher_is_better=True),
        Row("nothing → able to launch", "s", Series((started,))),
    ]


if __name__ == "__main__":
    bare_ray()
