"""What survives a crash: of the node, of a runner. Seen through `koco`, with real Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.support.koco import KOCO, NodeProcess, end_all, environment, eventually, koco_json, node, processes_of

EVENTS = 2000


def launch(home: Path, flow: str, *inputs: str) -> str:
    [launched] = koco_json(home, "run", f"tests.local/story.{flow}", *inputs, "--detach", "--no-lan")
    return str(launched["fid"])


def state(home: Path, fid: str) -> dict[str, Any]:
    [answer] = koco_json(home, "state", fid, "--node", "tests.local", "--no-lan")
    return answer


def follow_until(home: Path, fid: str, count: int) -> list[dict[str, Any]]:
    """Follow until `count` events were shown, then go away."""
    command = [KOCO, "follow", fid, "--node", "tests.local", "--json", "--no-lan"]
    with subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    ) as follower:
        assert follower.stdout is not None
        seen = [json.loads(follower.stdout.readline()) for _ in range(count)]
        follower.kill()
    return seen


def test_a_killed_node_goes_on_with_its_run_and_loses_and_doubles_nothing(tmp_path: Path) -> None:
    first = NodeProcess(tmp_path)
    try:
        fid = launch(tmp_path, "count", f"n={EVENTS}", "pause_ms=30")
        seen = follow_until(tmp_path, fid, 300)
        first.kill()
        with node(tmp_path) as second:
            assert second.ready["addrs"] == first.ready["addrs"]
            [*rest, end] = koco_json(
                tmp_path, "follow", fid, "--after", str(seen[-1]["seq"]), "--node", "tests.local", "--no-lan"
            )
            events = [*seen, *rest]
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            numbers = [event["data"]["number"] for event in events if event["event"] == "result"]
            assert numbers == list(range(EVENTS))
            assert end["state"] == "done"
            assert [event["at"] for event in events] == sorted(event["at"] for event in events)
    finally:
        end_all(tmp_path)
    assert processes_of(tmp_path) == []


def test_an_open_lock_survives_a_killed_node_and_is_answered_once(tmp_path: Path) -> None:
    first = NodeProcess(tmp_path)
    try:
        fid = launch(tmp_path, "ask", "topic=bikes")
        before = eventually(lambda: state(tmp_path, fid).get("locks"))
        [share] = koco_json(tmp_path, "share", fid, "--downloads", "1", "--node", "tests.local", "--no-lan")
        first.kill()
        with node(tmp_path):
            [got] = koco_json(tmp_path / "other", "get", share["link"], "--no-wait", "--no-lan")
            assert (got["fid"], got["state"], got["files"]) == (fid, "locked", [])
            after = state(tmp_path, fid)
            assert (after["state"], after["locks"]) == ("locked", before)
            [page] = koco_json(tmp_path, "locks", "--node", "tests.local", "--no-lan")
            [lock] = page["result"]
            assert (lock["fid"], lock["lid"]) == (fid, before[0]["lid"])
            koco_json(tmp_path, "answer", fid, "approved=true", "why=good", "--node", "tests.local", "--no-lan")
            [*_, end] = koco_json(tmp_path, "follow", fid, "--node", "tests.local", "--no-lan")
            assert end["final"]["result"] == "bikes: True good"
            words = ("answer", fid, before[0]["lid"], "approved=true", "--node", "tests.local", "--no-lan")
            [refused] = koco_json(tmp_path, *words, exit_code=3)
            assert refused["error"]["code"] == 410
    finally:
        end_all(tmp_path)


def test_a_killed_runner_is_fatal_and_the_node_goes_on(tmp_path: Path) -> None:
    with node(tmp_path):
        fid = launch(tmp_path, "pid", "seconds=600")
        progress = eventually(lambda: state(tmp_path, fid).get("progress"))
        assert int(progress["text"]) in [process.pid for process in processes_of(tmp_path)]
        os.kill(int(progress["text"]), signal.SIGKILL)
        [*_, last, end] = koco_json(tmp_path, "follow", fid, "--node", "tests.local", "--no-lan", exit_code=1)
        assert (end["state"], last["event"]) == ("error", "fatal")
        assert last["data"]["type"] == "RunnerDied"
        [*_, end] = koco_json(tmp_path, "run", "tests.local/story.count", "n=3", "--no-lan")
        assert end["state"] == "done"
    assert processes_of(tmp_path) == []


def test_a_run_whose_runner_died_with_the_node_is_fatal_after_the_restart(tmp_path: Path) -> None:
    first = NodeProcess(tmp_path)
    try:
        fid = launch(tmp_path, "pid", "seconds=600")
        progress = eventually(lambda: state(tmp_path, fid).get("progress"))
        first.kill()
        os.kill(int(progress["text"]), signal.SIGKILL)
        with node(tmp_path):
            eventually(lambda: state(tmp_path, fid)["state"] == "error", seconds=60)
    finally:
        end_all(tmp_path)
