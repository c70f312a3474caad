"""What the node's log tells of runs: who, when and why, and none of what is in them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.node.runs.fatals import FATAL_TYPES
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.run_log import log_run
from tests.unit.node.conftest import StillClock
from tests.unit.node.rig import rig_of

SECRET = "zanzibar"
"""What a user sent and a flow made: it stands in each place where contents stand."""


async def good(run: InProcessRunner) -> str:
    run.emit("progress", {"percent": 10, "text": SECRET})
    run.emit("stdout", {"text": SECRET})
    run.output(f"{SECRET}.md", SECRET.encode())
    return SECRET


async def bad(run: InProcessRunner) -> None:
    raise ValueError(SECRET)


async def asks(run: InProcessRunner) -> object:
    return await run.lock("0" * 25 + "1", {"type": "boolean", "title": SECRET}, default=False, expires_s=50)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("good", ["launched by ana", "done after 0 s"]),
        ("bad", ["launched by ana", "ended after 0 s: an error of the flow"]),
        ("asks", ["launched by ana", "killed by bob", "ended after 0 s: Killed, somebody killed the run"]),
    ],
)
async def test_the_log_tells_each_runs_life_and_no_content(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture, entry: str, told: list[str]
) -> None:
    flows = {"good": good, "bad": bad, "asks": asks}
    with caplog.at_level(logging.DEBUG, "kodo"):
        async with rig_of(tmp_path, clock, flows, RunSettings()) as rig:
            rig.runs.listen(log_run)
            fid = await rig.launch(entry, inputs={SECRET: SECRET}, tags=(SECRET,))
            if entry == "asks":
                await rig.until(fid, "lock")
                await rig.runs.kill(fid, "bob")
            await rig.all_events(fid)
            await rig.gone(fid)
    assert [message for message in caplog.messages if message.startswith("run ")] == [
        f"run {fid} of flows.{entry} {each}" for each in told
    ]
    assert SECRET not in caplog.text
    about = [record.__dict__ for record in caplog.records if record.name == log_run.__module__]
    assert {each["run"] for each in about} == {fid}
    assert SECRET not in repr(about)


@pytest.mark.parametrize("kind", [*FATAL_TYPES, SECRET])
async def test_the_reason_of_an_end_is_one_of_the_nodes_own(
    tmp_path: Path, clock: StillClock, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    from kodo.node.runs.live import LiveRun
    from kodo.protocol.events import Event
    from tests.unit.node.conftest import new_run

    live = LiveRun(new_run().stored(clock.ms))
    data = {"type": kind, "message": SECRET, "where": "node", "traceback": SECRET}
    with caplog.at_level(logging.INFO, "kodo"):
        log_run(live, [Event(4, clock.ms + 1500, "run", "fatal", data)])
    assert SECRET not in caplog.text
    expected = f"{kind}, {FATAL_TYPES[kind]}" if kind in FATAL_TYPES else "an error of the flow"
    assert caplog.messages == [f"run {live.fid} of flows.market.Competitor ended after 1.5 s: {expected}"]
