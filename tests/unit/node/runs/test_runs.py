"""The life of a run, over the in-process executor: every way in which it can begin and end."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.executor import RunnerEvent, RunSpec
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.files.outputs import Outputs
from kodo.node.runs.fatals import FATAL_TYPES
from kodo.node.runs.launch import Order, RunSettings
from kodo.node.store.rows import NewEvent
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, KodoError
from kodo.protocol.events import RunState
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import rig, rig_of

KEEP = RunSettings(keep_runs=True)


async def hello(run: InProcessRunner) -> str:
    run.emit("progress", {"percent": 50})
    return "hello " + run.spec.inputs.get("name", "world")


async def forever(run: InProcessRunner) -> None:
    run.emit("log", {"text": "begun"})
    await asyncio.get_running_loop().create_future()


def names(events: list[Any]) -> list[str]:
    return [event.event for event in events]


async def test_a_run_begins_with_version_flow_inputs_and_ends_with_final(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        fid = await node.launch(inputs={"name": "Ana"}, about={"path": "flows.flow"})
        events = await node.all_events(fid)
        assert names(events) == ["version", "flow", "inputs", "progress", "final"]
        assert [event.seq for event in events] == [1, 2, 3, 4, 5]
        assert events[2].data == {"name": "Ana"}
        assert events[4].data["result"] == "hello Ana"


async def test_a_launch_is_durable_when_it_is_answered(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid, state = await node.runs.launch(Order("ana", "flows.flow", "flow", "flow", {"a": 1}, tags=("x",)))
        row = await node.store.run(fid)
        assert row is not None
        assert (state, row.principal, row.tags) == (RunState.PENDING, "ana", ("x",))
        assert names(await node.store.events(fid))[:3] == ["version", "flow", "inputs"]


async def test_a_runner_is_released_when_its_run_is_over(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        fid = await node.launch()
        await node.all_events(fid)
        await node.gone(fid)
        assert node.runner(fid).released


async def test_an_exception_in_the_flow_is_one_fatal(tmp_path: Path, clock: StillClock) -> None:
    async def bad(run: InProcessRunner) -> None:
        raise KeyError("nothing here")

    async with rig_of(tmp_path, clock, {"flow": bad}) as node:
        events = await node.all_events(await node.launch())
        assert names(events)[3:] == ["fatal"]
        assert events[3].data["type"] == "KeyError"


async def test_the_death_of_a_runner_is_one_fatal(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        node.runner(fid).crash("killed by signal 9")
        events = await node.all_events(fid)
        assert names(events)[3:] == ["log", "fatal"]
        assert events[-1].data["type"] == "RunnerDied"
        assert "signal 9" in events[-1].data["message"]


@pytest.mark.parametrize(
    "said",
    [
        RunnerEvent(2, "kill", {"by": "me"}),
        RunnerEvent(2, "inputs", {}),
        RunnerEvent(2, "candidate", {"lid": "x"}),
        RunnerEvent(2, "nonsense", {}),
        RunnerEvent(4, "log", {}),
        RunnerEvent(2, "log", ["not a map"]),  # type: ignore[arg-type]
        RunnerEvent(2, "log", {1: "x"}),  # type: ignore[dict-item]
        RunnerEvent(2, "log", {"text": "x" * 300_000}),
        RunnerEvent(2, "log", {"text": object()}),
        RunnerEvent(2, "log", {"number": float("nan")}),
        RunnerEvent(2, "log", {"a": json.loads("[" * 60 + "]" * 60)}),
        RunnerEvent(2, "lock", {"lid": "short", "title": "", "schema": {}}),
        RunnerEvent(2, "lock", {"lid": "0" * 26, "title": "", "schema": {"type": 5}}),
        RunnerEvent(2, "lock", {"lid": "0" * 26, "title": "", "schema": {}, "expires_s": float("nan")}),
        RunnerEvent(2, "lock", {"lid": "0" * 26, "title": "", "schema": {}, "verdict_s": 0}),
        RunnerEvent(2, "lock", {"lid": "0" * 26, "title": "", "schema": {}, "roles": "user"}),
        RunnerEvent(2, "unlock", {"lid": "0" * 26}),
        RunnerEvent(2, "final", {"runtime_s": "long"}),
        RunnerEvent(2, "fatal", {"type": 1, "message": "x"}),
        RunnerEvent(2, "output", {"name": "../../etc/passwd", "size": 1, "sha256": "0" * 64, "media_type": "a/b"}),
        RunnerEvent(2, "output", {"name": "a", "size": -1, "sha256": "0" * 64, "media_type": "a/b"}),
        RunnerEvent(2, "output", {"name": "a", "size": 1, "sha256": "G" * 64, "media_type": "a/b"}),
        RunnerEvent(
            2, "output", {"name": "a", "size": 1, "sha256": "0" * 64, "chunks_sha256": "0", "media_type": "a/b"}
        ),
    ],
    ids=lambda said: said.event if isinstance(said, RunnerEvent) else None,
)
async def test_a_runner_that_says_what_it_may_not_ends_its_run(
    tmp_path: Path, clock: StillClock, said: RunnerEvent
) -> None:
    async def hostile(run: InProcessRunner) -> None:
        run.emit("log", {"text": "fine so far"})
        run.say(said)
        await asyncio.get_running_loop().create_future()

    async with rig_of(tmp_path, clock, {"flow": hostile}) as node:
        fid = await node.launch()
        events = await node.all_events(fid)
        assert names(events)[3:] == ["log", "fatal"]
        assert events[-1].data["type"] == "Misconduct"
        await node.gone(fid)
        assert node.runner(fid).released


async def test_a_run_whose_runner_answers_no_poll_is_ended(tmp_path: Path, clock: StillClock) -> None:
    async def silent(run: InProcessRunner) -> None:
        async def poll(after: int, timeout: float) -> list[RunnerEvent]:
            return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

        vars(run)["poll"] = poll
        await forever(run)

    async with rig_of(tmp_path, clock, {"flow": silent}, RunSettings(poll_s=0.0, silent_s=0.0)) as node:
        events = await node.all_events(await node.launch())
        assert (events[-1].event, events[-1].data["type"]) == ("fatal", "RunnerDied")
        assert events[-1].data["message"] == "the runner does not answer"


@pytest.mark.parametrize("step", ["poll", "kill", "release"])
@pytest.mark.parametrize("error", [OSError("broken"), RuntimeError("broken"), KodoError("broken"), TimeoutError()])
async def test_a_run_is_over_and_its_place_free_whatever_a_step_of_its_end_raises(
    tmp_path: Path, clock: StillClock, step: str, error: Exception
) -> None:
    async def bad(run: InProcessRunner) -> None:
        async def fail(*_: Any) -> None:
            raise error

        vars(run)[step] = fail
        run.emit("nonsense")
        await forever(run)

    async with rig_of(tmp_path, clock, {"bad": bad, "flow": hello}, RunSettings(max_runs=1)) as node:
        events = await node.all_events(await node.launch("bad"))
        assert (events[-1].event, events[-1].data["type"] in FATAL_TYPES) == ("fatal", True)
        assert names(await node.all_events(await node.launch()))[-1] == "final"


async def test_nothing_that_a_runner_says_after_its_end_is_stored(tmp_path: Path, clock: StillClock) -> None:
    async def talkative(run: InProcessRunner) -> None:
        run.emit("final", {"result": 1})
        run.emit("log", {"text": "and another thing"})

    async with rig_of(tmp_path, clock, {"flow": talkative}) as node:
        fid = await node.launch()
        await node.all_events(fid)
        await node.gone(fid)
        assert names(await node.store.events(fid, 3)) == ["final"]


async def test_a_killed_run_ends_with_kill_then_fatal_and_its_runner_is_gone(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        assert await node.runs.kill(fid, "ana") is RunState.ERROR
        events = await node.all_events(fid)
        assert names(events)[-2:] == ["kill", "fatal"]
        assert events[-2].data == {"by": "ana"}
        assert events[-1].data["type"] == "Killed"
        task = node.runner(fid).task
        assert task is not None
        assert task.done()


async def test_a_run_that_is_over_cannot_be_killed_and_the_refusal_says_its_state(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        fid = await node.launch()
        await node.all_events(fid)
        with pytest.raises(CallError, match="done") as caught:
            await node.runs.kill(fid, "ana")
        assert (caught.value.code, caught.value.reason) == (400, "bad-state")


async def test_of_many_kills_at_once_one_works(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        answers = await asyncio.gather(*(node.runs.kill(fid, "ana") for _ in range(8)), return_exceptions=True)
        assert answers.count(RunState.ERROR) == 1
        assert all(isinstance(answer, CallError) for answer in answers if answer is not RunState.ERROR)
        assert names(await node.all_events(fid)).count("kill") == 1


async def test_a_run_that_waits_for_a_runner_can_be_killed(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}, slots=1) as node:
        first = await node.launch()
        await node.until(first, "log")
        second = await node.launch()
        await node.runs.kill(second, "ana")
        assert names(await node.all_events(second))[3:] == ["kill", "fatal"]
        assert [spec.fid for spec in node.executor.launched] == [first]


async def test_launches_at_once_under_one_key_start_one_run(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        fids = await asyncio.gather(*(node.launch(key="k", inputs={"name": "x"}) for _ in range(20)))
        assert len(set(fids)) == 1
        await node.all_events(fids[0])
        assert len(node.executor.launched) == 1
        assert set(node.runs.live) <= {fids[0]}


async def test_a_key_with_other_inputs_is_refused_and_other_principals_have_their_own(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        fid = await node.launch(key="k", inputs={"name": "x"})
        with pytest.raises(CallError) as caught:
            await node.launch(key="k", inputs={"name": "y"})
        assert (caught.value.code, caught.value.reason) == (409, "key-reused")
        assert await node.launch(principal="bob", key="k", inputs={"name": "y"}) != fid


async def test_a_launch_goes_on_when_its_caller_goes_away(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        caller = asyncio.create_task(node.launch())
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.gather(caller, return_exceptions=True)
        await settled(lambda: node.executor.launched)
        fid = node.executor.launched[0].fid
        assert names(await node.all_events(fid))[-1] == "final"


async def test_inputs_that_fit_no_event_are_refused(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        with pytest.raises(CallError) as caught:
            await node.launch(inputs={"name": "x" * 300_000})
        assert (caught.value.code, caught.value.reason) == (413, "too-large")
        assert not node.runs.live


async def test_a_node_full_of_runs_refuses_the_next(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}, RunSettings(max_live=2)) as node:
        await node.launch()
        await node.launch()
        with pytest.raises(CallError) as caught:
            await node.launch()
        assert (caught.value.code, caught.value.data) == (429, {"retry_after_ms": 1000})


async def test_a_disk_that_is_nearly_full_refuses_launches(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        node.ledger.reserve_bytes = 1 << 60
        with pytest.raises(CallError) as caught:
            await node.launch()
        assert (caught.value.code, caught.value.reason) == (507, "disk-full")


async def test_a_run_that_the_executor_cannot_start_is_fatal(tmp_path: Path, clock: StillClock) -> None:
    class Unable(InProcessExecutor):
        async def launch(self, spec: Any, about_to_start: Any = None) -> Any:
            raise CapacityError("no such GPU here")

    async with Unable({}) as executor, rig(tmp_path, executor, clock) as node:
        events = await node.all_events(await node.launch())
        assert names(events)[3:] == ["fatal"]
        assert "no such GPU" in events[-1].data["message"]


async def test_a_process_that_did_not_say_that_it_took_its_run_has_died_for_it_may_have_begun(
    tmp_path: Path, clock: StillClock
) -> None:
    class Hanging(InProcessExecutor):
        async def launch(self, spec: Any, about_to_start: Any = None) -> Any:
            await about_to_start()
            raise DeadlineError("a runner did not take its run within 20 s")

    async with Hanging({}) as executor, rig(tmp_path, executor, clock) as node:
        events = await node.all_events(await node.launch())
        assert (events[-1].event, events[-1].data["type"]) == ("fatal", "RunnerDied")


async def test_an_output_is_on_the_disk_when_its_event_is_seen(tmp_path: Path, clock: StillClock) -> None:
    async def writer(run: InProcessRunner) -> None:
        run.emit("log", {"text": "before"})
        run.output("charts/a.svg", b"<svg/>", media_type="image/svg+xml")
        run.emit("log", {"text": "after"})

    async with rig_of(tmp_path, clock, {"flow": writer}) as node:
        fid = await node.launch()
        await node.until(fid, "output")
        assert (tmp_path / "outputs" / fid / "charts" / "a.svg").read_bytes() == b"<svg/>"
        assert names(await node.all_events(fid))[3:] == ["log", "output", "log", "final"]
        row = await node.store.output(fid, "charts/a.svg")
        assert row is not None
        assert row.media_type == "image/svg+xml"


@pytest.mark.parametrize("claims", [{"sha256": "0" * 64}, {"size": 5}, {"size": 7}])
async def test_an_output_that_is_not_what_was_announced_is_fatal(
    tmp_path: Path, clock: StillClock, claims: dict[str, Any]
) -> None:
    async def liar(run: InProcessRunner) -> None:
        run.claim_output("a.txt", b"123456", **claims)

    async with rig_of(tmp_path, clock, {"flow": liar}) as node:
        fid = await node.launch()
        events = await node.all_events(fid)
        assert names(events)[3:] == ["fatal"]
        assert events[-1].data["type"] == "OutputError"
        assert await node.store.outputs(fid) == (0, [])
        assert list((tmp_path / "outputs" / ".part").iterdir()) == []


async def test_an_output_whose_folder_is_another_output_is_fatal(tmp_path: Path, clock: StillClock) -> None:
    async def clash(run: InProcessRunner) -> None:
        run.output("a", b"1")
        run.claim_output("a/b", b"2")

    async with rig_of(tmp_path, clock, {"flow": clash}) as node:
        events = await node.all_events(await node.launch())
        assert names(events)[3:] == ["output", "fatal"]
        assert events[-1].data["type"] == "OutputError"


async def test_two_outputs_of_one_name_are_fatal(tmp_path: Path, clock: StillClock) -> None:
    async def twice(run: InProcessRunner) -> None:
        run.output("a", b"1")
        run.claim_output("a", b"1")

    async with rig_of(tmp_path, clock, {"flow": twice}) as node:
        assert names(await node.all_events(await node.launch()))[3:] == ["output", "fatal"]


async def test_a_full_disk_makes_a_run_wait_and_loses_nothing(tmp_path: Path, clock: StillClock) -> None:
    async def chatty(run: InProcessRunner) -> None:
        for number in range(100):
            run.emit("log", {"number": number})

    async with rig_of(tmp_path, clock, {"flow": chatty}) as node:
        append, refused = node.store.append, 0

        async def full(*args: Any, **named: Any) -> Any:
            nonlocal refused
            if refused < 3:
                refused += 1
                raise CapacityError("full")
            return await append(*args, **named)

        node.store.append = full  # type: ignore[method-assign]
        fid = await node.launch()
        following = asyncio.create_task(node.all_events(fid))
        while not following.done():
            clock.advance(10)
            await asyncio.sleep(0)
        events = await following
        assert refused == 3
        assert [event.data["number"] for event in events if event.event == "log"] == list(range(100))
        assert names(events)[-1] == "final"


# --- restarts ---


async def test_a_restarted_node_takes_up_a_run_at_its_last_committed_event(tmp_path: Path, clock: StillClock) -> None:
    go = asyncio.Event()

    async def numbered(run: InProcessRunner) -> str:
        for number in range(50):
            run.emit("log", {"number": number})
        await go.wait()
        for number in range(50, 100):
            run.emit("log", {"number": number})
        return "ok"

    async with InProcessExecutor({"flow": numbered}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await node.launch()
            await node.until(fid, "log")
        go.set()
        await asyncio.sleep(0)
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
    assert [event.data["number"] for event in events if event.event == "log"] == list(range(100))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert names(events)[-1] == "final"
    assert len(executor.launched) == 1


async def test_a_run_whose_runner_is_gone_after_a_restart_is_fatal(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": forever}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await node.launch()
            await node.until(fid, "log")
        executor.runners[fid].crash()
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
    assert names(events)[3:] == ["log", "fatal"]
    assert events[-1].data["type"] == "RunnerDied"


async def test_a_run_that_surely_never_started_is_started_by_the_next_node(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": hello}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:

            async def never(fid: str) -> None:
                await asyncio.get_running_loop().create_future()

            node.store.hand = never  # type: ignore[method-assign]
            fid = await node.launch(inputs={"name": "Eve"})
        assert executor.launched == []
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
    assert events[-1].data["result"] == "hello Eve"


async def test_a_kill_that_was_cut_by_a_crash_is_finished(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": forever}) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await node.launch()
            await node.until(fid, "log")
            await node.runs._driver.halt(node.runs.live[fid])
            await node.store.append(fid, [NewEvent.make("kill", {"by": "ana"})])
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
            assert names(events)[-2:] == ["kill", "fatal"]
            assert events[-1].data["type"] == "Killed"
            await node.gone(fid)
            assert executor.runners[fid].released


async def test_runners_of_no_live_run_are_ended_at_the_start(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": forever}) as executor:
        await executor.launch(RunSpec("0" * 26, "flows.flow", "flow", {}))
        async with rig(tmp_path, executor, clock, KEEP):
            await settled(lambda: executor.runners["0" * 26]._dead)


async def test_an_adoption_that_fails_is_tried_again(tmp_path: Path, clock: StillClock) -> None:
    class Shy(InProcessExecutor):
        tries = 0

        async def adopt(self) -> Any:
            self.tries += 1
            if self.tries < 3:
                raise CapacityError("Ray does not exist yet")
            return await super().adopt()

    async with Shy({}) as executor:

        async def enter() -> None:
            async with rig(tmp_path, executor, clock):
                pass

        entering = asyncio.create_task(enter())
        while not entering.done():
            clock.advance(5)
            await asyncio.sleep(0)
        await entering
    assert executor.tries == 3


async def test_a_node_that_stops_ends_its_runs(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        await node.runs.aclose()
        events = await node.all_events(fid)
        assert names(events)[3:] == ["log", "fatal"]
        assert events[-1].data["type"] == "NodeStopped"
        with pytest.raises(CallError) as caught:
            await node.launch()
        assert caught.value.code == 503


async def test_a_node_that_stops_waits_until_its_runners_are_let_go(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": hello}) as node:
        slowly, begun = asyncio.Event(), asyncio.Event()
        fid = await node.launch()
        await settled(lambda: fid in node.executor.runners)
        runner = node.runner(fid)
        release = runner.release

        async def slow() -> None:
            begun.set()
            await slowly.wait()
            await release()

        runner.release = slow  # type: ignore[method-assign]
        await begun.wait()
        closing = asyncio.create_task(node.runs._wind_up())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not closing.done()
        slowly.set()
        await closing
        assert runner.released


async def test_a_node_that_keeps_its_runs_leaves_them_alone(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}, KEEP) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        await node.runs.aclose()
        row = await node.store.run(fid)
        assert row is not None
        assert row.state is RunState.PENDING
        assert node.runner(fid)._dead is None


async def test_what_was_being_fetched_when_a_node_died_is_cleared(tmp_path: Path, clock: StillClock) -> None:
    parts = tmp_path / "outputs" / ".part"
    parts.mkdir(parents=True)
    (parts / "old").write_bytes(b"half")
    Outputs(tmp_path / "outputs").open()
    assert list(parts.iterdir()) == []


async def test_a_node_that_drains_takes_no_launch_and_waits_for_its_runs(tmp_path: Path, clock: StillClock) -> None:
    go = asyncio.Event()

    async def waits(run: InProcessRunner) -> str:
        run.emit("log", {"text": "begun"})
        await go.wait()
        return "whole"

    async with rig_of(tmp_path, clock, {"flow": waits}) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        node.runs.drain(60)
        with pytest.raises(CallError) as caught:
            await node.launch()
        assert (caught.value.code, caught.value.reason) == (503, "stopping")
        clock.advance(30)
        assert not node.runs.drained.is_set()
        go.set()
        await settled(lambda: clock.advance(0.3) or node.runs.drained.is_set())
        assert (await node.all_events(fid))[-1].data["result"] == "whole"


async def test_what_is_not_over_when_the_drain_ends_gets_its_fatal(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        fid = await node.launch()
        await node.until(fid, "log")
        node.runs.drain(3600)
        node.runs.drain(60)
        await settled(lambda: clock.advance(10) or node.runs.drained.is_set())
        assert fid in node.runs.live
        await node.runs.aclose()
        assert (await node.store.events(fid))[-1].data["type"] == "NodeStopped"
