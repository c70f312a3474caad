"""One ledger for all that a node writes: the reserve stays free, the quota holds, nothing is promised twice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from kodo.node.executors.in_process import InProcessRunner
from kodo.node.files.ledger import Ledger, NeverFitsError
from kodo.node.files.outputs import size_of
from kodo.node.housekeeping.deletion import Manager
from kodo.node.store.rows import NewEvent
from kodo.node.store.store import FROM_RESERVE, Store
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.events import EVENTS
from tests.unit.node.conftest import StillClock, fid_of, new_run, settled
from tests.unit.node.disk_bench import MIB, RESERVE, ROOM, WRITERS, Bench, Disk
from tests.unit.node.rig import rig_of

ALL = pytest.mark.parametrize("writer", WRITERS.values(), ids=list(WRITERS))
FILES = pytest.mark.parametrize("writer", list(WRITERS.values())[:4], ids=list(WRITERS)[:4])
Writer = Callable[[Bench, int], Awaitable[None]]


async def _again_and_again(writings: Iterable[Awaitable[None]]) -> None:
    for writing in writings:
        await writing


@pytest.fixture
async def bench(tmp_path: Path, clock: StillClock) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, clock)
    async with contextlib.AsyncExitStack() as stack:
        await made.open(stack)
        yield made


@ALL
async def test_what_has_room_is_written_and_no_promise_is_left(bench: Bench, writer: Writer) -> None:
    before = bench.ledger.taken
    await writer(bench, 2 * MIB)
    assert bench.ledger.taken - before >= 2 * MIB
    assert bench.ledger.promised == 0


@ALL
async def test_four_writers_at_once_leave_the_reserve_alone(bench: Bench, writer: Writer) -> None:
    ended = await asyncio.gather(*(writer(bench, 6 * MIB) for _ in range(4)), return_exceptions=True)
    assert any(isinstance(each, CapacityError) for each in ended)
    assert [each for each in ended if each is not None and not isinstance(each, CapacityError)] == []
    assert bench.disk(bench.home).free >= RESERVE
    assert bench.disk.lowest >= RESERVE
    assert bench.ledger.promised == 0


async def test_all_kinds_of_writers_at_once_leave_the_reserve_alone(bench: Bench) -> None:
    ended = await asyncio.gather(*(writer(bench, 6 * MIB) for writer in WRITERS.values()), return_exceptions=True)
    assert any(isinstance(each, CapacityError) for each in ended)
    assert [each for each in ended if each is not None and not isinstance(each, CapacityError)] == []
    assert bench.disk(bench.home).free >= RESERVE
    assert bench.disk.lowest >= RESERVE


@ALL
async def test_what_is_promised_to_one_is_not_given_to_another(bench: Bench, writer: Writer) -> None:
    with bench.ledger.promise(bench.room - 1 * MIB):
        free = bench.disk(bench.home).free
        with pytest.raises(CapacityError):
            await writer(bench, 4 * MIB)
        assert bench.disk(bench.home).free >= free - 1 * MIB
    await writer(bench, 3 * MIB)


@FILES
async def test_a_file_without_room_is_refused_before_its_first_byte(bench: Bench, writer: Writer) -> None:
    before = size_of(bench.home / "memory" / "parts"), bench.ledger.taken
    with bench.ledger.promise(bench.room - 3 * MIB), pytest.raises(CapacityError):
        await writer(bench, 4 * MIB)
    assert (size_of(bench.home / "memory" / "parts"), bench.ledger.taken) == before


@ALL
async def test_a_disk_that_others_fill_meanwhile_stops_the_writer(bench: Bench, writer: Writer) -> None:
    async def others_write() -> None:
        bench.disk.others = ROOM - size_of(bench.home)

    bench.midway = others_write
    with pytest.raises(CapacityError):
        await writer(bench, 4 * MIB)
    assert bench.disk(bench.home).free >= RESERVE
    assert bench.ledger.promised == 0


@ALL
async def test_the_quota_binds_every_writer(bench: Bench, writer: Writer) -> None:
    bench.ledger.quota_bytes = bench.ledger.taken + 8 * MIB
    with pytest.raises(CapacityError):
        await _again_and_again(writer(bench, 2 * MIB) for _ in range(5))
    assert bench.ledger.taken <= bench.ledger.quota_bytes
    assert bench.ledger.promised == 0


@ALL
async def test_a_writer_that_is_cancelled_gives_its_promise_back(bench: Bench, writer: Writer) -> None:
    reached = asyncio.Event()

    async def wait() -> None:
        reached.set()
        await asyncio.Event().wait()

    bench.midway = wait
    task = asyncio.ensure_future(writer(bench, 4 * MIB))
    await asyncio.wait([task, asyncio.ensure_future(reached.wait())], return_when=asyncio.FIRST_COMPLETED)
    assert task.cancel()
    await asyncio.wait([task])
    for part in list(bench.memories._store._parts):  # as who asked for it does
        await bench.memories.drop(part.rpartition("-")[2])
    assert bench.ledger.promised == 0


async def test_who_sends_at_a_pace_of_its_own_gets_half_of_what_others_leave(bench: Bench) -> None:
    ana, bob = bench.ledger.share_of("ana"), bench.ledger.share_of("bob")
    room = bench.room
    with pytest.raises(CapacityError, match="half of the room"):
        ana.promise(room // 2 + 1)
    with ana.promise(room // 4), ana.promise(room // 4 - 1):
        with pytest.raises(CapacityError, match="half of the room"):
            ana.promise(2)
        with pytest.raises(CapacityError, match="half of the room"):
            bob.promise(room // 4 + 2)
        bob.promise(room // 4).close()
        bench.ledger.promise(room // 4 + 2).close()


@pytest.mark.parametrize("name", sorted(FROM_RESERVE))
async def test_what_ends_things_is_stored_although_only_the_reserve_is_left(
    tmp_path: Path, clock: StillClock, name: str
) -> None:
    ledger = Ledger(tmp_path)
    async with Store(tmp_path / "node.db", clock=clock, room=ledger) as store:
        await store.create(new_run(1), [NewEvent.make("lock", {"lid": fid_of(9), "title": "?", "schema": {}}, 1)])
        if name == "acknowledge":
            await store.append(fid_of(1), [NewEvent.make("final", {"result": None}, 2)])
        ledger.reserve_bytes = 1 << 60
        await store.append(fid_of(1), [NewEvent.make(name, {"lid": fid_of(9), "cid": fid_of(8)}, 3)])
        assert [event.event for event in await store.events(fid_of(1))][-1] == name


def test_only_what_ends_things_is_stored_from_the_reserve() -> None:
    assert set(EVENTS) >= FROM_RESERVE
    assert not {"log", "output", "stdout", "inputs", "lock", "candidate", "unlock"} & FROM_RESERVE


def test_what_reaches_the_bound_is_refused_and_told(tmp_path: Path) -> None:
    told: list[int] = []
    ledger = Ledger(tmp_path, quota_bytes=1000)
    ledger.count(lambda: 300)
    ledger.count(lambda: 400)
    ledger.tell(lambda: told.append(1))
    ledger.promise(300).close()
    assert not told
    with pytest.raises(CapacityError) as refused:
        ledger.promise(301)
    assert not isinstance(refused.value, NeverFitsError)
    assert told
    with pytest.raises(NeverFitsError):
        ledger.promise(1001)
    with ledger.promise(300), pytest.raises(CapacityError):
        ledger.promise(0)


def test_a_file_larger_than_the_disk_never_fits(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, reserve_bytes=RESERVE, disk=Disk(tmp_path))
    with pytest.raises(NeverFitsError):
        ledger.promise(ROOM + 1)


async def makes(run: InProcessRunner) -> None:
    run.output("a.bin", b"x" * 600_000)


async def makes_too_much(run: InProcessRunner) -> None:
    run.output("a.bin", b"x" * 1_100_000)


async def test_over_the_quota_launches_wait_until_obsolete_runs_have_gone(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": makes}) as node:
        node.ledger.quota_bytes = 1_000_000
        node.ledger.count(lambda: node.outputs.taken)
        manager = Manager(node.store, node.runs, node.outputs, retention_s=3600)
        node.ledger.tell(manager.housekeeping.hurry)
        manager.start()
        first = await node.launch()
        await node.all_events(first)
        await node.gone(first)
        await manager.acknowledge(first, "ana")
        node.ledger.quota_bytes = 600_000
        with pytest.raises(CallError) as refused:
            await node.launch()
        assert (refused.value.code, refused.value.reason) == (507, "disk-full")
        assert "quota" in refused.value.message
        clock.advance(3600)
        await settled(lambda: clock.advance(1) or node.outputs.taken == 0)
        node.ledger.quota_bytes = 700_000  # an output, and the events of its run
        second = await node.launch()
        assert [event.event for event in await node.all_events(second)][-1] == "final"


async def test_an_output_that_never_fits_ends_its_run_at_once_and_says_so(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": makes_too_much}) as node:
        node.ledger.quota_bytes = 1_000_000
        node.ledger.count(lambda: node.outputs.taken)
        events = await node.all_events(await node.launch())
        assert (events[-1].event, events[-1].data["type"]) == ("fatal", "NodeFull")
        assert "never fit" in events[-1].data["message"]


async def test_an_output_that_does_not_fit_now_waits_for_room(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"flow": makes}) as node:
        first = await node.launch()
        await node.all_events(first)
        await node.gone(first)
        node.ledger.quota_bytes = 1_000_000
        node.ledger.count(lambda: node.outputs.taken)
        second = await node.launch()
        await settled(lambda: any(due == clock.ms + 5000 for due, *_ in clock._sleepers))
        told = await node.until(second, "wait")
        assert told.data == {"for": "room", "text": "waits for room: the node's quota is reached"}
        live = node.runs.live[second]
        assert live.waits == "room"
        clock.advance(5)  # tried again in vain, and not told again
        await settled(lambda: any(due == clock.ms + 5000 for due, *_ in clock._sleepers))
        manager = Manager(node.store, node.runs, node.outputs)
        [row] = await manager.largest(10)
        assert (row["fid"], row["bytes"] > 500_000, row["acknowledged"], row["shared"]) == (first, True, None, False)
        await manager.delete(first)
        clock.advance(5)
        assert [event.event for event in await node.all_events(second)][-3:] == ["wait", "output", "final"]
        assert live.waits == ""
