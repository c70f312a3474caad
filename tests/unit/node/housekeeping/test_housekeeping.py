"""Housekeeping: what it shows is what it removes, and nothing else."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.node.housekeeping.cleanup import Logs, Stale, Uploaded
from kodo.node.housekeeping.deletion import Manager
from kodo.p2p.errors import UsageError
from kodo.protocol.args.files import InputWriteArgs
from tests.unit.node.conftest import StillClock, fid_of, settled
from tests.unit.node.rig import Rig, rig_of

DAY = 86400.0


async def writes(run: InProcessRunner) -> None:
    run.output("a.bin", b"x" * 100_000)


def manager_of(node: Rig) -> Manager:
    return Manager(node.store, node.runs, node.outputs, retention_s=7 * DAY, housekeeping_s=600)


async def finished(node: Rig, **options: str) -> str:
    fid = await node.launch(**options)
    await node.all_events(fid)
    await node.gone(fid)
    return fid


async def test_only_acknowledged_runs_whose_retention_passed_are_obsolete(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        manager = manager_of(node)
        old, young, never = [await finished(node) for _ in range(3)]
        await manager.acknowledge(old, "ana")
        clock.advance(4 * DAY)
        await manager.acknowledge(young, "ana")
        clock.advance(3 * DAY)
        shown = await manager.housekeeping.stale()
        assert [(each.kind, each.id) for each in shown] == [("run", old)]
        assert 100_000 < shown[0].bytes < 101_000
        assert await manager.housekeeping.clean() == shown
        assert await node.store.run(old) is None
        assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == sorted([".part", young, never])
        assert await manager.housekeeping.stale() == []


async def test_files_without_a_run_and_old_keys_go(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        manager = manager_of(node)
        kept = await finished(node, key="k")
        lost = tmp_path / "outputs" / fid_of(9)
        lost.mkdir()
        (lost / "a.bin").write_bytes(b"x" * 1000)
        assert [(each.kind, each.id, each.bytes) for each in await manager.housekeeping.stale()] == [
            ("output", fid_of(9), 1000)
        ]
        clock.advance(2 * DAY)
        assert [each.kind for each in await manager.housekeeping.clean()] == ["output", "key"]
        assert not lost.exists()
        assert (tmp_path / "outputs" / kept / "a.bin").exists()
        assert await manager.housekeeping.stale() == []


async def test_what_is_named_alone_is_looked_at(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        manager = manager_of(node)
        await finished(node, key="k")
        (tmp_path / "outputs" / fid_of(9)).mkdir()
        clock.advance(2 * DAY)
        assert [each.kind for each in await manager.housekeeping.clean(["key"])] == ["key"]
        assert [each.kind for each in await manager.housekeeping.stale()] == ["output"]


async def test_the_space_of_removed_runs_is_returned_to_the_disk(tmp_path: Path, clock: StillClock) -> None:
    async def talks(run: InProcessRunner) -> None:
        for _ in range(100):
            run.emit("log", {"text": "x" * 10_000})

    async with rig_of(tmp_path, clock, {"flow": talks}) as node:
        manager = manager_of(node)
        fid = await finished(node)
        await node.store.scrub()
        before = (tmp_path / "node.db").stat().st_size
        await manager.acknowledge(fid, "ana")
        clock.advance(8 * DAY)
        await manager.housekeeping.clean()
        assert (tmp_path / "node.db").stat().st_size < before - 900_000


async def test_housekeeping_comes_round_by_itself(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        manager = manager_of(node)
        manager.start()
        fid = await finished(node)
        await manager.acknowledge(fid, "ana")
        await settled(lambda: clock.advance(DAY) or not (tmp_path / "outputs" / fid).exists())


async def test_runs_that_nobody_acknowledged_stay_unless_the_operator_says_for_how_long(
    tmp_path: Path, clock: StillClock
) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        fid = await finished(node)
        clock.advance(1000 * DAY)
        assert await manager_of(node).housekeeping.stale(["run"]) == []
        manager = Manager(node.store, node.runs, node.outputs, unread_s=1000 * DAY + 1)
        assert await manager.housekeeping.stale(["unread"]) == []
        clock.advance(1)
        assert [(each.kind, each.id) for each in await manager.housekeeping.clean(["unread"])] == [("unread", fid)]
        assert await node.store.run(fid) is None


async def test_parts_that_nobody_fetches_and_unused_uploads_go(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        (tmp_path / "outputs" / ".part" / "left").write_bytes(b"x" * 10)
        node.outputs._fetching.add("busy")
        (tmp_path / "outputs" / ".part" / "busy").write_bytes(b"x" * 10)
        manager = Manager(node.store, node.runs, node.outputs, more=[Uploaded(node.uploads, list)])
        args = InputWriteArgs(name="a.bin", size=10, sha256=hashlib.sha256(b"y" * 10).hexdigest())

        async def pieces() -> AsyncIterator[bytes]:
            yield b"y" * 10

        uid = (await node.uploads.write("ana", args, pieces()))["upload"]
        clock.advance(2 * DAY)
        shown = await manager.housekeeping.stale()
        assert shown == [Stale("part", "left", 10), Stale("upload", uid, 10)]
        assert await manager.housekeeping.clean() == shown
        assert [each.name for each in (tmp_path / "outputs" / ".part").iterdir()] == ["busy"]
        assert list(node.uploads.root.iterdir()) == []


async def test_logs_of_processes_that_have_ended_go_when_they_are_old(tmp_path: Path, clock: StillClock) -> None:
    logs = tmp_path / "sessions" / "session_1" / "logs"
    logs.mkdir(parents=True)
    times = {
        "worker-ab-01-7.out": 0, "worker-cd-01-8.out": 0, "python-core-worker-ab_7.log": 1,
        "worker-ef-01-9.err": 5, "raylet.out": 0, "gcs_server.7x": 0,
    }  # fmt: skip
    for name, days in times.items():
        (logs / name).write_bytes(b"x" * 100)
        os.utime(logs / name, (clock.ms / 1000 + days * DAY,) * 2)
    (logs / "a-link-7").symlink_to(logs / "raylet.out")
    chore = Logs(tmp_path / "sessions", 4 * DAY, lambda: [8])
    stale = await chore.stale(clock.ms + int(5 * DAY * 1000))
    assert [each.id for each in stale] == [
        "session_1/logs/worker-ab-01-7.out",
        "session_1/logs/python-core-worker-ab_7.log",
    ]
    for each in stale:
        await chore.remove(each)
    assert {path.name for path in logs.iterdir()} == {*times, "a-link-7"} - {
        "worker-ab-01-7.out",
        "python-core-worker-ab_7.log",
    }


async def test_an_unknown_kind_is_refused(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": writes}) as node:
        with pytest.raises(UsageError):
            await manager_of(node).housekeeping.stale(["dust"])


async def test_what_deleted_runs_leave_free_is_returned_by_the_next_round(tmp_path: Path, clock: StillClock) -> None:
    async def talks(run: InProcessRunner) -> None:
        for _ in range(100):
            run.emit("log", {"text": "x" * 10_000})

    async with rig_of(tmp_path, clock, {"flow": talks}) as node:
        manager = manager_of(node)
        fid = await finished(node)
        await manager.delete(fid)
        before = (tmp_path / "node.db").stat().st_size
        assert await manager.housekeeping.clean() == []
        assert (tmp_path / "node.db").stat().st_size < before - 900_000
