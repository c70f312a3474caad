"""Housekeeping: what it shows is what it removes, and nothing else."""

from __future__ import annotations

from pathlib import Path

from kodo.node.inprocess import InProcessRunner
from kodo.node.manage import Manager
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
