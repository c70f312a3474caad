"""A node keeps no more than it may; what is refused says why, and what need not be kept goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.node.inprocess import InProcessRunner
from kodo.node.manage import Manager
from kodo.node.quota import NeverFitsError, Quota
from kodo.p2p.errors import CallError, CapacityError
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import rig_of


async def makes(run: InProcessRunner) -> None:
    run.output("a.bin", b"x" * 600_000)


async def makes_too_much(run: InProcessRunner) -> None:
    run.output("a.bin", b"x" * 1_100_000)


def test_what_reaches_the_bound_is_refused_and_told() -> None:
    told: list[int] = []
    quota = Quota(1000, [lambda: 300, lambda: 400])
    quota.tell(lambda: told.append(1))
    quota.check(300)
    assert not told
    with pytest.raises(CapacityError) as refused:
        quota.check(301)
    assert not isinstance(refused.value, NeverFitsError)
    assert told
    with pytest.raises(NeverFitsError):
        quota.check(1001)
    Quota(None, [lambda: 1 << 60]).check(1 << 60)


async def test_over_the_quota_launches_wait_until_obsolete_runs_have_gone(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": makes}) as node:
        node.outputs.quota = quota = Quota(1_000_000, [lambda: node.outputs.taken])
        manager = Manager(node.store, node.runs, node.outputs, retention_s=3600)
        quota.tell(manager.housekeeping.hurry)
        manager.start()
        first = await node.launch()
        await node.all_events(first)
        await node.gone(first)
        await manager.acknowledge(first, "ana")
        quota.limit = 600_000
        with pytest.raises(CallError) as refused:
            await node.launch()
        assert (refused.value.code, refused.value.reason) == (507, "disk-full")
        assert "quota" in refused.value.message
        clock.advance(3600)
        await settled(lambda: clock.advance(1) or node.outputs.taken == 0)
        second = await node.launch()
        assert [event.event for event in await node.all_events(second)][-1] == "final"


async def test_an_output_that_never_fits_ends_its_run_at_once_and_says_so(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": makes_too_much}) as node:
        node.outputs.quota = Quota(1_000_000, [lambda: node.outputs.taken])
        events = await node.all_events(await node.launch())
        assert (events[-1].event, events[-1].data["type"]) == ("fatal", "NodeFull")
        assert "never fit" in events[-1].data["message"]


async def test_an_output_that_does_not_fit_now_waits_for_room(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": makes}) as node:
        first = await node.launch()
        await node.all_events(first)
        await node.gone(first)
        node.outputs.quota = Quota(1_000_000, [lambda: node.outputs.taken])
        second = await node.launch()
        await settled(lambda: any(due == clock.ms + 5000 for due, *_ in clock._sleepers))
        await Manager(node.store, node.runs, node.outputs).delete(first)
        clock.advance(5)
        assert [event.event for event in await node.all_events(second)][-2:] == ["output", "final"]
