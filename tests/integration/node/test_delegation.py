"""Runs that launch runs on another node: two nodes, each with a Ray of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from kodo.client.sync import Client, Run
from kodo.p2p.errors import CallError
from kodo.protocol.events import Event
from tests.support.koco import NodeProcess, end_all, eventually, processes_of


class World:
    """A node, another one, and the operator of the first."""

    def __init__(self, here: NodeProcess, other: NodeProcess, client: Client):
        self.here, self.other, self.client = here, other, client

    def relay(self, flow: str, /, **inputs: Any) -> Run:
        given = {"target": f"{self.other.address}/{flow}", "inputs": inputs}
        return self.client.launch(f"{self.here.address}/abilities.relay", inputs=given)


def told(run: Run) -> list[dict[str, Any]]:
    return [event.data for event in run.follow() if event.event == "result"]


def test_a_run_has_another_node_run_flows(tmp_path: Path) -> None:
    home, far = tmp_path / "a", tmp_path / "b"
    nodes = [NodeProcess(far)]
    try:
        nodes.append(NodeProcess(home))
        with Client(home, lan=False) as client:
            world = World(nodes[1], nodes[0], client)
            its_events_result_and_files_arrive(world)
            its_error_is_this_runs(world)
            its_locks_are_answered_by_the_flow_or_by_whoever_answers_this_run(world)
            a_flow_on_its_own_behalf_is_refused(world)
            what_a_killed_run_launched_is_killed_too(world)
            a_node_that_comes_back_is_taken_up_where_it_was(world)
            a_node_that_was_killed_takes_up_and_ends_what_its_runs_launched(world)
            assert (world.here.stop(), world.other.stop()) == (0, 0)
    finally:
        end_all(home)
        end_all(far)
    assert processes_of(home) + processes_of(far) == []


def its_events_result_and_files_arrive(world: World) -> None:
    run = world.relay("story.make", files=2, size=1_500_000)
    events = told(run)
    assert [each["event"] for each in events] == ["version", "flow", "inputs", "output", "output", "final"]
    [link] = events[1]["data"]["chain"]
    assert (link["peer_id"], link["fid"]) == (world.here.ready["peer_id"], run.fid)
    files = {"made/file0.bin": 1_500_000, "made/file1.bin": 1_500_000}
    assert run.state()["final"]["result"] == {"result": "made", "files": files}
    with Client(world.other.home, lan=False) as away:
        there = away.run(f"{world.other.address}/{events[0]['fid']}")
        eventually(lambda: there.state()["acknowledged"])


def its_error_is_this_runs(world: World) -> None:
    for target, said in (("story.fail", "ValueError: went wrong"), ("story.none", "no flow 'story.none'")):
        run = world.relay(target, how="raise")
        run.wait()
        assert said in run.state()["fatal"]["message"]


def its_locks_are_answered_by_the_flow_or_by_whoever_answers_this_run(world: World) -> None:
    target = f"{world.other.address}/abilities.ask_here"

    def launched(answers: list[Any]) -> Run:
        return world.client.launch(
            f"{world.here.address}/abilities.answer_there", inputs={"target": target, "answers": answers}
        )

    by_itself = launched([3, 4, True])
    by_itself.wait()
    assert by_itself.state()["final"]["result"] == {"result": [4, True], "denied": [["it is odd"]]}
    by_people = launched([])
    for title, wrong, right in (("Even?", 5, 6), ("Sure?", None, False)):
        [shown] = eventually(lambda title=title: [each for each in locks(by_people) if each["title"] == title])
        if wrong is not None:
            with pytest.raises(CallError) as denied:
                by_people.answer(shown["lid"], wrong)
            assert denied.value.data["reasons"] == ["it is odd"]
        assert by_people.answer(shown["lid"], right)["answer"] == right
    by_people.wait()
    assert by_people.state()["final"]["result"] == {"result": [6, False], "denied": []}
    # One that is answered over there is closed here.
    elsewhere = launched([])
    [shown] = eventually(lambda: locks(elsewhere))
    with Client(world.other.home, lan=False) as away:
        [there] = eventually(lambda: [each for each in away.runs(others=True) if each["state"] == "locked"])
        away.run(f"{world.other.address}/{there['fid']}").kill()
    elsewhere.wait()
    assert locks(elsewhere) == []
    assert elsewhere.state()["fatal"]["type"] == "DelegatedError"


def locks(run: Run) -> list[dict[str, Any]]:
    return list(run.state()["locks"])


def a_flow_on_its_own_behalf_is_refused(world: World) -> None:
    home = f"{world.here.address}/abilities.relay"
    run = world.relay("abilities.relay", target=home, inputs={"target": home, "inputs": {}})
    run.wait()
    assert "(409 cycle)" in run.state()["fatal"]["message"]


def what_a_killed_run_launched_is_killed_too(world: World) -> None:
    run, fid = waiting(world)
    run.kill()
    is_killed_there(world, fid)


def a_node_that_comes_back_is_taken_up_where_it_was(world: World) -> None:
    target = f"{world.other.address}/story.count"
    run = world.client.launch(
        f"{world.here.address}/abilities.relay_plainly", inputs={"target": target, "n": 80, "pause_ms": 400}
    )
    eventually(lambda: any(event.event == "progress" for event in run.follow(live=False)))
    killed, fid = waiting(world)
    world.other.kill()
    killed.kill()
    world.other = NodeProcess(world.other.home)
    run.wait()
    assert run.state()["final"]["result"] == list(range(80))
    is_killed_there(world, fid)


def a_node_that_was_killed_takes_up_and_ends_what_its_runs_launched(world: World) -> None:
    run = world.relay("story.count", n=100, pause_ms=500)
    dead, fid = waiting(world)
    pid = dead.state()["config"]["pid"]
    assert eventually(lambda: numbers(run.follow(live=False)))
    world.here.kill()
    os.kill(pid, signal.SIGKILL)
    world.here = NodeProcess(world.here.home)
    with Client(world.here.home, lan=False) as client:
        run, dead = (client.run(each.address) for each in (run, dead))
        events = list(run.follow())
        state, fate = run.state(), dead.wait().fatal
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert numbers(events) == list(range(100))
    assert state["final"]["result"]["result"] == 100
    assert fate is not None
    assert fate["type"] == "RunnerDied"
    is_killed_there(world, fid)


def numbers(events: Iterable[Event]) -> list[int]:
    """Give those that the other run's results told, in the order in which they arrived here."""
    arrived = [event.data for event in events if event.event == "result"]
    return [each["data"]["number"] for each in arrived if each["event"] == "result"]


def waiting(world: World) -> tuple[Run, str]:
    """Launch a run that has another one wait over there; give that one's fid too."""
    run = world.relay("story.pid", seconds=600)
    return run, str(next(event.data["fid"] for event in run.follow() if event.event == "result"))


def is_killed_there(world: World, fid: str) -> None:
    # A client of its own: one that was there before takes a while to notice that a node was started anew.
    with Client(world.other.home, lan=False) as away:
        there = away.run(f"{world.other.address}/{fid}")
        eventually(lambda: there.state()["acknowledged"], seconds=60)
        assert there.state()["fatal"]["type"] == "Killed"
