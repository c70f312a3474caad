"""Launches: once for each key, within bounds, and begun once whatever dies on the way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kodo.node.executors.executor import RunSpec
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.runs.launch import RunSettings
from kodo.node.store.queries import RunFilter
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.secrets import MASK
from kodo.sqlite import file
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import Rig, overtaken, rig, rig_of

ALL = RunFilter("ana")
KEEP = RunSettings(keep_runs=True)


async def forever(run: InProcessRunner) -> None:
    run.emit("log", {"text": "begun"})
    await asyncio.get_running_loop().create_future()


async def quick(run: InProcessRunner) -> str:
    return "done"


async def keyed(node: Rig, count: int) -> Counter[str]:
    orders = [node.launch(key=f"k{number % 10}", inputs={"n": number % 10}) for number in range(count)]
    return Counter(await asyncio.gather(*orders))


async def test_a_thousand_launches_at_once_under_ten_keys_are_ten_runs_also_over_a_restart(
    tmp_path: Path, clock: StillClock
) -> None:
    tight = RunSettings(keep_runs=True, max_live=10, max_live_each=10)
    async with InProcessExecutor({"flow": forever}) as executor:
        async with rig(tmp_path, executor, clock, tight) as node:
            first = await keyed(node, 500)
            await settled(lambda: len(executor.launched) == 10)
        async with rig(tmp_path, executor, clock, tight) as node:
            second = await keyed(node, 500)
            assert len(node.runs.live) == 10
            assert (await node.store.runs(ALL)).total == 10
        assert first == second
        assert set(first.values()) == {50}
        assert len(executor.launched) == 10


async def test_a_launch_that_asked_for_its_key_before_the_first_was_stored_is_the_same_run(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig_of(tmp_path, clock, {"flow": forever}, RunSettings(max_live=1)) as node:
        fid, late = await overtaken(node, monkeypatch, lambda: node.launch(key="k"))
        assert fid == late
        assert len(node.runs.live) == 1


async def test_one_principal_cannot_take_all_the_room(tmp_path: Path, clock: StillClock) -> None:
    settings = RunSettings(max_live=3, max_live_each=2)
    async with rig_of(tmp_path, clock, {"flow": forever}, settings) as node:
        fid = await node.launch(key="k")
        await node.launch()
        with pytest.raises(CallError, match="you have 2 unfinished runs") as caught:
            await node.launch()
        assert (caught.value.code, caught.value.reason) == (429, "busy")
        assert await node.launch(key="k") == fid
        await node.launch(principal="bob")
        with pytest.raises(CallError, match="this node has 3 unfinished runs"):
            await node.launch(principal="eve")
        await node.runs.kill(fid, "ana")
        await node.launch()


class Stuck(InProcessExecutor):
    """Gets stuck in its first launch, before or after it says that the flow is about to begin; then its node dies."""

    def __init__(self, after: bool):
        super().__init__({"flow": quick})
        self.after = after
        self.reached = asyncio.Event()

    async def launch(self, spec: RunSpec, about_to_start: Any = None) -> Any:
        if self.reached.is_set():
            return await super().launch(spec, about_to_start)
        if self.after:
            await about_to_start()
        self.reached.set()
        return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("after", [False, True])
async def test_a_run_is_begun_again_exactly_when_it_surely_has_not(
    after: bool, tmp_path: Path, clock: StillClock
) -> None:
    async with Stuck(after) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await node.launch()
            await executor.reached.wait()
        async with rig(tmp_path, executor, clock, KEEP) as node:
            events = await node.all_events(fid)
    assert events[-1].event == ("fatal" if after else "final")
    assert len(executor.launched) == (0 if after else 1)


async def test_a_runner_that_was_given_a_run_and_has_not_begun_is_ended_and_the_run_given_to_another(
    tmp_path: Path, clock: StillClock
) -> None:
    async with Stuck(after=True) as executor:
        async with rig(tmp_path, executor, clock, KEEP) as node:
            fid = await node.launch()
            await executor.reached.wait()
        idle = InProcessRunner(RunSpec(fid, "flows.flow", "flow", {}), tmp_path)
        idle.started = False
        executor.runners["idle"] = idle
        async with rig(tmp_path, executor, clock, KEEP) as node:
            assert (await node.all_events(fid))[-1].event == "final"
            await settled(lambda: idle._dead is not None)
    assert not idle.released
    assert [spec.fid for spec in executor.launched] == [fid]


class Lying(sqlite3.Connection):
    """Says once that a COMMIT has failed, when it has succeeded."""

    armed = 0

    def execute(self, *words: Any) -> Any:
        result = super().execute(*words)
        if words[0] == "COMMIT" and Lying.armed:
            Lying.armed -= 1
            error = sqlite3.OperationalError("injected: fsync")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return result


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_run_that_is_stored_although_its_launch_was_refused_is_not_forgotten(
    key: str | None, tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lying(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Lying)

    monkeypatch.setattr(file, "_connect", lying)
    async with rig_of(tmp_path, clock, {"flow": quick}) as node:
        Lying.armed = 1
        with pytest.raises(CallError) as caught:
            await node.launch(key=key)
        assert caught.value.reason == "disk-full"
        (row,) = (await node.store.runs(ALL)).rows
        events = await node.all_events(row.fid)
        if key is None:
            assert (events[-1].event, events[-1].data["type"]) == ("fatal", "NotStarted")
            assert node.executor.launched == []
        else:
            assert events[-1].event == "final"
            assert await node.launch(key=key) == row.fid
        await node.gone(row.fid)


async def test_a_start_that_was_cut_off_by_a_kill_that_failed_is_not_made_again(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Stuck(after=True) as executor, rig(tmp_path, executor, clock) as node:
        fid = await node.launch()
        await executor.reached.wait()
        append = node.store.append

        async def full(*words: Any, **named: Any) -> Any:
            monkeypatch.setattr(node.store, "append", append)
            raise CapacityError("the disk is full")

        monkeypatch.setattr(node.store, "append", full)
        with pytest.raises(CallError) as caught:
            await node.runs.kill(fid, "ana")
        assert caught.value.code == 507
        assert (await node.all_events(fid))[-1].data["type"] == "RunnerDied"
    assert executor.launched == []


async def misbehaves(run: InProcessRunner) -> None:
    run.emit("no-such-event", {})


async def test_a_run_that_is_over_takes_no_room_while_its_process_is_ended(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill, go_on = InProcessRunner.kill, asyncio.Event()

    async def slowly(runner: InProcessRunner) -> None:
        await go_on.wait()
        await kill(runner)

    monkeypatch.setattr(InProcessRunner, "kill", slowly)
    async with rig_of(tmp_path, clock, {"flow": misbehaves}, RunSettings(max_live=1)) as node:
        for _ in range(3):
            assert (await node.all_events(await node.launch(limit=1)))[-1].data["type"] == "Misconduct"
        go_on.set()


async def told(run: InProcessRunner) -> Any:
    return [run.spec.inputs, [[list(path), value] for path, value in run.spec.secrets]]


async def test_a_launch_under_way_when_its_node_is_closed_keeps_its_secrets(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rig_of(tmp_path, clock, {"flow": told}) as node:
        create, reached, go_on = node.store.create, asyncio.Event(), asyncio.Event()

        async def slowly(*args: Any) -> Any:
            reached.set()
            await go_on.wait()
            return await create(*args)

        monkeypatch.setattr(node.store, "create", slowly)
        inputs: dict[str, Any] = {"inputs": {"password": MASK}, "secrets": [(["password"], "hidden")]}
        launched = asyncio.create_task(node.launch(**inputs))
        await reached.wait()
        await node.runs._wind_up()
        go_on.set()
        final = (await node.all_events(await launched))[-1]
        assert final.data["result"] == [inputs["inputs"], [[["password"], "hidden"]]]
