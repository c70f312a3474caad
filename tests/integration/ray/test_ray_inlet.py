"""Events that come into a run by other ways than kodo's emitters, and what is known of a process that died."""

from pathlib import Path

import pytest

from kodo.node.executors.executor import RunnerDiedError

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_any_program_can_make_events_by_the_socket(run):
    made = await run("inlet_flows:speaks")
    end = await made.end()
    assert [(event.event, event.data) for event in made.events[:-1]] == [
        ("result", {"n": 0}),
        ("result", {"n": 1}),
        ("result", {"n": 2}),
        ("action", {"text": "no line end"}),
    ]
    assert end["result"] == "said"


async def test_a_bad_line_is_a_warning_and_does_not_end_the_run(run):
    made = await run("inlet_flows:speaks_badly")
    end = await made.end()
    assert end["event"] == "final"
    assert [event.event for event in made.events] == ["log", "log", "result", "final"]
    assert {event.data["level"] for event in made.events[:2]} == {"WARNING"}


async def test_a_ray_task_finds_the_socket_too(run):
    made = await run("inlet_flows:task_speaks")
    await made.end()
    assert [event.data["n"] for event in made.events if event.event == "result"] == [0, 1, 2]


async def test_prints_progress_and_actions_of_threads_are_events(run):
    made = await run("inlet_flows:threads")
    await made.end()
    assert sorted(made.texts("stdout")) == [f"thread {number}" for number in range(4)]
    nested = [event.data for event in made.events if event.event == "progress" and "parent" in event.data]
    assert sorted(data["done"] for data in nested) == [0, 1, 2, 3]
    assert len([event for event in made.events if event.event == "action"]) == 8


@pytest.mark.parametrize(("flow", "signal"), [("crashes", "SIGSEGV"), ("aborts", "SIGABRT")])
async def test_a_process_that_a_signal_ends_tells_it_and_where_it_was(run, flow, signal):
    made = await run(f"inlet_flows:{flow}")
    with pytest.raises(RunnerDiedError, match=signal) as died:
        await made.until("final", "fatal")
    assert died.value.signal == signal
    assert 'inlet_flows.py", line' in died.value.stack


async def test_the_socket_goes_with_its_run(home, run):
    await (await run("inlet_flows:speaks")).end()
    assert not list(Path(home, "ray", "runs").rglob("events"))  # noqa: ASYNC240
