"""Runs that nobody asks for just now, of schedules and after a restart, wait in the line of who pays for them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.runs.launch import RunSettings
from kodo.p2p.net import turns
from tests.unit.node import service_rig
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import rig


def fairly(scene: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=turns.FairLoop) as runner:
        runner.run(scene)


CALLER = "192.0.2.8"


def line_of_payer(payer: str) -> turns.Line:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, turns.FairLoop)
    return loop.line(payer)


def test_a_run_of_a_schedule_waits_in_the_line_of_its_payer(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}

    async def work(run: InProcessRunner) -> int:
        found[run.spec.fid] = turns._line.get()
        return 1

    async def scene() -> None:
        async with service_rig.node_of(tmp_path, clock) as node:
            await node.call("schedule.add", path="flows.work", inputs={"n": 1}, every_s=60)
            clock.advance(60)
            node.schedules._news.set()
            await settled(lambda: found)
            [(fid, line)] = found.items()
            row = await node.rig.store.run(fid)
            assert row is not None
            # Begun by a look of the node's own it is the payer's; by the call that made the schedule, its caller's.
            assert line in (line_of_payer(row.payer), line_of_payer(CALLER))
            await node.rig.gone(fid)

    monkeypatch.setattr(service_rig, "work", work)
    fairly(scene())


def test_a_run_that_the_next_process_of_a_node_begins_waits_in_the_line_of_its_payer(
    tmp_path: Path, clock: StillClock
) -> None:
    found: dict[str, Any] = {}

    async def flow(run: InProcessRunner) -> None:
        found[run.spec.fid] = turns._line.get()
        await asyncio.get_running_loop().create_future()

    async def scene() -> None:
        one = RunSettings(max_runs=1)
        async with InProcessExecutor({"flow": flow}) as executor:
            async with rig(tmp_path, executor, clock, one) as node:
                first, second = await node.launch(), await node.launch()
                await settled(lambda: first in found)
            async with rig(tmp_path, executor, clock, one) as node:
                await settled(lambda: second in found)
                assert found[second] is line_of_payer(node.runs.live[second].payer)

    fairly(scene())
