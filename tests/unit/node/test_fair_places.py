"""Every kind of place that a principal can hold: who takes all it can get leaves some to the next one.

Where nobody logs in, the peers of one address are one.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kodo.access.local import LocalProvider
from kodo.access.passwords import Passwords
from kodo.access.places import Places, fair_share
from kodo.node.answers.caller import payer_of
from kodo.node.executors.in_process import InProcessRunner
from kodo.node.files.ledger import Ledger
from kodo.node.files.uploads import UploadLimits, Uploads
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.queue import FairQueue
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.access import Principal, Role
from kodo.protocol.args.files import InputWriteArgs
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.rig import ANA, rig_of
from tests.unit.node.service_rig import node_of

GREEDY, NEXT = "192.0.2.1", "192.0.2.2"


class World:
    """Where places are taken; each taker says whether it got one more for this holder, and keeps it."""

    def __init__(self, home: Path, clock: StillClock):
        self.home = home
        self.clock = clock
        self.number = 0
        self.tasks: list[asyncio.Future[Any]] = []
        self.gate = threading.Event()
        self.queue = FairQueue(8)
        self.parking = FairQueue(8)
        self.uploads = Uploads(
            home / "uploads",
            clock=clock,
            new_id=lambda: fid_of(self.number),
            limits=UploadLimits(uploads=8, calls=16, calls_each=12),
        )
        self.uploads.open()
        disk = SimpleNamespace(total=1 << 20, free=1 << 20)
        self.ledger = Ledger(home, disk=lambda root: disk)
        hasher: Any = SimpleNamespace(hash=lambda text: text, verify=self._verify)
        passwords = Passwords(hasher)
        passwords._nobodys = "nobody's"
        database: Any = _NoDatabase()
        self.provider = LocalProvider("op", "node", database, clock.now_ms, passwords=passwords)

    def _verify(self, *_: Any) -> bool:
        return self.gate.wait(30)

    async def begun(self, work: Awaitable[Any]) -> bool:
        """Whether the work is under way: it was not refused."""
        task = asyncio.ensure_future(work)
        self.tasks.append(task)
        for _ in range(20):
            await asyncio.sleep(0)
        return not (task.done() and isinstance(task.exception(), CallError))

    async def aclose(self) -> None:
        self.gate.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    # --- the kinds ---

    async def runner(self, holder: str) -> bool:
        waiting = self.queue.waiting
        await self.begun(self.queue.turn(holder, f"run{self.number}"))
        return self.queue.waiting == waiting

    async def runner_of_a_run_that_asks(self, holder: str) -> bool:
        waiting, fid = self.parking.waiting, f"run{self.number}"
        await self.begun(self.parking.turn(holder, fid))
        self.parking.park(fid)
        return self.parking.waiting == waiting

    async def upload_under_way(self, holder: str) -> bool:
        async def nothing() -> AsyncIterator[bytes]:
            await asyncio.Event().wait()
            yield b""

        said = {"name": f"{self.number}", "size": 9, "sha256": hashlib.sha256(b"").hexdigest()}
        return await self.begun(
            self.uploads.write(f"peer{self.number}", InputWriteArgs.model_validate(said), nothing(), payer=holder)
        )

    async def upload_kept(self, holder: str) -> bool:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"

        said = {"name": f"{self.number}", "size": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
        try:
            await self.uploads.write(
                f"peer{self.number}", InputWriteArgs.model_validate(said), pieces(), payer=holder
            )
        except CallError:
            return False
        return True

    async def bytes_of_the_disk(self, holder: str) -> bool:
        try:
            self.ledger.share_of(holder).promise(50_000)
        except CapacityError:
            return False
        return True

    async def login(self, holder: str) -> bool:
        return await self.begun(self.provider.password(f"peer{self.number}", f"name{self.number}", "tried", holder))

    async def try_of_a_password(self, holder: str) -> bool:
        try:
            await self.provider._slow_down(f"peer{self.number}", f"name{self.number}", holder)
        except CallError:
            return False
        return True


class _NoDatabase:
    async def ask(self, work: Any) -> Any:
        return False

    async def change(self, work: Any) -> Any:
        raise AssertionError


KINDS: dict[str, Callable[[World, str], Awaitable[bool]]] = {
    "a runner": World.runner,
    "a runner whose run waits for a person": World.runner_of_a_run_that_asks,
    "an upload that is being written": World.upload_under_way,
    "an upload that is kept": World.upload_kept,
    "bytes of the disk": World.bytes_of_the_disk,
    "a place in the line of logins": World.login,
    "a try of a password": World.try_of_a_password,
}


@pytest.fixture
async def world(tmp_path: Path, clock: StillClock) -> AsyncIterator[World]:
    made = World(tmp_path, clock)
    yield made
    await made.aclose()


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
async def test_who_takes_all_it_gets_is_refused_in_the_end_and_leaves_some_to_the_next(
    world: World, kind: Callable[[World, str], Awaitable[bool]]
) -> None:
    for world.number in range(1, 100):
        if not await kind(world, GREEDY):
            break
    else:
        pytest.fail("one holder may take without an end")
    world.number += 1
    assert await kind(world, NEXT)


def test_there_is_a_place_for_the_next_holder_until_the_last_one_is_taken() -> None:
    taken: list[int] = []
    while sum(taken) < 1000:
        share = fair_share(1000, sum(taken), 250)
        assert 1 <= share <= 250
        taken.append(share)
    assert len(taken) >= 7
    assert fair_share(10, 0, 20) == 10


def test_a_place_that_was_left_is_there_for_others() -> None:
    places = Places("things", most=1, each=1)
    with places.hold("ana"), pytest.raises(CallError, match="429 busy"), places.hold("bob"):
        pass
    with places.hold("bob"):
        assert (places.held("ana"), places.held()) == (0, 1)


@pytest.mark.parametrize(
    ("user", "roles", "address", "payer"),
    [
        (None, (), "192.0.2.7", "192.0.2.7"),
        (None, (), "::ffff:192.0.2.7", "192.0.2.7"),
        (None, (), "2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        (None, (), "fe80::1%eth0", "fe80::/64"),
        (None, (), "127.0.0.1", "this machine"),
        (None, (), "127.9.9.9", "this machine"),
        (None, (), "::1", "this machine"),
        (None, (Role.OPERATOR,), "127.0.0.1", "peer"),
        ("ana", (), "192.0.2.7", "ana"),
    ],
)
def test_whose_bounds_hold_is_the_account_or_of_who_has_not_logged_in_the_address(
    user: str | None, roles: tuple[Role, ...], address: str, payer: str
) -> None:
    session = SimpleNamespace(remote_address=(address, 4711))
    principal = Principal(f"{fid_of(1)}/{user or 'peer'}", "peer", user=user, roles=frozenset(roles))
    assert payer_of(principal, session) == payer


async def test_peers_of_one_address_have_one_share_of_a_nodes_runs(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, bounds={"max_live": 8, "max_live_each": 5}) as node:
        for number in range(5):
            await node.call("run.launch", f"peer{number}", path="flows.ask", inputs={"n": 1})
        assert (await node.refused("run.launch", "peer5", path="flows.ask", inputs={"n": 1})).reason == "busy"
        node.session("far").remote_address = ("198.51.100.1", 4711)
        await node.call("run.launch", "far", path="flows.ask", inputs={"n": 1})


async def asks(run: InProcessRunner) -> Any:
    return await run.lock(fid_of(77), {"type": "boolean"})


async def works(run: InProcessRunner) -> None:
    run.emit("log", {"text": "begun"})
    await asyncio.Event().wait()


async def test_runs_that_ask_a_person_hold_no_runner_from_anybody(tmp_path: Path, clock: StillClock) -> None:
    async with rig_of(tmp_path, clock, {"asks": asks, "works": works}, RunSettings(max_runs=3)) as node:
        asking = [await node.launch("asks") for _ in range(3)]
        for fid in asking:
            await node.until(fid, "lock")
        working = [await node.launch("works", principal="bob") for _ in range(3)]
        for fid in working:
            await node.until(fid, "log")
        fourth = await node.launch("asks")
        assert node.runs.queue.position(fourth) == 1
        await node.locks.answer(asking[0], fid_of(77), True, ANA)
        assert (await node.all_events(asking[0]))[-1].event == "final"
        await node.runs.kill(working[0], "bob")
        await node.until(fourth, "lock")


async def test_processes_are_bounded_whoever_asks_and_answers() -> None:
    queue, slots = FairQueue(8), 8
    running: set[str] = set()

    async def run(principal: str, fid: str) -> None:
        await queue.turn(principal, fid)
        running.add(fid)
        queue.park(fid)

    tasks = [asyncio.ensure_future(run(f"p{number % 30}", f"f{number}")) for number in range(300)]
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(running) <= slots + slots // 4 + 4 * slots  # at work, of who had none, and parked
    for fid in list(running):
        queue.resume(fid)
    assert len(queue._held) == len(running)
    for fid in list(running):
        queue.leave(fid)
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_without_spare_memory_a_run_that_asks_keeps_its_place() -> None:
    queue = FairQueue(1, spare=lambda: False)
    await queue.turn("ana", "a")
    queue.park("a")
    waiting = asyncio.ensure_future(queue.turn("bob", "b"))
    await asyncio.sleep(0)
    assert queue.waiting == 1
    queue.leave("a")
    await waiting


async def test_a_run_that_asks_gives_its_place_up_as_soon_as_its_process_can_stay() -> None:
    spare = False
    queue = FairQueue(1, spare=lambda: spare)
    await queue.turn("ana", "a")
    queue.park("a")
    waiting = asyncio.ensure_future(queue.turn("bob", "b"))
    await asyncio.sleep(0)
    assert queue.waiting == 1
    spare = True
    # Somebody begins to wait: that is when it is looked at again.
    later = asyncio.ensure_future(queue.turn("cid", "c"))
    await waiting
    assert (set(queue._parked), set(queue._held)) == ({"a"}, {"b"})
    queue.leave("b")
    await later


async def test_a_run_that_asks_gives_its_place_up_when_another_parked_one_goes_or_goes_on() -> None:
    queue = FairQueue(1)
    parked = [f"p{number}" for number in range(4)]
    for fid in parked:
        queue.take(fid, fid)
        queue.park(fid)
    for number, way in enumerate((queue.leave, queue.resume)):
        fid = f"held{number}"
        queue.take(fid, fid)
        queue.park(fid)  # there are as many as may be
        assert fid in queue._held
        way(parked[number])
        assert fid in queue._parked
    # One that is answered meanwhile keeps its place.
    queue.take("z", "z")
    queue.park("z")
    queue.resume("z")
    queue.leave(parked[2])
    assert "z" in queue._held
