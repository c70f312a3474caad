"""The end of a counted read that cannot be written when it comes is written later, whoever is gone by then."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.errors import CapacityError
from kodo.sqlite.faults import StoreError
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.shares.share_rig import downloads, link_of, only_share, opened, world


@pytest.mark.parametrize("error", [CapacityError, StoreError])
async def test_an_end_is_owed_although_who_read_was_cancelled_before_it_failed(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=2), "eve")
        shares, write = node.rig.shares, node.rig.store.write
        reached, fail = asyncio.Event(), asyncio.Event()

        async def failing(work: Any) -> Any:
            if work.__name__ == "settle":
                reached.set()
                await fail.wait()
                raise error("not now")
            return await write(work)

        # At the read's own end, and when it is paid for the first time.
        for _ in range(2):
            with monkeypatch.context() as patch:
                patch.setattr(node.rig.store, "write", failing)
                reading = asyncio.ensure_future(node.call("output.read", "eve", fid=fid, name="report.md"))
                await reached.wait()
                reading.cancel()
                await asyncio.wait([reading])
                fail.set()
                await settled(lambda: len(shares._owed) == 1)
            reached.clear()
            fail.clear()
        await node.call("output.read", "eve", fid=fid, name="report.md")
        assert shares._owed == {}
        assert downloads(await only_share(node)) == (1, 0)
