"""Flows without Ray: a local one, and a node whose runs have a process each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.cli.conftest import KOCO, User, environment

WHERE = """
import os
from kodo.flow import flow

@flow(author="test@example.com", organization="Test", release="1")
def where() -> bool:
    '''Tell whether it runs on Ray.'''
    {line}
    return "KODO_RAY" in os.environ

@flow(author="test@example.com", organization="Test", release="1", resources={{"num_cpus": 1}})
def asks() -> bool:
    '''Tell whether it runs on Ray.'''
    return "KODO_RAY" in os.environ
"""

SLOW = """
import asyncio, os
from kodo.flow import flow, result

@flow(name="Slow", author="test@example.com", organization="Test", release="1")
async def slow(n: int = 100) -> int:
    '''Count slowly.'''
    await result(pid=os.getpid())
    for number in range(n):
        await result(number=number)
        await asyncio.sleep(0.05)
    return n
"""


@pytest.mark.parametrize(
    ("flow", "line", "words", "on_ray"),
    [
        ("where", "pass", [], False),
        ("where", "import ray", [], True),
        ("asks", "pass", [], True),
        ("where", "import ray", ["--executor", "process"], None),
    ],
)
def test_a_local_flow_runs_on_ray_when_it_needs_it(
    user: User, tmp_path: Path, flow: str, line: str, words: list[str], on_ray: bool | None
) -> None:
    (tmp_path / "flows.py").write_text(WHERE.format(line=line))
    done = user("run", f"./flows.py:{flow}", "--json", *words, cwd=tmp_path)
    if on_ray is None:
        assert (done.code, "runs flows without Ray" in done.rows[-1]["error"]["message"]) == (2, True)
    else:
        assert (done.code, done.rows[-1]["final"]["result"]) == (0, on_ray), done.err


def test_a_killed_local_run_leaves_no_process(user: User, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    with subprocess.Popen(
        [*KOCO, "run", "./slow.py", "n=10000", "--json"],
        env=environment(user.home),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        pid = next(pid for pid in (_pid(line) for line in process.stdout) if pid)
        started = psutil.Process(process.pid).children(recursive=True)
        assert pid in [child.pid for child in started]
        process.kill()
    assert psutil.wait_procs(started, timeout=20)[1] == []


def _pid(line: bytes) -> int | None:
    data = json.loads(line).get("data") or {}
    return data.get("pid") if isinstance(data, dict) else None


@contextlib.contextmanager
def node(home: Path, scope: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    with subprocess.Popen(
        [*KOCO, "up", str(scope), "--json", "--no-lan", "--executor", "process", "--host", "127.0.0.1"],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.terminate()


def test_a_run_on_a_node_without_ray_goes_on_when_the_node_is_killed(user: User, tmp_path: Path) -> None:
    home, scope = tmp_path / "node", tmp_path / "scope.yaml"
    (tmp_path / "slow.py").write_text(SLOW)
    scope.write_text("name: plain.example\nflows: ['slow:slow']\n")
    with node(home, scope) as (process, told):
        assert told["executor"] == "process"
        launched = user("run", f"{told['addrs'][0]}/Slow", "--detach", "--json", "--no-lan").row
        with user.start("follow", f"{told['addrs'][0]}/{launched['fid']}", "--json", "--no-lan") as follower:
            assert follower.stdout is not None
            pid = next(pid for pid in (_pid(line.encode()) for line in follower.stdout) if pid)
            follower.kill()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.5)
    assert psutil.pid_exists(pid)
    with node(home, scope) as (process, told):
        done = user("follow", f"{told['addrs'][0]}/{launched['fid']}", "--json", "--no-lan")
        assert done.code == 0, done.err
        numbers = [row["data"]["number"] for row in done.rows if "number" in (row.get("data") or {})]
        assert numbers == list(range(100))
        assert done.rows[-1]["final"]["result"] == 100
    assert not (home / "ray").exists()
    assert [path.name for path in (home / "runners").iterdir()] == ["server.log"]


CHECKED = """
from datetime import date
from kodo.flow import flow

def judge(start, end):
    print("noise")
    return {"end": ["is before the start", "is in the past"]} if end < start else None

@flow(author="test@example.com", organization="Test", release="1", check=judge)
def trip(start: date, end: date) -> int:
    '''Plan a trip.'''
    return (end - start).days
"""


def test_inputs_that_an_author_refuses_start_no_run_and_each_field_is_told(user: User, tmp_path: Path) -> None:
    (tmp_path / "trip.py").write_text(CHECKED)
    refused = user("run", "./trip.py", "--json", "start=2026-05-02", "end=2026-05-01", cwd=tmp_path)
    (row,) = refused.rows
    places = [place["at"] for place in row["error"]["places"]]
    assert (refused.code, row["error"]["reason"], places) == (2, "bad-inputs", ["/end", "/end"])
    accepted = user("run", "./trip.py", "--json", "start=2026-05-01", "end=2026-05-03", cwd=tmp_path)
    assert (accepted.code, accepted.rows[-1]["final"]["result"]) == (0, 2), accepted.err
