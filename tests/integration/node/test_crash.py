"""What survives a crash: of the node, of a runner. Seen through `koco`, with real Ray.

One node is killed under three runs and started anew; each test looks at another of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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


@dataclass(frozen=True)
class Crash:
    """A node after a crash, and what was seen of its runs before.

    Attributes:
        first: the node that was killed.
        second: the one that came back, with the same home.
        counting: a run that counted through the crash; `seen` are its events until then.
        asking: a run with an open lock, `locks`; `link` is its share.
        dead: a run whose runner died while there was no node.
    """

    home: Path
    first: NodeProcess
    second: NodeProcess
    counting: str
    seen: list[dict[str, Any]]
    asking: str
    locks: list[dict[str, Any]]
    link: str
    dead: str


@pytest.fixture(scope="module")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crash]:
    home = tmp_path_factory.mktemp("home")
    first = NodeProcess(home)
    try:
        asking, dead = launch(home, "ask", "topic=bikes"), launch(home, "pid", "seconds=600")
        locks = eventually(lambda: state(home, asking).get("locks"))
        [share] = koco_json(home, "share", asking, "--downloads", "1", "--node", "tests.local", "--no-lan")
        progress = eventually(lambda: state(home, dead).get("progress"))
        counting = launch(home, "count", f"n={EVENTS}", "pause_ms=30")
        seen = follow_until(home, counting, 300)
        first.kill()
        os.kill(int(progress["text"]), signal.SIGKILL)
        with node(home) as second:
            yield Crash(home, first, second, counting, seen, asking, locks, share["link"], dead)
    finally:
        end_all(home)
    assert processes_of(home) == []


def test_a_killed_node_goes_on_with_its_run_and_loses_and_doubles_nothing(crash: Crash) -> None:
    assert crash.second.ready["addrs"] == crash.first.ready["addrs"]
    after = str(crash.seen[-1]["seq"])
    [*rest, end] = koco_json(
        crash.home, "follow", crash.counting, "--after", after, "--node", "tests.local", "--no-lan"
    )
    events = [*crash.seen, *rest]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    numbers = [event["data"]["number"] for event in events if event["event"] == "result"]
    assert numbers == list(range(EVENTS))
    assert end["state"] == "done"
    assert [event["at"] for event in events] == sorted(event["at"] for event in events)


def test_an_open_lock_survives_a_killed_node_and_is_answered_once(crash: Crash) -> None:
    home, fid, before = crash.home, crash.asking, crash.locks
    [got] = koco_json(home / "other", "get", crash.link, "--no-wait", "--no-lan")
    assert (got["fid"], got["state"], got["files"]) == (fid, "locked", [])
    after = state(home, fid)
    assert (after["state"], after["locks"]) == ("locked", before)
    [page] = koco_json(home, "locks", "--node", "tests.local", "--no-lan")
    [lock] = page["result"]
    assert (lock["fid"], lock["lid"]) == (fid, before[0]["lid"])
    koco_json(home, "answer", fid, "approved=true", "why=good", "--node", "tests.local", "--no-lan")
    [*_, end] = koco_json(home, "follow", fid, "--node", "tests.local", "--no-lan")
    assert end["final"]["result"] == "bikes: True good"
    words = ("answer", fid, before[0]["lid"], "approved=true", "--node", "tests.local", "--no-lan")
    [refused] = koco_json(home, *words, exit_code=3)
    assert refused["error"]["code"] == 410


def test_a_run_whose_runner_died_with_the_node_is_fatal_after_the_restart(crash: Crash) -> None:
    eventually(lambda: state(crash.home, crash.dead)["state"] == "error", seconds=60)


def test_a_killed_runner_is_fatal_and_the_node_goes_on(crash: Crash) -> None:
    fid = launch(crash.home, "pid", "seconds=600")
    progress = eventually(lambda: state(crash.home, fid).get("progress"))
    assert int(progress["text"]) in [process.pid for process in processes_of(crash.home)]
    os.kill(int(progress["text"]), signal.SIGKILL)
    [*_, last, end] = koco_json(crash.home, "follow", fid, "--node", "tests.local", "--no-lan", exit_code=1)
    assert (end["state"], last["event"]) == ("error", "fatal")
    assert last["data"]["type"] == "RunnerDied"
    [*_, end] = koco_json(crash.home, "run", "tests.local/story.count", "n=3", "--no-lan")
    assert end["state"] == "done"
