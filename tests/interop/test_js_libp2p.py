"""Unmodified js-libp2p, from npm, against a node that `koco up` started."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.koco import NodeProcess, koco_json, node

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with node(tmp_path_factory.mktemp("js") / "home", "--with-registry", "--registry-port", "0") as running:
        yield running


def dial(*words: str, exit_code: int = 0) -> list[dict[str, Any]]:
    executable = shutil.which("node")
    assert executable, "Node.js is missing; scripts/test installs it"
    done = subprocess.run(
        [executable, "dial.mjs", *words], cwd=HERE, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def addresses(running: NodeProcess) -> dict[str, str]:
    """Give the address on loopback that each command prints."""
    [own] = koco_json(running.home, "id")
    [row] = koco_json(running.home, "nodes", "--registry", running.ready["registries"][0], "--no-lan")
    printed = {"id": own["addrs"], "nodes": row["addrs"], "up": running.ready["addrs"]}
    return {name: next(each for each in found if "/127.0.0.1/" in each) for name, found in printed.items()}


def test_it_dials_the_address_that_each_command_prints(running: NodeProcess) -> None:
    for address in addresses(running).values():
        steps = {step["step"]: step for step in dial(address)}
        assert steps["dial"]["peer_id"] == running.ready["peer_id"]


def test_it_identifies_pings_and_asks_for_the_state(running: NodeProcess) -> None:
    steps = {step["step"]: step for step in dial(running.address)}
    assert steps["identify"]["peer_id"] == running.ready["peer_id"]
    assert "/kodo/call/1" in steps["identify"]["protocols"]
    assert running.address in steps["identify"]["addresses"]
    assert steps["ping"]["ms"] >= 0
    assert steps["node.state"]["done"]["name"] == "tests.local"


def test_it_launches_a_run_and_follows_it_to_its_end(running: NodeProcess) -> None:
    steps = dial(running.address, "story.count", json.dumps({"n": 250}))
    events = [step for step in steps if step["step"] == "event"]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["data"]["number"] for event in events if event["event"] == "result"] == list(range(250))
    assert events[-1]["event"] == "final"
    assert next(step for step in steps if step["step"] == "run.stream")["done"]["state"] == "done"


def test_it_sees_a_refusal_with_its_code_and_reason(running: NodeProcess) -> None:
    [*_, error] = dial(running.address, "story.nothing", exit_code=1)
    assert (error["during"], error["code"]) == ("run.launch", 404)


def test_it_refuses_a_node_that_is_somebody_else(running: NodeProcess) -> None:
    other = running.address.rpartition("/")[0] + "/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
    [*_, error] = dial(other, exit_code=1)
    assert error["during"] == "dial"
