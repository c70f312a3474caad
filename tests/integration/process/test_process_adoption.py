"""A run without Ray outlives the node's process, and the next one takes it up; one that is to go with it goes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kodo.node.executors.process.executor import ProcessExecutor
from kodo.p2p.errors import UsageError
from tests.integration.ray.test_ray_runs import gone, until

FIRST_NODE = """
import asyncio, json, sys
from pathlib import Path
from kodo.node.executors.executor import RunSpec
from kodo.node.executors.process.executor import ProcessExecutor

async def main():
    home, scope = map(Path, sys.argv[1:3])
    executor = ProcessExecutor(home, roots=[scope], runners=1, stays=sys.argv[3] == "stays")
    await executor.start()
    runner = await executor.launch(RunSpec("0" * 26, "p", "process_flows:survives", {}))
    events = []
    while len(events) < 3:
        events += await runner.poll(events[-1].rseq if events else 0, 5.0)
    async def hesitate():
        print(json.dumps([event[:3] for event in events]), flush=True)
        await asyncio.sleep(600)
    await executor.launch(RunSpec("1" * 26, "p", "process_flows:survives", {}), hesitate)

asyncio.run(main())
"""


@pytest.fixture
def first_node(tmp_path: Path):
    started: list[subprocess.Popen[bytes]] = []

    def start(how: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", FIRST_NODE, str(tmp_path), str(Path(__file__).parent / "scope"), how]
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE))
        return started[0]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def descendants(process: subprocess.Popen[bytes]) -> list[int]:
    return [child.pid for child in psutil.Process(process.pid).children(recursive=True)]


async def test_a_run_survives_kill_9_of_its_node_and_is_completed_from_where_it_was(tmp_path, first_node):
    process = first_node("stays")
    committed = json.loads(process.stdout.readline())
    before = descendants(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    await asyncio.sleep(1.0)  # events go on being made meanwhile

    executor = ProcessExecutor(tmp_path, runners=1)
    await executor.start()
    try:
        runners = await executor.adopt()
        runners.sort(key=lambda runner: runner.fid)
        assert [(runner.fid, runner.started) for runner in runners] == [("0" * 26, True), ("1" * 26, False)]
        with pytest.raises(UsageError, match="released this runner"):
            await runners[1].link.call("start", {"fid": "1" * 26}, [], seconds=10.0)
        await runners[1].kill()
        assert executor.load().busy == 1
        assert runners[0].asking
        first, [(aid, op, args)] = await runners[0].asked(0, 5.0)
        assert (first, aid, op, args["key"]) == (1, 1, "memory.get", "more")
        await runners[0].reply(aid, {"done": {"value": 1000, "version": 1}})
        last = committed[-1][0]
        events = []
        while not events or events[-1].event != "final":
            events += await runners[0].poll(events[-1].rseq if events else last, 5.0)
        numbers = [entry[2]["n"] for entry in committed] + [event.data["n"] for event in events[:-1]]
        assert numbers == list(range(100))
        assert [event.rseq for event in events] == list(range(last + 1, 102))
        assert events[-1].data["result"] == 2000
        await runners[0].release()
    finally:
        await executor.aclose()
    assert await until(lambda: all(map(gone, before)))
    assert [path.name for path in (tmp_path / "runners").iterdir()] == ["server.log"]


async def test_a_run_that_is_to_go_with_its_node_ends_when_that_is_killed_and_leaves_nothing(tmp_path, first_node):
    process = first_node("goes")
    process.stdout.readline()
    before = descendants(process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert await until(lambda: all(map(gone, before)))
    assert await until(lambda: [path.name for path in (tmp_path / "runners").iterdir()] == ["server.log"])


async def test_what_a_runner_that_died_meanwhile_left_is_removed_by_the_next_node(tmp_path, first_node):
    process = first_node("stays")
    process.stdout.readline()
    before = descendants(process)
    for pid in [process.pid, *before]:
        os.kill(pid, signal.SIGKILL)
    process.wait()
    executor = ProcessExecutor(tmp_path, runners=0)
    await executor.start()
    try:
        assert await executor.adopt() == []
        assert [path.name for path in (tmp_path / "runners").iterdir()] == ["server.log"]
    finally:
        await executor.aclose()


async def test_a_node_that_is_closed_leaves_the_runs_that_go_on_and_finds_them_again(tmp_path):
    from kodo.node.executors.executor import RunSpec

    first = ProcessExecutor(tmp_path, roots=[Path(__file__).parent / "scope"], runners=1)
    await first.start()
    await first.launch(RunSpec("0" * 26, "p", "process_flows:sleeps_with", {"word": "x"}))
    await first.aclose()
    second = ProcessExecutor(tmp_path, runners=0)
    await second.start()
    try:
        [runner] = await second.adopt()
        [said] = await runner.poll(0, 5.0)
        await runner.kill()
        assert await until(lambda: gone(said.data["pid"]))
    finally:
        await second.aclose()
