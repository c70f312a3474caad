"""Runs in processes without Ray, from launch to release: what holds of one on Ray holds of them."""

import asyncio
import os
import signal

import psutil
import pytest

from kodo.node.executors.executor import RunnerDiedError, RunSpec
from kodo.node.executors.niceness import NICE, nice_of_session
from kodo.node.executors.process.executor import ProcessExecutor
from kodo.p2p.errors import KodoError, UsageError
from kodo.protocol.ids import make_id
from tests.integration.ray.conftest import SCOPE, new_id
from tests.integration.ray.test_ray_inlet import (  # noqa: F401
    test_a_bad_line_is_a_warning_and_does_not_end_the_run,
    test_a_process_that_a_signal_ends_tells_it_and_where_it_was,
    test_any_program_can_make_events_by_the_socket,
    test_prints_progress_and_actions_of_threads_are_events,
)
from tests.integration.ray.test_ray_locks import (  # noqa: F401
    test_a_candidate_handed_over_twice_has_one_verdict,
    test_a_candidate_of_a_wrong_type_is_denied_with_its_field,
    test_a_lock_is_denied_then_answered,
    test_a_lock_that_expired_goes_on_with_its_default,
    test_a_lock_that_expired_without_default_is_fatal,
    test_an_answer_to_a_lock_that_is_not_open_is_denied,
)
from tests.integration.ray.test_ray_runs import (  # noqa: F401
    gone,
    test_a_daemon_that_a_flow_has_hidden_ends_with_the_run,
    test_a_flow_that_closes_its_streams_goes_on_and_is_heard,
    test_a_flow_that_nobody_polls_waits_instead_of_filling_memory,
    test_a_flow_that_waits_until_its_daemon_is_gone_goes_on_and_knows_how_its_children_ended,
    test_a_killed_process_is_noticed_at_once,
    test_a_loop_of_events_comes_to_its_bound,
    test_a_process_that_dies_has_said_all_that_it_said,
    test_a_process_that_ends_itself_is_a_dead_runner_and_is_not_started_again,
    test_a_result_too_large_for_an_event_becomes_an_output,
    test_a_run_goes_from_its_inputs_to_its_final,
    test_a_run_whose_end_cannot_be_told_is_over_nevertheless,
    test_a_runner_keeps_what_was_not_committed_and_forgets_what_was,
    test_a_second_output_of_a_name_is_refused_and_one_in_other_case_is_told,
    test_an_exception_becomes_fatal_and_says_where,
    test_an_output_is_read_back_with_its_hash,
    test_an_output_that_a_flow_has_replaced_is_told_at_once,
    test_any_other_event_too_large_is_an_error_in_the_flow,
    test_each_yield_of_a_generator_is_a_result,
    test_events_come_in_order_and_once_each,
    test_inputs_that_do_not_fit_are_fatal_and_not_repeated,
    test_kill_ends_the_process_and_what_it_started,
    test_kill_ends_whatever_a_flow_that_clings_to_life_has_started,
    test_only_announced_outputs_can_be_read,
    test_sys_exit_is_fatal,
    test_what_a_run_left_running_ends_with_it,
    test_what_cannot_be_imported_on_the_worker_is_fatal,
    until,
)
from tests.integration.ray.test_ray_storage import (  # noqa: F401
    test_a_run_finds_nothing_that_another_one_kept_and_leaves_nothing,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


def server_of(runner: int) -> psutil.Process:
    """The fork server of a runner, whose parent is its keeper."""
    keeper = psutil.Process(runner).parent()
    assert keeper is not None
    server = keeper.parent()
    assert server is not None
    assert "kodo.node.executors.process.server" in " ".join(server.cmdline())
    assert server.pid != os.getpid()
    return server


async def test_another_version_of_kodo_in_the_process_is_fatal(run, monkeypatch):
    monkeypatch.setattr("kodo.node.executors.process.executor.kodo_version", lambda: "0.0.0-other")
    end = await (await run("hello", topic="x")).end()
    assert end["event"] == "fatal"
    assert "0.0.0-other" in end["message"]


async def test_a_flow_that_asks_for_resources_is_refused_and_has_not_begun(executor, run):
    with pytest.raises(UsageError, match="--executor ray"):
        await run("hello", {"num_cpus": 1}, topic="x")
    assert executor.load().busy == 0


async def test_a_process_that_a_signal_ended_is_told_of_by_its_name(run):
    made = await run("sleeps")
    os.kill((await made.until("result")).data["pid"], signal.SIGKILL)
    with pytest.raises(RunnerDiedError, match="ended by SIGKILL: somebody killed it") as died:
        await made.until("final", "fatal")
    assert died.value.signal == "SIGKILL"


async def test_neither_the_node_nor_a_runner_has_imported_ray(run):
    made = await run("sleeps")
    pid = (await made.until("result")).data["pid"]
    maps = " ".join(map.path for map in psutil.Process(pid).memory_maps())
    assert "msgpack" in maps
    assert "/ray/" not in maps


async def test_a_runner_and_its_session_have_the_processor_after_their_node(run):
    made = await run("sleeps")
    pid = (await made.until("result")).data["pid"]
    assert os.getpriority(os.PRIO_PROCESS, pid) >= NICE
    assert os.getpgid(pid) == pid
    assert os.getsid(pid) == server_of(pid).pid != os.getsid(0)
    assert nice_of_session(pid) in (NICE, None)


async def test_what_a_flow_is_given_stands_in_no_arguments_and_no_environment(run):
    made = await run("process_flows:sleeps_with", word="rosebud")
    process = psutil.Process((await made.until("result")).data["pid"])
    assert "rosebud" not in " ".join([*process.cmdline(), *process.environ().values()])


async def test_the_files_of_a_run_are_its_users_alone_and_go_with_it(home, run):
    made = await run("writes", size=65536)
    await made.until("final")
    folder = home / "runners" / made.runner.name
    assert (folder / "files" / "data" / "blob.bin").exists()
    assert {path.stat().st_mode & 0o077 for path in [home / "runners", folder]} == {0}
    await made.runner.release()
    assert not folder.exists()


async def test_a_runner_that_hangs_is_ended_by_kill(run):
    made = await run("sleeps")
    pid = (await made.until("result")).data["pid"]
    os.kill(pid, signal.SIGSTOP)
    await made.runner.kill()
    assert await until(lambda: gone(pid))


async def test_a_child_that_a_flow_forked_does_not_hide_the_death_of_the_flow(executor, run):
    made = await run("process_flows:forks_and_dies")
    with pytest.raises(RunnerDiedError) as died:
        await made.until("final", "fatal")
    pid = next(event.data["pid"] for event in [*made.events, *died.value.said] if event.event == "result")
    assert await until(lambda: gone(pid))
    assert executor.load().busy == 0


async def test_what_a_flow_left_without_its_mark_ends_with_it_though_the_flow_has_died(run):
    made = await run("process_flows:dies_before_its_child")
    with pytest.raises(RunnerDiedError) as died:
        await made.until("final", "fatal")
    pid = next(event.data["pid"] for event in [*made.events, *died.value.said] if event.event == "result")
    assert await until(lambda: gone(pid))


async def test_fifty_runs_that_are_launched_at_once_all_end(executor, run):
    made = await asyncio.gather(*(run("hello", topic=str(number)) for number in range(50)))
    ends = await asyncio.gather(*(one.end() for one in made))
    assert [end["result"] for end in ends] == [f"# {number} 3" for number in range(50)]


async def test_the_fork_server_is_started_again_when_it_was_killed(executor, run):
    made = await run("sleeps")
    pid = (await made.until("result")).data["pid"]
    os.kill(server_of(pid).pid, signal.SIGKILL)
    ends = [await (await run("hello", topic="x")).end() for _ in range(5)]
    assert {end["result"] for end in ends} == {"# x 3"}
    assert await made.runner.poll(1, 0.05) == []  # and what ran goes on


async def test_a_process_that_waited_and_died_is_replaced(executor, run):
    assert await until(lambda: executor.load().free == 2)
    for process in server_of(executor._idle[0].link.pid).children(recursive=True):
        process.kill()
    assert (await (await run("hello", topic="x")).end())["result"] == "# x 3"


async def test_a_peer_of_the_socket_that_speaks_nonsense_is_let_go_and_the_run_goes_on(home, run):
    made = await run("sleeps")
    await made.until("result")
    reader, writer = await asyncio.open_unix_connection(home / "runners" / made.runner.name / "socket")
    writer.write(b"\xff" * 64)
    assert await reader.read() == b""
    writer.close()
    assert await made.runner.poll(1, 0.05) == []


@pytest.mark.parametrize("said", [b"\xff" * 64, b"\0\0\0\x01\xc0", b"\0\0\0\x03\x92\x63\x01"])
async def test_a_runner_that_answers_nonsense_ends_its_run_alone(run, said):
    made = await run("process_flows:answers", said=said.hex())
    with pytest.raises(KodoError, match="does not answer"):
        await made.until("final", "fatal")


async def test_a_home_with_a_long_path_is_reached_all_the_same(tmp_path):
    home = tmp_path / ("long" * 30)
    executor = ProcessExecutor(home, roots=[SCOPE], stays=False, runners=0)
    await executor.start()
    try:
        runner = await executor.launch(RunSpec(new_id(), "p", "ray_flows:hello", {"topic": "x"}))
        assert (await runner.poll(0, 20.0))[0].event == "progress"
        await runner.release()
    finally:
        await executor.aclose()


@pytest.mark.parametrize("fail", [False, True])
async def test_files_left_behind_are_told(run, fail):
    made = await run("process_flows:leaves", fail=fail)
    await made.end()
    (warning,) = [event.data["text"] for event in made.events if event.event == "log"]
    assert "2 files of 5 bytes in all were left" in warning
    assert "left.txt, sub/also.csv" in warning


@pytest.mark.parametrize("fail", [False, True])
async def test_files_left_behind_are_outputs_of_a_flow_that_says_so(run, fail):
    made = await run("process_flows:keeps", fail=fail)
    assert (await made.end())["event"] == ("fatal" if fail else "final")
    assert [event.data["name"] for event in made.events if event.event == "output"] == [
        *("told.md", "left.txt", "sub/also.csv")
    ]
    assert [event for event in made.events if event.event == "log"] == []


async def answered(made, *answers):
    """Answer each lock in turn; gives their titles."""
    titles, seen = [], 0
    for number, answer in enumerate(answers):
        lock = await made.until("lock", "final", "fatal") if not seen else await next_lock(made, seen)
        assert lock.event == "lock", lock
        seen = lock.rseq
        titles.append(lock.data["title"])
        await made.runner.answer(lock.data["lid"], make_id(number + 1, os.urandom(10)), answer)
    return titles


async def next_lock(made, after):
    while True:
        for event in made.events:
            if event.rseq > after and event.event in ("lock", "final", "fatal"):
                return event
        made.events += await made.runner.poll(made.events[-1].rseq, 5.0)


async def test_input_and_getpass_are_locks_and_a_secret_is_told_nowhere(run):
    made = await run("process_flows:asks")
    titles = await answered(made, "Ana", "", "s3cret-canary")
    assert (await made.end())["result"] == ["Ana", "", 13]
    assert titles == ["Your name?", "Which colour?", "Password:"]
    assert "s3cret-canary" not in str(made.events)


async def test_input_in_an_event_loop_is_a_lock(run):
    made = await run("process_flows:asks_in_a_loop")
    assert await answered(made, "Ana") == ["Your name?"]
    assert (await made.end())["result"] == ["Ana"]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
async def test_what_processes_of_a_pool_say_arrives_and_what_they_cannot_do_says_why(run, method):
    made = await run("process_flows:spawns", method=method)
    end = await made.end()
    assert end.get("result") == ["an output can be written only in the flow's own process: return the data to it"] * 2
    assert sorted(event.data["number"] for event in made.events if event.event == "result") == [1, 2]
    assert sorted(made.texts("stdout")) == ["printed 1", "printed 2"]


async def test_a_thread_that_a_flow_started_is_waited_for(run):
    made = await run("process_flows:goes_on")
    assert (await made.end())["event"] == "final"
    assert [event.data["name"] for event in made.events if event.event == "output"] == ["later.txt"]


@pytest.mark.parametrize(("code", "event"), [(None, "final"), (0, "final"), (1, "fatal")])
async def test_sys_exit_ends_a_run_as_it_ends_a_program(run, code, event):
    assert (await (await run("process_flows:exits", code=code)).end())["event"] == event
