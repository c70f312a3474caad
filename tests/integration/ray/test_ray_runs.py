"""Runs on a real Ray, from launch to release."""

import asyncio
import hashlib
import os
import signal
import sys
import time

import psutil
import pytest

from kodo.node.executors.executor import RunnerDiedError, RunnerEvent, RunSpec
from kodo.p2p.errors import CapacityError, IntegrityError, UsageError

pytestmark = pytest.mark.asyncio(loop_scope="module")


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def until(condition, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 (another process wakes nobody)
        await asyncio.sleep(0.02)
    return condition()


async def test_a_run_goes_from_its_inputs_to_its_final(run):
    made = await run("hello", topic="stars", depth=2)
    end = await made.end()
    assert [event.event for event in made.events] == ["progress", "final"]
    assert end["result"] == "# stars 2"
    assert end["runtime_s"] >= 0
    assert end["runtime"].endswith(" s")


async def test_each_yield_of_a_generator_is_a_result(run):
    made = await run("count", n=3)
    end = await made.end()
    assert [event.data for event in made.events[:-1]] == [{"value": 0}, {"value": 1}, {"value": 2}]
    assert end["result"] == {"n": 3}


async def test_events_come_in_order_and_once_each(run):
    made = await run("many", n=10_000)
    await made.end()
    assert [event.rseq for event in made.events] == list(range(1, 10_002))
    assert [event.data["n"] for event in made.events[:-1]] == list(range(10_000))


async def test_a_runner_keeps_what_was_not_committed_and_forgets_what_was(run):
    made = await run("count", n=3)

    async def kept(after: int) -> list[int]:
        return [event.rseq for event in await made.runner.poll(after, 1.0)]

    while len(await kept(0)) < 4:
        pass
    assert await kept(0) == [1, 2, 3, 4]
    assert await kept(2) == [3, 4]
    assert await kept(0) == [3, 4]


async def test_a_flow_that_nobody_polls_waits_instead_of_filling_memory(run):
    made = await run("many_sync", n=50_000)
    first = await made.runner.poll(0, 5.0)
    await asyncio.sleep(1.0)
    finished = time.time()
    made.events += first
    end = await made.end()
    assert end["result"] > finished
    assert [event.rseq for event in made.events] == list(range(1, 50_002))


async def test_an_exception_becomes_fatal_and_says_where(run):
    end = await (await run("fails", secret="bread")).end()
    assert (end["event"], end["type"], end["message"]) == ("fatal", "ValueError", "no bread")
    assert end["where"].startswith("ray_flows.py:")
    assert end["where"].endswith(" in fails")
    assert "runner.py" not in end["traceback"]


async def test_sys_exit_is_fatal(run):
    end = await (await run("leaves")).end()
    assert (end["event"], end["type"]) == ("fatal", "SystemExit")


async def test_inputs_that_do_not_fit_are_fatal_and_not_repeated(run):
    end = await (await run("hello", topic=["private"])).end()
    assert (end["event"], end["type"]) == ("fatal", "InputsError")
    assert "topic" in end["message"]
    assert "private" not in end["message"]


async def test_what_cannot_be_imported_on_the_worker_is_fatal(executor, run):
    made = await run("nowhere")
    assert (await made.end())["type"] == "NotFoundError"


async def test_another_version_of_kodo_on_the_worker_is_fatal(run, monkeypatch):
    monkeypatch.setattr("kodo.node.executors.runner.service.kodo_version", lambda: "0.0.0-other")
    end = await (await run("hello", topic="x")).end()
    assert end["event"] == "fatal"
    assert "0.0.0-other" in end["message"]


async def test_a_process_that_ends_itself_is_a_dead_runner_and_is_not_started_again(run):
    made = await run("dies")
    with pytest.raises(RunnerDiedError):
        await made.until("final", "fatal")


async def test_a_killed_process_is_noticed_at_once(executor, run):
    made = await run("sleeps")
    pid = (await made.until("result")).data["pid"]
    waiting = asyncio.ensure_future(made.runner.poll(1, 30.0))
    await asyncio.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RunnerDiedError):
        async with asyncio.timeout(2.0):
            await waiting
    assert executor.load().busy == 0


async def test_kill_ends_the_process_and_what_it_started(executor, run):
    made = await run("starts_child")
    pid = (await made.until("result")).data["pid"]
    await made.runner.kill()
    assert await until(lambda: gone(pid))
    assert executor.load().busy == 0
    with pytest.raises(RunnerDiedError):
        await made.runner.poll(1, 1.0)


async def test_kill_ends_whatever_a_flow_that_clings_to_life_has_started(executor, run):
    made = await run("clings")
    pids = list((await made.until("result")).data["pids"])
    pids += map(int, (await made.until("progress")).data["text"].split())
    assert not any(gone(pid) for pid in pids)
    await made.runner.kill()
    assert await until(lambda: all(gone(pid) for pid in pids))
    assert executor.load().busy == 0


async def test_what_a_run_left_running_ends_with_it(run):
    made = await run("leaves_child")
    await made.until("final")
    pid = made.events[0].data["pid"]
    await made.runner.release()
    assert await until(lambda: gone(pid))


@pytest.mark.parametrize("last", [0, 1, 2])
async def test_a_flow_that_closes_its_streams_goes_on_and_is_heard(run, last):
    made = await run("closes_streams", first=last % 2, last=last)
    end = await made.end()
    assert (end["event"], end["result"]) == ("final", "done")
    assert made.texts("stdout") == ["before", "after"]


