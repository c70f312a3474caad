"""A node that was upgraded from 0.1.0 with runs open: each goes on, begins, or is told to be over."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

from kodo.node.executors.executor import RunSpec
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.runs.launch import RunSettings
from kodo.protocol.run_state import RunState
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.rig import ANA, rig

SUPPORT = Path(__file__).parents[2] / "support"
DONE, GONE, ASKS, WAITS = map(fid_of, range(1, 5))
LID = "0" * 25 + "1"


def keep(path: Path) -> None:
    """Make the database that 0.1.0 left: one run is done, one has no process any more, one asks, one waits."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        for name in ("node_0_1_0.sql", "node_0_1_0_open.sql"):
            database.executescript((SUPPORT / name).read_text(encoding="utf-8"))


async def greet(run: InProcessRunner) -> str:
    run.emit("progress", {"percent": 50, "text": "thinking of Ada"})
    if run.spec.fid == ASKS and not await run.lock(LID, {"type": "boolean"}, default=True, expires_s=64800):
        return "# Nobody"
    return f"# Hello {run.spec.inputs['name']}"


async def test_runs_that_were_open_under_0_1_0_go_on_begin_or_are_told_to_be_over(
    tmp_path: Path, clock: StillClock
) -> None:
    keep(tmp_path / "node.db")
    async with asyncio.timeout(60), InProcessExecutor({"greet": greet}) as executor:
        runner = await executor.launch(RunSpec(ASKS, "flows.greet", "greet", {"name": "Ada"}))
        await runner.poll(1, 60.0)
        async with rig(tmp_path, executor, clock, RunSettings(keep_runs=True)) as node:
            assert (await node.locks.get(ASKS, LID, ANA)).title == "Greet Ada?"
            await node.locks.answer(ASKS, LID, True, ANA)
            asked, waited, gone = [await node.all_events(fid) for fid in (ASKS, WAITS, GONE)]
            done = await node.store.view(DONE)
            assert done is not None
            assert (done.state, [row.name for row in (await node.store.outputs(DONE))[1]]) == (
                RunState.DONE,
                ["report.md"],
            )
        assert [spec.fid for spec in executor.launched] == [ASKS, WAITS], "what had begun is not begun again"
    begun = ["version", "flow", "inputs", "progress"]
    assert [event.event for event in asked] == [*begun, "lock", "candidate", "unlock", "final"]
    assert [event.event for event in waited] == [*begun, "final"]
    assert [event.event for event in gone] == ["version", "flow", "inputs", "log", "fatal"]
    for events in (asked, waited, gone):
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {events[-1].data["result"] for events in (asked, waited)} == {"# Hello Ada"}
    assert gone[-1].data["type"] == "RunnerDied"
