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
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
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
    """Ask the process of bare Ray for one measurement, ms; or of events, per second."""
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

        def say(self, count: int) -> Iterator[dict[str, int]]:
            for number in range(count):
                yield {"number": number}

    actor: Any = ray.remote(num_cpus=0)(Callee)
    spare = actor.remote()
    ray.get(spare.call.remote())
    print(json.dumps("ready"), flush=True)
    for question in sys.stdin:
        begin = time.perf_counter()
        if question.strip() == "events":
            stream = spare.say.options(num_returns="streaming").remote(EVENTS)
            assert [ray.get(each)["number"] for each in stream] == list(range(EVENTS))
            print(json.dumps(EVENTS / (time.perf_counter() - begin)), flush=True)
            continue
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


GROUPS = ("launch", "events", "many", "delays", "idle", "crowd", "past")
"""The groups of rows."""

LAUNCHES = 20
"""How many launches the percentiles are of, at least."""


async def measure(rounds: int, groups: Sequence[str] = ()) -> Table:
    """Measure the table, or some groups of it."""
    groups = groups or GROUPS
    table = Table("Runs", [], [NOTE])
    with tempfile.TemporaryDirectory() as folder:
        scope = Path(folder) / "scope.yaml"
        scope.write_text(SCOPE)
        home = Path(folder) / "home"
        flows = Path(__file__).with_name("bench_flows.py")
        (Path(folder) / flows.name).write_text(flows.read_text())
        begin = time.perf_counter()
        koco = str(Path(sys.executable).with_name("koco"))
        up = ["up", str(scope), "--json", "--num-cpus", str(CPUS), "--object-store", OBJECT_STORE]
        async with (
            process(koco, *up, KODO_HOME=str(home)) as node,
            process(sys.executable, "-m", "benchmarks.runs", **BARE) as bare,
        ):
            await line(node)
            started = time.perf_counter() - begin
            await line(bare)
            async with Client(home=home) as client:
                table.rows += await rows(client, bare, rounds, groups)
                table.rows.append(Row("nothing → able to launch", "s", Series((started,))))

                async def twenty() -> list[float]:
                    return [await ask(bare, str(lives.AT_ONCE))]

                of = psutil.Process(node.pid)
                ready = partial(free_runner, client)
                table.rows += await lives.rows(client, home, of, twenty, ready, rounds, groups)
        if "past" in groups:
            past = Path(folder) / "past"
            await history.fill(past)
            begin = time.perf_counter()
            async with process(koco, *up, KODO_HOME=str(past)) as node:
                await line(node)
                again = time.perf_counter() - begin
                async with Client(home=past) as client:
                    start = "start with a past of 1,000,000 events"
                    table.rows.append(Row(start, "s", Series((again,)), Series((started,)), "without"))
                    table.rows += await history.rows(client, "bench.local")
    return table


NOTE = (
    f"{EVENTS:,} events: from the launch to the last at the client, each stored durably first, checked to be in order"
    " and once each; bare Ray: one call of an actor made ahead (spare) or made for it (fresh)"
)


async def rows(client: Client, bare: asyncio.subprocess.Process, rounds: int, groups: Collection[str]) -> list[Row]:
    """Measure how fast runs begin and speak, as far as `groups` has it."""

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

    async def streamed() -> list[float]:
        return [await ask(bare, "events")]

    measured: list[Row] = []
    if "launch" in groups:
        (first, final), (spare_call,), (fresh_call,) = await interleave(max(rounds, LAUNCHES), noop, spare, fresh)
        p95 = lives.delays("launch → first event at the client (warm)", first.values)[1]
        measured += [
            Row("launch → first event at the client (warm)", "ms", first, spare_call, "bare Ray, spare actor"),
            p95,
            Row("launch → final of a no-op", "ms", final, fresh_call, "bare Ray, fresh actor"),
        ]
    if "events" in groups:
        (rate,), (stream,) = await interleave(rounds, events, streamed)
        figure = f"{EVENTS:,} events, durable and followed"
        measured.append(Row(figure, "1/s", rate, stream, "bare Ray, streaming generator", higher_is_better=True))
    return measured


if __name__ == "__main__":
    bare_ray()
