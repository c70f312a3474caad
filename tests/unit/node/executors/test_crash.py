"""What is told of a runner whose process died."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.crash import add_crash, read_crash
from kodo.node.executors.executor import RunnerDiedError, RunnerEvent
from kodo.node.executors.in_process import InProcessRunner
from kodo.node.runs.live import STDERR_LINES
from kodo.protocol.events import visible
from tests.unit.node.conftest import StillClock
from tests.unit.node.rig import rig_of

REPORT = (
    'Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n  File "a.py", line 3 in f\n'
)


def test_a_report_names_the_signal_and_the_stack() -> None:
    signal, stack = read_crash(REPORT)
    assert signal == "SIGSEGV"
    assert stack.endswith('File "a.py", line 3 in f')


@pytest.mark.parametrize("text", ["", "nothing of that kind", "x" + REPORT])
def test_what_is_no_report_tells_nothing(text: str) -> None:
    assert read_crash(text) == (None, "")


def test_an_error_without_report_stays_as_it_is(tmp_path: Path) -> None:
    error = RunnerDiedError("it is gone")
    add_crash(error, tmp_path / "none")
    (tmp_path / "empty").touch()
    add_crash(error, tmp_path / "empty")
    assert (str(error), error.signal, error.stack) == ("it is gone", None, "")


def test_an_error_with_a_report_says_the_signal(tmp_path: Path) -> None:
    (tmp_path / "crash").write_text(REPORT)
    error = RunnerDiedError("it is gone")
    add_crash(error, tmp_path / "crash")
    assert "SIGSEGV" in str(error)
    assert error.signal == "SIGSEGV"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([("log", {"text": "last"})], ["log", "fatal"]),
        ([("stderr", {"text": "last"}), ("final", {"result": 1, "runtime_s": 1.0})], ["stderr", "final"]),
        ([("output", {"name": "a"}), ("log", {}), ("final", {"result": 1})], ["log", "fatal"]),
        ([("log", {}), ("nonsense", {}), ("log", {})], ["log", "fatal"]),
    ],
)
async def test_what_a_dead_process_had_said_is_in_its_run(
    tmp_path: Path, clock: StillClock, said: list[tuple[str, dict[str, Any]]], told: list[str]
) -> None:
    async def flow(runner: InProcessRunner) -> None:
        runner.emit("result", {})
        poll = runner.poll

        async def dies(after: int, timeout: float) -> list[RunnerEvent]:
            if after == 0:
                return await poll(after, timeout)
            error = RunnerDiedError("it is gone")
            error.said = [RunnerEvent(rseq, *event) for rseq, event in enumerate(said, after + 1)]
            raise error

        vars(runner)["poll"] = dies
        await asyncio.get_running_loop().create_future()

    async with rig_of(tmp_path, clock, {"flow": flow}) as node:
        events = await node.all_events(await node.launch())
    assert [event.event for event in events][3:] == ["result", *told]


async def test_the_fatal_of_a_dead_runner_repeats_the_end_of_stderr_at_level_2_only(
    tmp_path: Path, clock: StillClock
) -> None:
    async def flow(runner: InProcessRunner) -> None:
        for number in range(STDERR_LINES + 5):
            runner.emit("stderr", {"text": f"line {number}."})
        runner.emit("log", {})
        await runner.lock("0" * 26)

    async with rig_of(tmp_path, clock, {"flow": flow}) as node:
        fid = await node.launch()
        await node.until(fid, "lock")
        node.runner(fid).crash()
        fatal = (await node.all_events(fid))[-1]
    assert fatal.data["type"] == "RunnerDied"
    lines = fatal.data["traceback"].splitlines()
    assert lines[1:] == [f"line {number}." for number in range(5, STDERR_LINES + 5)]
    shown = visible(fatal, 1)
    assert shown is not None
    assert "line" not in str(shown.data)
