"""The limit of a flow's unfinished runs, for launches at the same moment and those that are asked for again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.p2p.errors import CallError
from kodo.protocol.secrets import MASK
from tests.unit.node.conftest import StillClock
from tests.unit.node.rig import rig_of


async def forever(run: InProcessRunner) -> None:
    await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("given", [{}, {"secrets": [[["token"], "t"]], "inputs": {"token": MASK}}])
async def test_launches_at_once_do_not_pass_the_limit_of_their_flow(
    tmp_path: Path, clock: StillClock, given: dict[str, Any]
) -> None:
    checked = asyncio.Event()
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        for check in (checked.wait, None):
            asked = [asyncio.ensure_future(node.launch(check=check, limit=2, **given)) for _ in range(5)]
            await asyncio.sleep(0)
            checked.set()
            done = await asyncio.gather(*asked, return_exceptions=True)
            refused = [each for each in done if isinstance(each, CallError)]
            assert {(each.code, each.reason) for each in refused} == {(429, "busy")}
            assert (len(refused), len(node.runs.live)) == (3, 2)
            assert "flows.flow has 2 unfinished runs" in str(refused[0])
            for fid in list(node.runs.live):
                await node.runs.kill(fid, "ana")
                await node.gone(fid)


async def test_a_key_names_its_run_also_when_its_flow_is_at_its_limit(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid = await node.launch(key="k", limit=1)
        assert await node.launch(key="k", limit=1) == fid
