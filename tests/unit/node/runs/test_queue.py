"""The line before the runners: fair between principals, in order within each, left without a trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.queue import FairQueue
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import rig, rig_of

ONE = RunSettings(max_runs=1)


async def forever(run: InProcessRunner) -> None:
    run.emit("log", {"text": "begun"})
    await asyncio.get_running_loop().create_future()


async def waiting_for(
    queue: FairQueue, wanted: list[tuple[str, str]]
) -> tuple[list[str], dict[str, asyncio.Task[None]]]:
    served: list[str] = []
    tasks: dict[str, asyncio.Task[None]] = {}

    async def wait(principal: str, fid: str) -> None:
        await queue.turn(principal, fid)
        served.append(fid)

    for principal, fid in wanted:
        tasks[fid] = asyncio.ensure_future(wait(principal, fid))
        await asyncio.sleep(0)
    return served, tasks


async def test_principals_take_turns_and_each_ones_runs_keep_their_order() -> None:
    queue = FairQueue(1)
    queue.take("zoe", "x")
    wanted = [("ana", "a1"), ("ana", "a2"), ("ana", "a3"), ("bob", "b1"), ("cid", "c1"), ("bob", "b2")]
    served, tasks = await waiting_for(queue, wanted)
    order = ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert [queue.position(fid) for fid in order] == [1, 2, 3, 4, 5, 6]
    assert queue.waiting == 6
    for before, fid in zip(["x", *order], order, strict=False):
        queue.leave(before)
        await tasks[fid]
        assert served[-1] == fid
        assert queue.position(fid) is None
    assert served == order


async def test_positions_follow_who_is_served_next() -> None:
    queue = FairQueue(1)
    queue.take("zoe", "x")
    served, tasks = await waiting_for(queue, [("ana", "a1"), ("ana", "a2"), ("bob", "b1"), ("bob", "b2")])
    queue.leave("x")
    await tasks["a1"]
    assert [queue.position(fid) for fid in ("b1", "a2", "b2")] == [1, 2, 3]
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert served == ["a1"]
    assert queue.waiting == 0


async def test_one_that_is_cancelled_leaves_its_place_to_others() -> None:
    queue = FairQueue(1)
    served, tasks = await waiting_for(queue, [("ana", "a1"), ("ana", "a2"), ("bob", "b1")])
    assert served == ["a1"]
    tasks["b1"].cancel()
    await asyncio.gather(tasks["b1"], return_exceptions=True)
    queue.leave("a1")
    await tasks["a2"]
    assert served == ["a1", "a2"]


async def test_a_place_that_came_together_with_the_cancellation_goes_on() -> None:
    queue = FairQueue(1)
    queue.take("zoe", "x")
    served, tasks = await waiting_for(queue, [("ana", "a1"), ("bob", "b1")])
    queue.leave("x")
    tasks["a1"].cancel()
    await tasks["b1"]
    assert served == ["b1"]


async def test_runs_wait_in_a_line_that_is_fair_between_principals(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}, ONE) as node:
        first = await node.launch()
        second, third = await node.launch(), await node.launch()
        bobs = await node.launch(principal="bob")
        await node.until(first, "log")
        await settled(lambda: node.runs.queue.waiting == 3)
        assert [node.runs.queue.position(fid) for fid in (first, second, bobs, third)] == [None, 1, 2, 3]
        await node.runs.kill(second, "ana")
        for place, fid in enumerate((third, bobs), 1):
            assert node.runs.queue.position(fid) == place
        await node.runs.kill(first, "ana")
        await node.until(third, "log")
        await node.runs.kill(third, "ana")
        await settled(lambda: len(node.executor.launched) == 3)
        assert [spec.fid for spec in node.executor.launched] == [first, third, bobs]


async def test_a_run_that_was_waiting_when_the_node_crashed_is_launched_by_the_next(
    tmp_path: Path, clock: StillClock
) -> None:
    async with InProcessExecutor({"flow": forever}) as executor:
        async with rig(tmp_path, executor, clock, RunSettings(max_runs=1, keep_runs=True)) as node:
            first, second = await node.launch(), await node.launch()
            await node.until(first, "log")
            row = await node.store.run(second)
            assert row is not None
            assert not row.handed
        async with rig(tmp_path, executor, clock, ONE) as node:
            await settled(lambda: node.runs.queue.position(second) == 1)
            await node.runs.kill(first, "ana")
            await node.until(second, "log")
            assert [spec.fid for spec in executor.launched] == [first, second]


async def test_a_run_that_was_waiting_when_the_node_was_stopped_is_launched_by_the_next(
    tmp_path: Path, clock: StillClock
) -> None:
    async with InProcessExecutor({"flow": forever}) as executor:
        async with rig(tmp_path, executor, clock, ONE) as node:
            first, second = await node.launch(), await node.launch()
            await node.until(first, "log")
        async with rig(tmp_path, executor, clock, ONE) as node:
            assert (await node.all_events(first))[-1].data["type"] == "NodeStopped"
            await node.until(second, "log")
            assert [spec.fid for spec in executor.launched] == [first, second]


@pytest.mark.parametrize("slots", [1, 3])
async def test_no_more_run_at_once_than_there_are_places(slots: int, tmp_path: Path, clock: StillClock) -> None:
    running = 0
    most = 0

    async def counted(run: InProcessRunner) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(20):
            await asyncio.sleep(0)
        running -= 1

    async with rig_of(tmp_path, clock, {"flow": counted}, RunSettings(max_runs=slots)) as node:
        fids = [await node.launch(principal=f"p{number % 4}") for number in range(20)]
        for fid in fids:
            assert (await node.all_events(fid))[-1].event == "final"
    assert most <= slots
