"""Runs that launch runs on another node: two nodes, each with a Ray of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kodo.client.sync import Client, Run
from tests.support.koco import NodeProcess, end_all, eventually, node, processes_of


class World:
    """A node, another one, and their operators."""

    def __init__(self, here: NodeProcess, other: NodeProcess, client: Client, away: Client):
        self.here, self.other, self.client, self.away = here, other, client, away

    def relay(self, flow: str, /, **inputs: Any) -> Run:
        given = {"target": f"{self.other.address}/{flow}", "inputs": inputs}
        return self.client.launch(f"{self.here.address}/abilities.relay", inputs=given)


def told(run: Run) -> list[dict[str, Any]]:
    return [event.data for event in run.follow() if event.event == "result"]


def test_a_run_has_another_node_run_flows(tmp_path: Path) -> None:
    home, far = tmp_path / "a", tmp_path / "b"
    other = NodeProcess(far)
    try:
        with node(home) as here, Client(home, lan=False) as client, Client(far, lan=False) as away:
            world = World(here, other, client, away)
            its_events_result_and_files_arrive(world)
            its_error_is_this_runs(world)
            a_flow_on_its_own_behalf_is_refused(world)
            what_a_killed_run_launched_is_killed_too(world)
            a_node_that_comes_back_is_taken_up_where_it_was(world, far)
    finally:
        if other.process.poll() is None:
            other.kill()
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
    there = world.away.run(f"{world.other.address}/{events[0]['fid']}")
    eventually(lambda: there.state()["acknowledged"])


def its_error_is_this_runs(world: World) -> None:
    for target, said in (("story.fail", "ValueError: went wrong"), ("story.none", "no flow 'story.none'")):
        run = world.relay(target, how="raise")
        run.wait()
        assert said in run.state()["fatal"]["message"]


def a_flow_on_its_own_behalf_is_refused(world: World) -> None:
    home = f"{world.here.address}/abilities.relay"
    run = world.relay("abilities.relay", target=home, inputs={"target": home, "inputs": {}})
    run.wait()
    assert "(409 cycle)" in run.state()["fatal"]["message"]


def what_a_killed_run_launched_is_killed_too(world: World) -> None:
    run = world.relay("story.pid", seconds=600)
    following = run.follow()
    fid = next(event.data["fid"] for event in following if event.event == "result")
    run.kill()
    there = world.away.run(f"{world.other.address}/{fid}")
    eventually(lambda: there.state()["state"] == "error")
    assert there.state()["fatal"]["type"] == "Killed"


def a_node_that_comes_back_is_taken_up_where_it_was(world: World, far: Path) -> None:
    target = f"{world.other.address}/story.count"
    run = world.client.launch(
        f"{world.here.address}/abilities.relay_plainly", inputs={"target": target, "n": 80, "pause_ms": 400}
    )
    eventually(lambda: any(event.event == "progress" for event in run.follow(live=False)))
    world.other.kill()
    with node(far):
        run.wait()
        assert run.state()["final"]["result"] == list(range(80))