async def test_an_output_is_read_back_with_its_hash(run):
    made = await run("writes", size=1 << 20)
    await made.until("final")
    output = next(event for event in made.events if event.event == "output").data
    data, offset = b"", 0
    while piece := await made.runner.read_output("data/blob.bin", offset, 300_000):
        data += piece
        offset += len(piece)
    assert (output["size"], output["sha256"]) == (1 << 20, hashlib.sha256(data).hexdigest())
    await made.runner.release()


async def test_a_second_output_of_a_name_is_refused_and_one_in_other_case_is_told(run):
    made = await run("writes", size=65536)
    await made.end()
    assert next(event.data for event in made.events if event.event == "result") == {"type": "UsageError"}
    (warning,) = [event.data["text"] for event in made.events if event.event == "log"]
    assert "'data/BLOB.bin' is renamed" in warning


async def test_only_announced_outputs_can_be_read(run):
    made = await run("writes", size=65536)
    await made.until("final")
    with pytest.raises(UsageError):
        await made.runner.read_output("../work/x", 0, 10)
    await made.runner.release()


@pytest.mark.parametrize("by", ["pipe", "folder", "link", "folder that is a link", "nothing"])
async def test_an_output_that_a_flow_has_replaced_is_told_at_once(run, by):
    made = await run("replaces_output", by=by)
    await made.until("final")
    assert made.runner.open_output("data/report.md") is None
    with pytest.raises(IntegrityError, match=r"'data/report.md' is not the file any more"):
        await made.runner.read_output("data/report.md", 0, 10)
    await made.runner.release()


async def test_a_result_too_large_for_an_event_becomes_an_output(run):
    made = await run("large_result", size=300_000)
    final = (await made.until("final")).data
    assert final["output"] == "final.json"
    assert final["result"] is None
    assert len(await made.runner.read_output("final.json", 0, 1 << 20)) == 300_002
    await made.runner.release()


@pytest.mark.parametrize("how", ["surrogates", "untellable", "undescribed", "unstorable", "long", "exit"])
async def test_a_run_whose_end_cannot_be_told_is_over_nevertheless(run, how):
    assert (await (await run("ends_badly", how=how)).end())["event"] == "fatal"


@pytest.mark.parametrize("how", ["abort", "exit", "kill"])
async def test_a_process_that_dies_has_said_all_that_it_said(run, how):
    made = await run("aborts", how=how)
    with pytest.raises(RunnerDiedError) as died:
        await made.until("final", "fatal")
    heard = {event.rseq: event for event in [*made.events, *died.value.said]}
    texts = [event.data["text"] for event in heard.values()]
    assert [text for text in texts if text.isdecimal()] == [str(number) for number in range(5000)]
    assert texts.count("about to end") == 1


async def test_a_loop_of_events_comes_to_its_bound(executor):
    spec = RunSpec("2" * 26, "p", "ray_flows:many_sync", {"n": 300}, max_events=100)
    runner, events = await executor.launch(spec), []
    while not events or events[-1].event not in ("final", "fatal"):
        events += await runner.poll(events[-1].rseq if events else 0, 5.0)
    await runner.release()
    assert (events[-1].event, events[-1].data["type"]) == ("fatal", "CapacityError")
    assert [event.event for event in events].count("action") == 100
    assert "nearly used up" in next(event.data["text"] for event in events if event.event == "log")


async def test_any_other_event_too_large_is_an_error_in_the_flow(run):
    end = await (await run("large_event", size=300_000)).end()
    assert (end["event"], end["type"]) == ("fatal", "CapacityError")


async def test_a_flow_gets_the_cpus_that_it_asks_for(run):
    end = await (await run("with_cpu", {"num_cpus": 1})).end()
    assert end["result"] == {"CPU": 1.0}


async def test_more_cpus_than_there_are_is_an_error_at_once(run):
    with pytest.raises(CapacityError, match="99"):
        await run("with_cpu", {"num_cpus": 99})


async def test_files_of_a_released_run_are_gone(home, run):
    made = await run("writes", size=65536)
    await made.until("final")
    folder = home / "ray" / "runs" / made.runner.name
    assert (folder / "files" / "data" / "blob.bin").exists()
    assert folder.stat().st_mode & 0o777 == 0o700
    await made.runner.release()
    assert not folder.exists()


async def test_an_app_of_kodosumi_that_gives_its_tracer_to_tasks(run):
    made = await run("prime.app:enter", end="100")
    end = await made.end()
    assert end.get("result") == {"1": 1, "2": 8, "4": 7, "6": 6, "8": 1}, end
    told = [event.data["text"] for event in made.events if event.event == "result"]
    assert sorted(told) == ["from 0 to 50", "from 50 to 100"]


ENDS_OF_DAEMONS = {
    "returns": "it has said its last word",
    "exit": "its process ends itself",
    "waits": "it is killed",
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is given what a process has left")
@pytest.mark.parametrize("end", ENDS_OF_DAEMONS)
async def test_a_daemon_that_a_flow_has_hidden_ends_with_the_run(run, end):
    made = await run("leaves_daemon", end=end)
    said: list[RunnerEvent] = []
    if end == "waits":
        assert not gone((await made.until("result")).data["pid"])
        await made.runner.kill()
    elif end == "exit":
        with pytest.raises(RunnerDiedError, match=r"exit code 3|os\._exit") as died:
            await made.until("final", "fatal")
        said = list(died.value.said)
    else:
        await made.end()
    pid = next(event.data["pid"] for event in [*said, *made.events] if event.event == "result")
    assert await until(lambda: gone(pid))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody is given what a process has left")
async def test_a_flow_that_waits_until_its_daemon_is_gone_goes_on_and_knows_how_its_children_ended(run):
    end = await (await run("ends_daemon")).end()
    assert (end["event"], end["result"]) == ("final", 7)
