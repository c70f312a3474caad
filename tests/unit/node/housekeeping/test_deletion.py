"""Runs that are over: acknowledged, deleted without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.node.housekeeping.deletion import Manager
from kodo.node.store import share_rows
from kodo.node.store.rows import NewEvent, OnceKey, RunNotOverError
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, NotFoundError
from kodo.protocol.events import RunState
from tests.unit.node.conftest import FIRST, StillClock, fid_of, new_run, settled
from tests.unit.node.rig import rig_of

SECRET = "a-word-that-nothing-else-says"


async def talks(run: InProcessRunner) -> str:
    for _ in range(50):
        run.emit("log", {"text": SECRET * 40})
    run.output("report.md", SECRET.encode() * 1000)
    return SECRET


async def forever(run: InProcessRunner) -> None:
    run.emit("log", {"text": "begun"})
    await asyncio.get_running_loop().create_future()


def on_disk(home: Path, word: str) -> list[str]:
    return [str(path) for path in home.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


async def test_everything_about_a_deleted_run_is_gone_from_the_disk(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": talks}) as node:
        manager = Manager(node.store, node.runs, node.outputs)
        kept, fid = await node.launch(), await node.launch(inputs={"topic": SECRET}, key="k")
        for each in (kept, fid):
            await node.all_events(each)
        assert len(on_disk(tmp_path, fid)) > 0
        assert len(on_disk(tmp_path, SECRET)) >= 3  # the log or the file, and two outputs
        assert await manager.delete(fid)
        assert on_disk(tmp_path, fid) == []
        assert not (tmp_path / "outputs" / fid).exists()
        assert await manager.delete(kept)
        assert on_disk(tmp_path, SECRET) == []
        assert await node.store.run(fid) is None


async def test_a_run_among_others_leaves_no_trace_when_it_is_deleted(tmp_path: Path, clock: StillClock) -> None:
    async with Store(tmp_path / "node.db", clock=clock) as store:
        for number in range(8):
            await store.create(new_run(number), FIRST)
        # Interleaved, so that pages are split in all ways; the sizes cross those of pages.
        for turn in range(40):
            for number in range(8):
                text = f"run-{number}-" * (1 + turn * 17 % 900)
                await store.append(fid_of(number), [NewEvent.make("log", {"text": text}, turn + 1)])
        for number in range(8):
            await store.append(fid_of(number), [NewEvent.make("final", {"result": None}, 1000)])
        for number in (3, 0, 7):
            await store.delete(fid_of(number))
            assert await store.scrub()
            assert on_disk(tmp_path, f"run-{number}-") == []
        assert [row.fid for row in (await store.runs(_all())).rows] == [fid_of(n) for n in (6, 5, 4, 2, 1)]
        assert len(await store.events(fid_of(4), limit=100)) == 44


def _all():  # type: ignore[no-untyped-def]
    from kodo.node.store.queries import RunFilter

    return RunFilter("ana")


async def test_a_run_that_is_not_over_is_neither_deleted_nor_acknowledged(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}) as node:
        manager = Manager(node.store, node.runs, node.outputs)
        fid = await node.launch()
        await node.until(fid, "log")
        for work in (manager.delete(fid), manager.acknowledge(fid, "ana")):
            with pytest.raises(CallError) as caught:
                await work
            assert (caught.value.code, caught.value.reason, caught.value.data) == (
                400,
                "bad-state",
                {"state": "pending"},
            )
        with pytest.raises(RunNotOverError):
            await node.store.delete(fid)
        assert len(await node.store.events(fid)) == 4


async def test_an_acknowledgement_is_stored_once(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": talks}) as node:
        manager = Manager(node.store, node.runs, node.outputs)
        fid = await node.launch()
        await node.all_events(fid)
        clock.advance(5)
        assert await manager.acknowledge(fid, "ana") is RunState.DONE
        clock.advance(5)
        assert await manager.acknowledge(fid, "ana") is RunState.DONE
        found = await node.store.every(fid, ["acknowledge"])
        assert [(event.kind, event.data) for event in found] == [("manage", {"by": "ana"})]
        row = await node.store.run(fid)
        view = await node.store.view(fid)
        assert row is not None
        assert view is not None
        assert (row.acknowledged, row.state, view.acknowledged) == (found[0].at, RunState.DONE, True)


async def test_a_follower_in_the_midst_is_told_of_the_deletion(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": talks}) as node:
        manager = Manager(node.store, node.runs, node.outputs)
        fid = await node.launch()
        last = (await node.all_events(fid))[-1].seq
        node.feed._channels.clear()
        async with contextlib.aclosing(node.feed.follow(fid)) as batches:
            assert (await anext(batches)).first_seq == 1
            # As for a slow reader: what comes next has to be read.
            async with contextlib.aclosing(node.feed.follow(fid, 10)) as others:
                node.feed._channels[fid].last_seq = last
                await manager.delete(fid)
                told = [event async for batch in others for event in batch]
        assert [(event.event, event.kind, event.seq) for event in told] == [("delete", "manage", last + 1)]
        assert await node.store.events(fid) == []


async def test_a_key_of_a_deleted_run_makes_a_new_run(store: Store, clock: StillClock) -> None:
    await store.create(new_run(1), FIRST, OnceKey("ana", "launch/k", fid_of(1), b"d" * 32))
    await store.append(fid_of(1), [NewEvent.make("final", {"result": 1}, 1)])
    await store.delete(fid_of(1))
    again = await store.create(new_run(2), FIRST, OnceKey("ana", "launch/k", fid_of(2), b"d" * 32))
    assert again == (fid_of(2), True)
    with pytest.raises(NotFoundError):
        await store.delete(fid_of(1))


async def test_a_log_that_is_being_read_is_cut_once_the_reader_is_through(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": talks}) as node:
        manager = Manager(node.store, node.runs, node.outputs)
        fid = await node.launch()
        await node.all_events(fid)
        reader = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        assert not await manager.delete(fid)
        reader.execute("COMMIT")
        reader.close()
        for _ in range(8):
            clock.advance(30)
            await asyncio.sleep(0)
        await settled(lambda: clock.advance(30) or not (tmp_path / "node.db-wal").stat().st_size)
        assert on_disk(tmp_path, SECRET) == []


async def test_an_older_database_is_brought_up_to_date(tmp_path: Path, clock: StillClock) -> None:
    path = tmp_path / "node.db"
    async with Store(path, clock=clock) as store:
        await store.create(new_run(1), FIRST)
        await store.append(fid_of(1), [NewEvent.make("final", {"result": 1}, 1)])
    old = sqlite3.connect(path)
    for (name,) in old.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND name LIKE 'access_%'"
    ).fetchall():
        old.execute(f"DROP TABLE {name}")
    old.executescript(
        "DROP TABLE downloaded; DROP TABLE downloads; DROP TABLE share_to; DROP TABLE shares; DROP TABLE dead_links;"
        "DROP TABLE debts; DROP TABLE audit; DROP TABLE schedules; DROP TABLE invitations; DROP TABLE notices;"
        "DROP INDEX runs_acknowledged; ALTER TABLE runs DROP COLUMN acknowledged; ALTER TABLE runs DROP COLUMN payer;"
        "ALTER TABLE runs DROP COLUMN max_events; ALTER TABLE runs DROP COLUMN max_event_bytes; PRAGMA user_version=1"
    )
    old.close()
    async with Store(path, clock=clock) as store:
        await store.append(fid_of(1), [NewEvent.make("acknowledge", {"by": "ana"})])
        row = await store.run(fid_of(1))
        assert row is not None
        assert row.acknowledged == clock.ms
        roles = await store.ask(lambda tables: tables.execute("SELECT count(*) FROM access_roles").fetchone())
        assert roles == (3,)
        assert await store.ask(lambda connection: share_rows.of_run(connection, fid_of(1), clock.ms)) == []
