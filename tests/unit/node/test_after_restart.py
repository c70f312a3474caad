"""What a node holds runs and uploads to is the same after a restart: whose they are, and how much they have said."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.files.uploads import UploadLimits, Uploads
from kodo.node.runs.launch import RunSettings
from kodo.node.store.schema import SCHEMA_VERSION
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError
from kodo.protocol.args.files import InputWriteArgs
from tests.unit.node.conftest import FIRST, StillClock, fid_of, new_run
from tests.unit.node.rig import rig

SOURCE = "192.0.2.7"


async def works(run: InProcessRunner) -> None:
    run.emit("log", {"text": "begun"})
    await asyncio.Event().wait()


async def test_runs_that_go_on_count_for_the_address_that_launched_them(tmp_path: Path, clock: StillClock) -> None:
    settings = RunSettings(max_live=10, max_live_each=2, keep_runs=True)
    async with InProcessExecutor({"flow": works}) as executor:
        async with rig(tmp_path, executor, clock, settings) as node:
            for peer in ("peer-1", "peer-2"):
                await node.until(await node.launch(principal=peer, payer=SOURCE), "log")
        clock.ms += 1  # ids are of their time
        async with rig(tmp_path, executor, clock, settings) as node:
            assert {live.payer for live in node.runs.live.values()} == {SOURCE}
            with pytest.raises(CallError) as caught:
                await node.launch(principal="peer-3", payer=SOURCE)
            assert (caught.value.code, caught.value.reason) == (429, "busy")
            await node.launch(principal="peer-3", payer="198.51.100.1")


async def test_where_a_launch_came_from_is_not_kept_when_its_run_is_over(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor({"flow": works}) as executor, rig(tmp_path, executor, clock) as node:
        fid = await node.launch(payer=SOURCE)
        await node.until(fid, "log")
        assert (await node.store.run(fid)).payer == SOURCE  # type: ignore[union-attr]
        await node.runs.kill(fid, "ana")
        assert (await node.store.run(fid)).payer == ""  # type: ignore[union-attr]
        path = node.store.path
    assert SOURCE.encode() not in path.read_bytes()


async def test_a_run_that_goes_on_has_said_what_it_had_said(tmp_path: Path, clock: StillClock) -> None:
    more = asyncio.Event()

    async def talks(run: InProcessRunner) -> None:
        for rseq in range(1, 61):
            run.say(RunnerEvent(rseq, "log", {}))  # a runner that does not count
        await more.wait()
        for rseq in range(61, 121):
            run.say(RunnerEvent(rseq, "log", {}))

    first = RunSettings(max_events=100, keep_runs=True)
    async with InProcessExecutor({"flow": talks}) as executor:
        async with rig(tmp_path, executor, clock, first) as node:
            fid = await node.launch()
            await node.until(fid, "log")
        # The bounds are those of its launch, whatever the settings are now.
        async with rig(tmp_path, executor, clock, RunSettings(max_events=10_000, keep_runs=True)) as node:
            more.set()
            events = await node.all_events(fid)
            assert (events[-1].event, events[-1].data["type"]) == ("fatal", "Misconduct")
            assert sum(event.event == "log" for event in events) == 102  # and the two notices that a flow gets


async def test_a_run_that_was_told_more_may_say_it_although_the_setting_is_lower_now(
    tmp_path: Path, clock: StillClock
) -> None:
    more = asyncio.Event()

    async def talks(run: InProcessRunner) -> None:
        run.emit("log", {})
        await more.wait()
        for _ in range(150):
            run.emit("log", {})

    async with InProcessExecutor({"flow": talks}) as executor:
        async with rig(tmp_path, executor, clock, RunSettings(max_events=200, keep_runs=True)) as node:
            fid = await node.launch()
            await node.until(fid, "log")
        async with rig(tmp_path, executor, clock, RunSettings(max_events=100, keep_runs=True)) as node:
            more.set()
            assert (await node.all_events(fid))[-1].event == "final"


async def test_uploads_count_for_the_address_that_sent_them(tmp_path: Path, clock: StillClock) -> None:
    limits = UploadLimits(uploads=1)
    ids = iter(f"{number:026}" for number in range(9))

    def opened() -> Uploads:
        uploads = Uploads(tmp_path / "uploads", clock=clock, new_id=lambda: next(ids), limits=limits)
        uploads.open()
        return uploads

    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"

    def file(name: str) -> InputWriteArgs:
        return InputWriteArgs(name=name, size=3, sha256=hashlib.sha256(b"abc").hexdigest())

    await opened().write("peer-1", file("a"), pieces(), payer=SOURCE)
    again = opened()
    with pytest.raises(CallError) as caught:
        await again.write("peer-2", file("b"), pieces(), payer=SOURCE)
    assert caught.value.reason == "too-many-uploads"
    await again.write("peer-2", file("b"), pieces(), payer="198.51.100.1")


async def test_a_database_of_an_earlier_release_is_taken_over(tmp_path: Path, clock: StillClock) -> None:
    path = tmp_path / "node.db"
    async with Store(path, clock=clock) as store:
        await store.create(new_run(1), FIRST, None)
    connection = sqlite3.connect(path)
    for column in ("payer", "max_events", "max_event_bytes"):
        connection.execute(f"ALTER TABLE runs DROP COLUMN {column}")
    for table in ("audit", "schedules", "invitations", "notices"):
        connection.execute(f"DROP TABLE {table}")
    connection.execute("PRAGMA user_version=5")
    connection.commit()
    connection.close()
    async with Store(path, clock=clock) as store:
        row = await store.run(fid_of(1))
        assert row is not None
        assert (row.payer, row.max_events, row.max_event_bytes) == ("", None, None)
        await store.create(new_run(2), FIRST, None)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()
