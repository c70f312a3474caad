"""Downloads by a share are counted, and can be neither overrun nor burnt."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.node.store.share_rows import DOWNLOAD_MS
from kodo.p2p.errors import CallError, CapacityError
from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import Node, node_of
from tests.unit.node.shares.share_rig import (
    DAY,
    SIZE,
    Slow,
    downloads,
    link_of,
    only_share,
    opened,
    world,
)


async def test_a_complete_download_counts_once(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid, downloads=2)
        await opened(node, secret, "eve")
        for _ in range(3):
            await node.call("output.read", "eve", fid=fid, name="report.md")
        assert downloads(await only_share(node)) == (1, 0)
        await opened(node, secret, "bob")
        await node.call("output.read", "bob", fid=fid, name="report.md")
        row = await only_share(node)
        assert (downloads(row), row["state"]) == ((2, 0), "used-up")
        assert (await node.refused("share.open", "zoe", secret=secret)).reason == "used-up"
        # Both may read again for a day; then nobody.
        await node.call("output.read", "eve", fid=fid, name="report.md")
        clock.advance(DAY)
        assert (await node.refused("output.read", "eve", fid=fid, name="report.md")).reason == "used-up"


async def test_a_download_goes_on_where_it_was_cut_and_counts_once(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=1), "eve")
        first = Slow(node, "output.read", "eve", fid=fid, name="report.md")
        await first.take(2)
        await first.broken()
        assert downloads(await only_share(node)) == (0, 1)
        clock.advance(DAY - 1)
        await node.call("output.read", "eve", fid=fid, name="report.md", offset=65536)
        assert downloads(await only_share(node)) == (1, 0)


async def test_a_place_is_held_against_others_and_lapses_after_a_day(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid, downloads=2)
        await opened(node, secret, "eve", "bob", "zoe")
        for peer in ("eve", "bob"):
            slow = Slow(node, "output.read", peer, fid=fid, name="report.md")
            await slow.take(1)
            await slow.broken()
        error = await node.refused("output.read", "zoe", fid=fid, name="report.md")
        assert (error.code, error.reason) == (429, "busy")
        assert error.data["retry_after_ms"] > 0
        clock.advance(DOWNLOAD_MS / 1000)
        # What was begun, and never ended, counts: those bytes are given.
        assert (await node.refused("output.read", "zoe", fid=fid, name="report.md")).reason == "used-up"


@pytest.mark.parametrize("whole", [True, False])
async def test_who_comes_back_after_a_day_begins_another_download(
    tmp_path: Path, clock: StillClock, whole: bool
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=2), "eve")
        first = Slow(node, "output.read", "eve", fid=fid, name="report.md")
        await first.take(9 if whole else 1)
        await first.broken()
        assert downloads(await only_share(node)) == ((1, 0) if whole else (0, 1))
        clock.advance(DAY)
        await node.call("output.read", "eve", fid=fid, name="report.md")
        assert downloads(await only_share(node)) == (2, 0)


async def big(run: InProcessRunner) -> None:
    run.output("big.bin", bytes(20_000_000))


@contextlib.asynccontextmanager
async def big_world(tmp_path: Path, clock: StillClock, downloads: int) -> AsyncIterator[tuple[Node, str, bytes]]:
    """A node with a run whose output has 305 pieces, and a link to it for some downloads."""
    async with world(tmp_path, clock) as (node, _):
        node.rig.executor.flows["big"] = big
        fid = await node.rig.launch("big")
        await node.rig.all_events(fid)
        yield node, fid, await link_of(node, fid, downloads=downloads)


async def sip(node: Node, fid: str, peer: str, pieces: int = 3, offset: int = 0) -> None:
    """Read a little of it, under 1 %, and break off."""
    slow = Slow(node, "output.read", peer, fid=fid, name="big.bin", offset=offset)
    await slow.take(pieces)
    await slow.broken()


async def test_a_download_that_broke_at_once_takes_no_place(tmp_path: Path, clock: StillClock) -> None:
    async with big_world(tmp_path, clock, 1) as (node, fid, secret):
        await opened(node, secret, "eve", "bob")
        await sip(node, fid, "eve")
        assert downloads(await only_share(node)) == (0, 0)
        await node.call("output.read", "bob", fid=fid, name="big.bin")
        assert downloads(await only_share(node)) == (1, 0)
        assert (await node.refused("output.read", "eve", fid=fid, name="big.bin")).reason == "used-up"


async def test_breaking_off_often_is_no_way_to_take_more(tmp_path: Path, clock: StillClock) -> None:
    async with big_world(tmp_path, clock, 1) as (node, fid, secret):
        await opened(node, secret, "eve")
        await sip(node, fid, "eve")
        await sip(node, fid, "eve", offset=3 * 65536)
        assert downloads(await only_share(node)) == (0, 1)


async def test_many_peers_that_take_a_little_each_take_one_download_together(
    tmp_path: Path, clock: StillClock
) -> None:
    async with big_world(tmp_path, clock, 2) as (node, fid, secret):
        for number in range(102):
            await opened(node, secret, f"peer{number}")
            await sip(node, fid, f"peer{number}", offset=min(number * 3 * 65536, 19_800_000))
        assert downloads(await only_share(node)) == (1, 0)
        clock.advance(DAY)
        await opened(node, secret, "eve")
        await node.call("output.read", "eve", fid=fid, name="big.bin")
        assert downloads(await only_share(node)) == (2, 0)


async def test_at_once_no_more_peers_get_it_than_may(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        secret = await link_of(node, fid, downloads=3)
        peers = [f"peer{number}" for number in range(20)]
        await opened(node, secret, *peers)

        async def read(peer: str) -> str:
            try:
                return str((await node.call("output.read", peer, fid=fid, name="report.md"))["bytes"])
            except CallError as error:
                return error.reason

        found = await asyncio.gather(*(read(peer) for peer in peers for _ in range(2)))
        whole = {
            peer
            for peer, answer in zip([p for p in peers for _ in range(2)], found, strict=True)
            if answer == "160000"
        }
        assert len(whole) == 3
        assert {answer for answer in found if answer != "160000"} <= {"busy", "used-up"}
        assert downloads(await only_share(node)) == (3, 0)


async def test_a_run_of_several_files_is_downloaded_when_all_are(tmp_path: Path, clock: StillClock) -> None:
    async def many(run: InProcessRunner) -> None:
        for number in range(4):
            run.output(f"{number}.bin", bytes(number * 70_000))

    async with world(tmp_path, clock) as (node, _):
        node.rig.executor.flows["many"] = many
        fid = await node.rig.launch("many")
        await node.rig.all_events(fid)
        await opened(node, await link_of(node, fid, downloads=1), "eve")
        slow = Slow(node, "output.read", "eve", fid=fid, name="3.bin")
        await slow.take(1)
        for name in ("0.bin", "2.bin", "1.bin"):
            await node.call("output.read", "eve", fid=fid, name=name)
        assert downloads(await only_share(node)) == (0, 1)
        await slow.take(9)
        assert (await slow.task)["bytes"] == 210_000
        assert downloads(await only_share(node)) == (1, 0)


def copy_home(home: Path, to: Path) -> None:
    for path in home.glob("node.db*"):
        shutil.copy(path, to)
    shutil.copytree(home / "outputs", to / "outputs")


async def test_a_place_survives_a_crash_at_any_moment(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        secret = await link_of(node, fid, downloads=1)
        await opened(node, secret, "eve")
        slow = Slow(node, "output.read", "eve", fid=fid, name="report.md")
        await slow.take(1)
        # What is on the disk now is what a killed node would find.
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        copy_home(tmp_path, crashed)
        await slow.broken()
    async with node_of(crashed, clock) as node:
        await opened(node, secret, "eve", "bob")
        assert (await node.refused("output.read", "bob", fid=fid, name="report.md")).reason == "busy"
        await node.call("output.read", "eve", fid=fid, name="report.md", offset=65536)
        assert downloads(await only_share(node)) == (1, 0)
        assert (await node.refused("output.read", "bob", fid=fid, name="report.md")).reason == "used-up"


@pytest.mark.parametrize("room", [0, 1])
async def test_a_full_disk_sends_nothing_and_burns_no_place(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=1), "eve", "bob")
        write, left = node.rig.store.write, [room]

        async def full(work: Any) -> Any:
            if not left[0]:
                raise CapacityError("the disk is full")
            left[0] -= 1
            return await write(work)

        with monkeypatch.context() as patch:
            patch.setattr(node.rig.store, "write", full)
            with pytest.raises(CapacityError):
                await node.call("output.read", "eve", fid=fid, name="report.md")
            assert node.items == []
        await node.call("output.read", "bob", fid=fid, name="report.md")
        assert downloads(await only_share(node)) == (1, 0)


async def test_peers_that_resume_a_share_at_once_after_a_full_disk_are_counted_once_each(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, clock) as (node, fid):
        peers = ("eve", "bob", "zoe")
        await opened(node, await link_of(node, fid, downloads=10), *peers)
        write, applied, ended = node.rig.store.write, [], asyncio.Barrier(len(peers))

        async def full(work: Any) -> Any:
            if work.__name__ == "settle":
                await ended.wait()
                raise CapacityError("the disk is full")
            return await write(work)

        async def read_all() -> None:
            async with asyncio.TaskGroup() as group:
                for peer in peers:
                    group.create_task(node.call("output.read", peer, fid=fid, name="report.md"))

        async def noted(work: Any) -> Any:
            if work.__name__ == "settle":
                applied.append(work)
            await asyncio.sleep(0)
            return await write(work)

        with monkeypatch.context() as patch:
            patch.setattr(node.rig.store, "write", full)
            await read_all()
            owed = list(node.rig.shares._owed.values())
            assert len(owed) == 3
        monkeypatch.setattr(node.rig.store, "write", noted)
        await read_all()
        assert [applied.count(each) for each in owed] == [1, 1, 1]
        assert downloads(await only_share(node)) == (3, 0)


async def test_a_read_that_begins_while_the_one_before_ends_counts(tmp_path: Path, clock: StillClock) -> None:
    async with world(tmp_path, clock) as (node, fid):
        await opened(node, await link_of(node, fid, downloads=1), "eve")
        shares, [share] = node.rig.shares, await node.rig.shares.of_run(fid)
        ended = asyncio.Event()

        async def next_one() -> None:
            await ended.wait()
            async with shares.reading(share, "eve", "report.md") as place:
                assert place is not None
                await place.before(0, SIZE)
                assert downloads(await only_share(node)) == (0, 1)
                place.after(0, SIZE)

        following = asyncio.create_task(next_one())
        async with shares.reading(share, "eve", "report.md"):
            await asyncio.sleep(0)
            # Its turn comes before that of any task which this end makes.
            ended.set()
        await following
        assert shares._downloads == {}
        assert downloads(await only_share(node)) == (1, 0)
