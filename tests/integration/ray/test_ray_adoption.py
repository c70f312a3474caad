"""A run outlives the node's process, and the next one takes it up."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.node.executors.ray.cluster import find_cluster, stop_cluster
from kodo.node.executors.ray.executor import RayExecutor
from kodo.p2p.errors import UsageError

pytestmark = pytest.mark.asyncio(loop_scope="module")

FIRST_NODE = """
import asyncio, json, sys
from pathlib import Path
from kodo.node.executors.executor import RunSpec
from kodo.node.executors.ray.executor import RayExecutor

async def main():
    home, scope = map(Path, sys.argv[1:])
    executor = RayExecutor(home, "kodo-test", [scope], list, num_cpus=2, object_store_bytes=150_000_000, runners=1)
    await executor.start()
    runner = await executor.launch(RunSpec("0" * 26, "p", "ray_flows:survives", {}))
    events = []
    while len(events) < 3:
        events += await runner.poll(events[-1].rseq if events else 0, 5.0)
    async def hesitate():
        print(json.dumps([event[:3] for event in events]), flush=True)
        await asyncio.sleep(600)
    await executor.launch(RunSpec("1" * 26, "p", "ray_flows:survives", {}), hesitate)

asyncio.run(main())
"""


@pytest.fixture
def first_node(home: Path):
    process = subprocess.Popen(
        [sys.executable, "-c", FIRST_NODE, str(home), str(Path(__file__).parent / "scope")], stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        stop_cluster(home)


async def test_a_run_survives_kill_9_of_its_node_and_is_completed_from_where_it_was(home, first_node):
    committed = json.loads(first_node.stdout.readline())
    before = find_cluster(home)
    os.kill(first_node.pid, signal.SIGKILL)
    first_node.wait()
    await asyncio.sleep(1.0)  # events go on being made meanwhile

    executor = RayExecutor(home, "kodo-test", [], list, num_cpus=2, object_store_bytes=150_000_000, runners=1)
    await executor.start()
    try:
        assert find_cluster(home) == before
        runners = await executor.adopt()
        runners.sort(key=lambda runner: runner.fid)
        assert [(runner.fid, runner.started) for runner in runners] == [("0" * 26, True), ("1" * 26, False)]
        with pytest.raises(UsageError, match="released this runner"):
            await runners[1]._link.ask(
                lambda: runners[1].handle.start.remote({"fid": "1" * 26}, []), 10.0, "no answer"
            )
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
        # Its Ray tasks went on too, although the driver that started it is gone.
        assert events[-1].data["result"] == 2 * (24 + 49 + 74 + 99) + 1000
        await runners[0].release()
    finally:
        await executor.aclose()
    assert find_cluster(home) is None
