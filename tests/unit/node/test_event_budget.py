"""How much a run may say: the bound holds whoever makes its events, is told before, and the end is not counted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.buffer import pack_event
from kodo.flow._runtime.context import Demand
from kodo.flow._runtime.log_events import EventLogHandler
from kodo.node.executors.checks import Conduct, MisconductError
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.in_process import InProcessRunner
from kodo.node.executors.ray.runner import read_events
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.ending import Ending
from kodo.node.runs.launch import RunSettings
from kodo.p2p.errors import CapacityError
from kodo.protocol.event_budget import EventBudget
from tests.unit.node.conftest import StillClock
from tests.unit.node.rig import rig_of

MOST, BYTES = 100, 1 << 20


def emits(context: RunnerContext, text: str) -> None:
    context.emit("result", {"text": text})


def prints(context: RunnerContext, text: str) -> None:
    context.line("stdout", text)


def logs(context: RunnerContext, text: str) -> None:
    EventLogHandler(context.emit).emit(logging.LogRecord("flow", logging.INFO, "", 0, text, None, None))


def in_a_task(context: RunnerContext, text: str) -> None:
    with contextlib.suppress(CapacityError):
        packed = pack_event("action", {"text": text})
        context.count("", len(packed))
        context.buffer.put(packed, wait=False)


WRITERS: list[Callable[[RunnerContext, str], None]] = [emits, prints, logs, in_a_task]


def said(context: RunnerContext) -> list[tuple[str, dict[str, Any]]]:
    """Everything that was said; a node with the same bounds takes it."""
    conduct, found = Conduct(budget=EventBudget.of_node(MOST, BYTES)), []
    while True:
        events, _ = read_events(asyncio.run(context.buffer.poll(conduct.rseq, 0.0)))
        if not events:
            return found
        for event in events:
            conduct.check(event)
            found.append((event.event, event.data))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("size", "times"), [(1, 3 * MOST), (30_000, 60)])
def test_a_loop_comes_to_its_bound_whoever_writes_and_the_flow_was_told_before(
    tmp_path: Path, write: Callable[[RunnerContext, str], None], size: int, times: int
) -> None:
    context = RunnerContext()
    context.folder = tmp_path / "files"
    context.budget = EventBudget(MOST, BYTES)
    for _ in range(times):
        with contextlib.suppress(CapacityError):
            write(context, "x" * size)
    context.lock(Demand("Go on?", {}, lambda c: (c, c), 1.0, 1.0, None, False, (), ()))
    context.write_output("a.md", b"", None)
    Ending(lambda: None, context.store_result, lambda last: context.buffer.put(last, last=True), exit).run(lambda: 1)
    events = said(context)
    assert [event for event, _ in events[-3:]] == ["lock", "output", "final"]
    notices = [data["text"] for event, data in events if event == "log" and data.get("level") == "WARNING"]
    assert ["nearly" in notices[0], "dropped" in notices[1], len(notices)] == [True, True, 2]
    made = len(events) - 3 - len(notices)
    assert made <= MOST
    assert (made == MOST) == (size == 1)


def test_an_emitter_says_that_the_bound_is_reached() -> None:
    context = RunnerContext()
    context.budget = EventBudget(1, BYTES)
    emits(context, "x")
    with pytest.raises(CapacityError, match=r"1 events of \d+ bytes are allowed"):
        emits(context, "x")


def test_a_run_that_makes_few_events_is_told_nothing() -> None:
    context = RunnerContext()
    context.budget = EventBudget(MOST, BYTES)
    for _ in range(MOST // 2):
        emits(context, "x")
    assert {event for event, _ in said(context)} == {"result"}


def test_a_runner_that_does_not_count_is_stopped_by_its_node() -> None:
    conduct = Conduct(budget=EventBudget.of_node(MOST, BYTES))
    for rseq in range(1, MOST + 3):
        conduct.check(RunnerEvent(rseq, "log", {}))
    with pytest.raises(MisconductError, match="this run has made"):
        conduct.check(RunnerEvent(MOST + 3, "log", {}))


async def test_the_bounds_of_the_node_s_settings_reach_run_and_runner(tmp_path: Path, clock: StillClock) -> None:
    async def talks(run: InProcessRunner) -> None:
        for rseq in range(1, run.spec.max_events + 4):
            run.say(RunnerEvent(rseq, "log", {}))  # a runner that does not count

    settings = RunSettings(max_events=MOST, max_event_bytes=BYTES)
    async with rig_of(tmp_path, clock, {"flow": talks}, settings) as node:
        fid = await node.launch()
        events = await node.all_events(fid)
        assert (events[-1].event, events[-1].data["type"]) == ("fatal", "Misconduct")
        assert (node.runner(fid).spec.max_events, node.runner(fid).spec.max_event_bytes) == (MOST, BYTES)
