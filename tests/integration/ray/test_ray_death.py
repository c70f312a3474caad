"""An embedded Ray that died is replaced, and nothing of it is left."""

import asyncio
import os
import signal

import psutil
import pytest

from kodo.node.executors.executor import RunnerDiedError
from kodo.node.executors.ray.cluster import find_cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(home, name: str) -> list[int]:
    """Kill one of Ray's processes; gives all that were recorded."""
    processes = find_cluster(home).processes
    os.kill(next(pid for pid, _, part in processes if part == name), signal.SIGKILL)
    return [pid for pid, _, _ in processes]


@pytest.mark.parametrize("part", ["gcs_server", "raylet"])
async def test_an_embedded_ray_that_died_takes_its_runs_along_and_is_started_anew(home, executor, run, part):
    made = await run("starts_child")
    child = (await made.until("result")).data["pid"]
    old = kill(home, part)
    with pytest.raises(RunnerDiedError):
        await made.until("final", "fatal")

    # Launched while there is no Ray: it waits for the next one.
    assert (await (await run("hello", topic="again")).end())["result"] == "# again 3"
    assert not any(running(pid) for pid in [*old, child])
    assert not set(old) & {pid for pid, _, _ in find_cluster(home).processes}
    assert os.listdir(home / "ray" / "sessions") != []
    assert not (home / "ray" / "runs" / made.runner.name).exists()


async def test_the_loop_of_the_node_turns_while_its_ray_is_gone(home, executor, run):
    made = await run("sleeps")
    kill(home, "gcs_server")
    with pytest.raises(RunnerDiedError):
        await made.until("final", "fatal")
    waiting = asyncio.ensure_future(run("count", n=1))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.05)
        turns += 1
    # Starting Ray takes seconds; had the loop waited for it, or for an answer of the dead one, there were hardly any.
    assert turns > 10
    assert (await (await waiting).end())["event"] == "final"


async def test_an_executor_that_is_closed_while_ray_is_started_anew_leaves_nothing(home, executor, run):
    made = await run("sleeps")
    old = kill(home, "raylet")
    with pytest.raises(RunnerDiedError):
        await made.until("final", "fatal")
    await executor.aclose()
    assert find_cluster(home) is None
    left = psutil.process_iter(["cmdline"])
    assert not [process for process in left if str(home) in " ".join(process.info["cmdline"] or ())]
    assert not any(running(pid) for pid in old)
