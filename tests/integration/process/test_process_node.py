"""Runs of a node whose runners are processes: a runner that hangs or dies ends its run as the documentation says."""

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.node.executors.process.executor import ProcessExecutor
from kodo.node.runs.fatals import FATAL_TYPES
from kodo.node.runs.launch import RunSettings
from tests.integration.process.conftest import SCOPES
from tests.integration.ray.test_ray_runs import gone, until
from tests.unit.node.conftest import StillClock
from tests.unit.node.rig import Rig, rig

SETTINGS = RunSettings(poll_s=0.2, silent_s=1.0)


@contextlib.asynccontextmanager
async def node_of(home: Path) -> AsyncIterator[Rig]:
    executor = ProcessExecutor(home, roots=SCOPES, runners=1, stays=False)
    await executor.start()
    try:
        async with rig(home, executor, StillClock(), SETTINGS) as node:
            yield node
    finally:
        await executor.aclose()


@pytest.mark.parametrize("how", ["stopped", "busy"])
async def test_a_runner_that_hangs_is_told_as_one_that_died_and_is_ended(tmp_path, how):
    async with node_of(tmp_path) as node:
        fid = await node.launch("process_flows:hangs", inputs={"busy": how == "busy"})
        pid = (await node.until(fid, "result")).data["pid"]
        if how == "stopped":
            os.kill(pid, signal.SIGSTOP)
        fatal = (await node.all_events(fid))[-1]
        assert (fatal.event, fatal.data["type"]) == ("fatal", "RunnerDied")
        assert fatal.data["type"] in FATAL_TYPES
        assert fatal.data["message"] == "the runner does not answer"
        assert await until(lambda: gone(pid))
        await node.gone(fid)
        assert node.runs.live == {}


async def test_the_fatal_of_a_runner_that_was_killed_says_so_with_what_it_had_said(tmp_path):
    async with node_of(tmp_path) as node:
        fid = await node.launch("process_flows:complains_and_waits")
        pid = (await node.until(fid, "stderr")).data["text"]
        os.kill(int(pid), signal.SIGKILL)
        fatal = (await node.all_events(fid))[-1].data
        assert (fatal["type"], fatal["signal"]) == ("RunnerDied", "SIGKILL")
        assert fatal["message"].startswith("the flow's process was ended by SIGKILL")
        assert pid in fatal["traceback"]
