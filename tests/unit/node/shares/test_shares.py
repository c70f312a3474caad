"""Shares with users and roles: who sees what by one, and which are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import LID, node_of
from tests.unit.node.shares.share_rig import (
    shared,
    world,
)


async def test_a_run_shared_with_a_user_is_in_their_list_at_the_level_of_the_share(
    tmp_path: Path, clock: StillClock
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await node.finished()
        share = await shared(node, fid, to={"users": ["bob"]}, level=1)
        page = await node.call("run.list", "bob")
        assert [(row["fid"], row["own"], row["level"]) for row in page["result"]] == [(fid, False, 1)]
        state = await node.call("run.state", "bob", fid=fid)
        assert (state["level"], state["modes"], state["own"], state["agents"]) == (1, ["r"], False, [])
        assert state["inputs"] == {"n": 3}
        assert [output["name"] for output in state["outputs"]] == ["report.md"]
        await node.call("run.stream", "bob", fid=fid)
        names = [item["event"] for item in node.items]
        assert names == ["version", "flow", "inputs", "progress", "output", "final"]
        assert (await node.refused("run.state", "eve", fid=fid)).reason == "no-such-run"
        assert (await node.call("run.list", "eve"))["result"] == []
        await node.call("share.revoke", sid=share["sid"])
        assert (await node.refused("run.state", "bob", fid=fid)).code == 404
        assert (await node.call("run.list", "bob"))["result"] == []


async def test_a_role_is_everybody_who_has_it(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await shared(node, fid, to={"roles": ["operator"]})
        assert (await node.call("run.state", "home", fid=fid))["inputs"] == {"n": 3}
        assert (await node.refused("run.state", "bob", fid=fid)).code == 404
        await shared(node, fid, to={"roles": ["user"]}, level=2)
        assert (await node.call("run.state", "bob", fid=fid))["level"] == 2


async def test_with_whom_a_run_is_shared_is_for_its_launcher_and_operators(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        sid = (await shared(node, fid, to={"users": ["bob"], "roles": ["operator"]}, level=2))["sid"]
        for peer, told in (("ana", True), ("home", True), ("bob", False)):
            await node.call("run.stream", peer, fid=fid)
            assert any(item["event"] == "share" for item in node.items) is told, peer
            assert bool((await node.call("run.state", peer, fid=fid))["shares"]) is told, peer
        assert (await node.refused("share.list", "bob", fid=fid)).reason == "not-yours"
        [row] = (await node.call("share.list", "home", fid=fid))["result"]
        assert (row["sid"], row["to"]["users"], row["state"]) == (sid, ["bob"], "live")
        assert (await node.call("share.list", "bob"))["result"] == []
        assert (await node.refused("share.revoke", "bob", sid=sid)).reason == "no-such-share"
        await node.call("share.revoke", "home", sid=sid)
        await node.call("share.revoke", "home", sid=sid)
        await node.call("run.stream", fid=fid)
        assert [item["event"] for item in node.items][-2:] == ["share", "unshare"]


async def test_a_share_in_mode_x_lets_answer_and_kill_and_no_more(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        await shared(node, fid, to={"users": ["bob"]}, mode="x")
        await shared(node, fid, to={"users": ["eve"]}, mode="r")
        assert [row["lid"] for row in (await node.call("lock.list", "bob"))["result"]] == [LID]
        assert (await node.call("lock.list", "eve"))["result"] == []
        assert (await node.refused("lock.answer", "eve", fid=fid, lid=LID, candidate=True)).code == 403
        for op in ("run.delete", "run.ack"):
            assert (await node.refused(op, "bob", fid=fid)).reason == "not-yours"
        assert (await node.refused("run.share", "bob", fid=fid, link=True)).reason == "not-yours"
        await node.call("lock.answer", "bob", fid=fid, lid=LID, candidate=True)


@pytest.mark.parametrize(
    ("args", "code", "what"),
    [
        ({}, 400, "to"),
        ({"link": True, "to": {"users": ["bob"]}}, 400, "to"),
        ({"to": {"users": [], "roles": []}}, 400, "to"),
        ({"link": True, "mode": "x"}, 400, "mode"),
        ({"link": True, "level": 0, "downloads": 1}, 400, "downloads"),
        ({"link": True, "level": 3}, 400, "level"),
        ({"link": True, "expires_s": 0.5}, 400, "expires_s"),
        ({"link": True, "downloads": 0}, 400, "downloads"),
        ({"to": {"users": ["x" * 300]}}, 400, "to.users.0"),
        ({"to": {"users": ["x"] * 65}}, 400, "to.users"),
    ],
)
async def test_a_share_that_cannot_be_is_refused(
    tmp_path: Path, clock: StillClock, args: dict[str, Any], code: int, what: str
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        error = await node.refused("run.share", fid=fid, **args)
        assert (error.code, error.data.get("arg")) == (code, what)
        assert (await node.call("share.list"))["total_records"] == 0


# --- links ---


async def test_the_shares_of_a_run_are_bounded(tmp_path: Path, clock: StillClock, monkeypatch: Any) -> None:
    monkeypatch.setattr("kodo.node.store.share_changes.MAX_SHARES", 3)
    async with world(tmp_path, clock) as (node, fid):
        for _ in range(3):
            await shared(node, fid, to={"users": ["bob"]})
        with pytest.raises(Exception, match="3 shares"):
            await shared(node, fid, to={"users": ["bob"]})
        await node.call("run.stream", fid=fid)
        assert [item["event"] for item in node.items].count("share") == 3
