"""What of a node's administration is in its audit, and who may read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import Node, node_of


async def lines(node: Node) -> list[tuple[str, str, dict[str, Any]]]:
    told = await node.call("node.audit", "home")
    return [(row["what"], row["by"], row["data"]) for row in told["result"]]


async def test_what_an_operator_does_is_told_latest_first(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await node.call("user.add", "home", name="ana", password="a long password")
        await node.call("grant.add", "home", user="ana", grant="node://*")
        assert (await node.refused("user.add", "home", name="ana")).reason == "user-exists"
        await node.call("user.list", "home")
        await node.call("node.scale", "home", runners=3)
        await node.call("cleanup.run", "home", what=["output"])
        assert await lines(node) == [
            ("cleanup.run", "home", {"what": ["output"]}),
            ("node.scale", "home", {"runners": 3}),
            ("grant.add", "home", {"user": "ana", "grant": "node://*"}),
            ("user.add", "home", {"name": "ana"}),
        ]


async def test_only_operators_read_it_and_refused_attempts_make_no_line(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        for op, args in {"node.audit": {}, "node.scale": {"runners": 1}, "node.shutdown": {}}.items():
            assert (await node.refused(op, "ana", **args)).reason == "operator-only"
        assert await lines(node) == []


async def test_ending_and_deleting_runs_of_others_is_told_and_of_ones_own_not(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        own, others = [
            (await node.call("run.launch", who, path="flows.ask", inputs={"n": 1}))["fid"] for who in ("home", "ana")
        ]
        for fid in (own, others):
            await node.rig.until(fid, "lock")
            await node.call("run.kill", "home", fid=fid)
            await node.rig.gone(fid)
            assert (await node.refused("run.kill", "home", fid=fid)).reason == "bad-state"
            await node.call("run.delete", "home", fid=fid)
        assert await lines(node) == [("run.delete", "home", {"fid": others}), ("run.kill", "home", {"fid": others})]
