"""The end of a share ends what is being read by it, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.errors import CallError
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.service_rig import Node, node_of
from tests.unit.node.shares.share_rig import (
    Slow,
    opened,
    shared,
    world,
)


async def mid_download(node: Node, fid: str, **args: Any) -> tuple[Slow, str]:
    answer = await shared(node, fid, link=True, **args)
    await opened(node, decode_token(answer["token"]).secret, "eve")
    slow = Slow(node, "output.read", "eve", fid=fid, name="report.md")
    await slow.take(1)
    return slow, str(answer["sid"])


@pytest.mark.parametrize("limit", [{}, {"downloads": 1}])
@pytest.mark.parametrize("end", ["revoked", "expired", "deleted"])
async def test_a_download_ends_with_its_share(
    tmp_path: Path, clock: StillClock, end: str, limit: dict[str, int]
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        slow, sid = await mid_download(node, fid, expires_s=90.0, **limit)
        match end:
            case "revoked":
                await node.call("share.revoke", sid=sid)
            case "expired":
                clock.advance(60)
                await asyncio.sleep(0)
                assert not slow.task.done()
                clock.advance(30)
                await settled(slow.task.done)
            case _:
                await node.call("run.delete", fid=fid)
        assert await slow.refused() == f"410 {end}"
        assert slow.aborted
        assert len(slow.items) == 1
        assert not node.rig.shares._uses
        assert not node.rig.shares._downloads


async def test_following_ends_with_its_share_and_the_launcher_follows_on(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = (await node.call("run.launch", path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        sid = (await shared(node, fid, to={"users": ["bob"]}))["sid"]
        sharee, launcher = (Slow(node, "run.stream", peer, fid=fid) for peer in ("bob", "ana"))
        await sharee.take(4)
        assert [item["event"] for item in sharee.items] == ["version", "flow", "inputs", "lock"]
        await node.call("share.revoke", sid=sid)
        assert await sharee.refused() == "410 revoked"
        await launcher.take(6)
        assert [item["event"] for item in launcher.items][-2:] == ["share", "unshare"]
        await launcher.broken()


async def test_a_share_that_ends_before_its_use_begins_is_not_used(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        share = await node.rig.shares.get((await shared(node, fid, link=True))["sid"])
        assert share is not None
        await node.rig.shares.revoke(share, "ana")
        with pytest.raises(CallError, match="revoked"):
            async with node.rig.shares.using(share, pytest.fail):
                pytest.fail("it was used")
