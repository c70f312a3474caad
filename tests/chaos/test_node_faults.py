"""A node whose parts are killed and stopped while runs are under way, seen through `koco`."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.koco import NodeProcess, end_all, eventually, koco_json, node, processes_of

AT = ("--node", "tests.local", "--no-lan")


def launch(home: Path, flow: str, *inputs: str) -> str:
    [launched] = koco_json(home, "run", f"tests.local/story.{flow}", *inputs, "--detach", "--no-lan")
    return str(launched["fid"])


def state(home: Path, fid: str) -> dict[str, Any]:
    [answer] = koco_json(home, "state", fid, *AT)
    return answer


def part(home: Path, name: str) -> int:
    """Give the process id of a part of the node's Ray."""
    record = json.loads((home / "ray" / "cluster.json").read_text())
    return int(next(pid for pid, _, part in record["processes"] if part == name))


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_a_node_whose_ray_died_answers_ends_its_runs_and_takes_new_ones(tmp_path: Path, name: str) -> None:
    with node(tmp_path) as running:
        locked = launch(tmp_path, "ask", "topic=bikes")
        eventually(lambda: state(tmp_path, locked)["locks"])
        os.kill(part(tmp_path, name), signal.SIGKILL)
        eventually(lambda: state(tmp_path, locked)["state"] == "error")
        assert state(tmp_path, locked)["fatal"]["type"] == "RunnerDied"
        [*events, end] = koco_json(tmp_path, "run", "tests.local/story.count", "n=20", "--no-lan")
        assert end["state"] == "done"
        numbers = [event["data"]["number"] for event in events if event.get("event") == "result"]
        assert numbers == list(range(20))
        assert running.process.poll() is None
    assert processes_of(tmp_path) == []


def test_a_node_that_was_stopped_for_a_while_loses_and_doubles_nothing(tmp_path: Path) -> None:
    running = NodeProcess(tmp_path)
    try:
        fid = launch(tmp_path, "count", "n=1000", "pause_ms=20")
        locked = launch(tmp_path, "ask", "topic=bikes")
        locks = eventually(lambda: state(tmp_path, locked)["locks"])
        running.process.send_signal(signal.SIGSTOP)
        time.sleep(5)
        running.process.send_signal(signal.SIGCONT)
        [*events, end] = koco_json(tmp_path, "follow", fid, *AT)
        assert end["state"] == "done"
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        numbers = [event["data"]["number"] for event in events if event["event"] == "result"]
        assert numbers == list(range(1000))
        assert state(tmp_path, locked)["locks"] == locks
        assert running.stop() == 0
    finally:
        end_all(tmp_path)
    assert processes_of(tmp_path) == []
