"""What shares keep from being cleaned up, and what is kept of a share that ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kodo.node.housekeeping.deletion import Manager
from tests.unit.node.conftest import StillClock
from tests.unit.node.shares.share_rig import (
    DAY,
    link_of,
    opened,
    shared,
    world,
)


async def test_a_run_with_a_live_share_is_kept_until_it_ends(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        manager = Manager(node.rig.store, node.rig.runs, node.rig.outputs, retention_s=DAY)
        await node.rig.gone(fid)
        secret = await link_of(node, fid, expires_s=3 * DAY)
        used = await link_of(node, fid, expires_s=30 * DAY, downloads=1)
        await opened(node, used, "eve")
        await node.call("output.read", "eve", fid=fid, name="report.md")
        await node.call("run.ack", fid=fid)
        clock.advance(2 * DAY)
        assert [each.kind for each in await manager.housekeeping.clean()] == ["share"]
        assert (await node.call("run.state", fid=fid))["acknowledged"]
        clock.advance(DAY)
        assert [(each.kind, each.id) for each in await manager.housekeeping.clean()] == [("run", fid)]
        assert (await node.refused("run.state", fid=fid)).code == 404
        assert (await node.refused("share.open", "eve", secret=used)).reason == "used-up"
        assert (await node.refused("share.open", "eve", secret=secret)).reason == "no-such-link"


async def test_a_run_that_is_shared_while_it_is_being_cleaned_away_stays(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        housekeeping = Manager(node.rig.store, node.rig.runs, node.rig.outputs, retention_s=0).housekeeping
        await node.rig.gone(fid)
        await node.call("run.ack", fid=fid)
        stale = housekeeping.stale

        async def late(*kinds: Any) -> Any:
            found = await stale(*kinds)
            await shared(node, fid, link=True)
            return found

        housekeeping.stale = late  # type: ignore[method-assign]
        assert await housekeeping.clean(["run"]) == []
        assert (await node.call("run.state", fid=fid))["acknowledged"]
        assert (await node.call("output.list", fid=fid))["result"]


async def test_what_cleanup_shows_of_shares_is_what_goes(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        housekeeping = Manager(node.rig.store, node.rig.runs, node.rig.outputs).housekeeping
        sids = [(await shared(node, fid, link=True, expires_s=60.0 + n))["sid"] for n in range(3)]
        await node.call("share.revoke", sid=sids[0])
        assert [each.id for each in await housekeeping.stale(["share"])] == [sids[0]]
        assert await housekeeping.stale(["run"]) == []
        assert [each.id for each in await housekeeping.clean(["share"])] == [sids[0]]
        clock.advance(8 * DAY)
        shown = await housekeeping.stale()
        assert {each.id for each in shown} >= {sids[1], sids[2], "links"}
        assert await housekeeping.clean() == shown
        assert (await node.call("share.list"))["total_records"] == 0
