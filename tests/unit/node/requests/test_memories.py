"""Runs that ask their node: memory by scope, grants, restarts, and what can be swept."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from kodo.access.null import NullProvider
from kodo.flow._runtime.memory_store import MemoryLimits
from kodo.node.executors.in_process import InProcessExecutor, InProcessRunner
from kodo.node.housekeeping.cleanup import Memory
from kodo.node.requests.memories import Memories
from kodo.node.runs.flow_requests import Asking
from kodo.p2p.errors import CallError, CapacityError, NotFoundError, UsageError
from kodo.protocol.access import Grant, Principal
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.rig import rig
from tests.unit.node.service_rig import node_of

KB = {"scope": "shared", "of": "kb"}


class Provider(NullProvider):
    """Ana may change shared memory, Bob reads it, others have no grant."""

    async def recall(self, principal: str) -> Principal:
        mode: Any = {"ana": "w", "bob": "r"}.get(principal)
        return Principal(principal, principal, grants=(Grant("memory", "k*", mode=mode),) if mode else ())


async def remembers(run: InProcessRunner) -> Any:
    for scope in ("short", "long"):
        await run.ask("memory.set", scope=scope, of="not listened to", key="k", value=run.fid)
    return True


async def shares(run: InProcessRunner) -> Any:
    await run.ask("memory.set", **KB, key="k", value=1)
    return await run.ask("memory.get", **KB, key="k")


async def reads(run: InProcessRunner) -> Any:
    return await run.ask("memory.get", **KB, key="k")


async def keeps_its_own(run: InProcessRunner) -> Any:
    """Keep a file and a key for whoever launched it; give what it finds of those."""
    place = {"scope": "long", "own": True}
    found = [await run.ask(f"memory.{op}", **place, prefix="", after="") for op in ("keys", "files")]
    await run.ask("memory.set", **place, key="k", value=1)
    data = {"offset": 0, "data": b"x", "size": 1, "sha256": hashlib.sha256(b"x").hexdigest(), "upload": "a" * 16}
    await run.ask("memory.file.write", **place, name="f", **data)
    return [[row if isinstance(row, str) else row["name"] for row in each["rows"]] for each in found]


def nonsense(op: str, **args: Any) -> Any:
    async def flow(run: InProcessRunner) -> Any:
        try:
            return await run.ask(op, **args)
        except (CallError, UsageError, NotFoundError, CapacityError) as error:
            return f"{type(error).__name__} {error}"

    return flow


class World:
    """A node's runs and memories over an executor that outlives them."""

    def __init__(self, home: Path, clock: StillClock, executor: InProcessExecutor):
        self.home, self.clock, self.executor = home, clock, executor

    async def result(self, entry: str, principal: str = "ana") -> Any:
        async with self.memories() as kept, self.node(kept) as made:
            fid = await made.launch(entry, principal)
            last = (await made.all_events(fid))[-1]
            return last.data.get("result", last.data.get("message"))

    def memories(self) -> Memories:
        return Memories(self.home / "memory", Provider("home"), self.clock)

    def node(self, memories: Memories) -> Any:
        return rig(self.home, self.executor, self.clock, asking=Asking({"memory": memories.answer}, [memories.ended]))


FLOWS = {
    "remembers": remembers,
    "shares": shares,
    "reads": reads,
    "keeps_its_own": keeps_its_own,
    "unknown": nonsense("memory.explode", scope="long"),
    "elsewhere": nonsense("scope.explode"),
    "scopeless": nonsense("memory.get", key="k"),
    "unnamed": nonsense("memory.get", scope="shared", of="../x", key="k"),
    "fileless": nonsense("memory.file.read", scope="long", name="none"),
}


async def test_short_memory_is_the_runs_and_long_memory_the_flows(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor(FLOWS) as executor:
        world = World(tmp_path, clock, executor)
        async with world.memories() as kept, world.node(kept) as made:
            one, two = await made.launch("remembers"), await made.launch("remembers")
            for fid in (one, two):
                await made.all_events(fid)
            found = [(row.scope, row.of, row.keys) for row in await kept.all()]
            assert found == [("long", "flows.remembers", 1), ("short", one, 1), ("short", two, 1)]


async def test_the_part_of_a_memory_that_a_principal_has_for_itself_is_the_next_runs_and_nobody_elses(
    tmp_path: Path, clock: StillClock
) -> None:
    async with InProcessExecutor(FLOWS) as executor:
        world = World(tmp_path, clock, executor)
        async with world.memories() as kept, world.node(kept) as made:
            found = []
            for principal in ("ana", "bob", "ana"):
                last = (await made.all_events(await made.launch("keeps_its_own", principal)))[-1]
                found.append(last.data["result"])
            assert found == [[[], []], [[], []], [["k"], ["f"]]]
            assert [(row.scope, row.of, row.keys) for row in await kept.all()] == [("long", "flows.keeps_its_own", 2)]


@pytest.mark.parametrize(
    ("flow", "principal", "answer"),
    [
        ("shares", "ana", {"version": 1, "value": 1}),
        ("shares", "bob", "may not use the shared memory 'kb'"),
        ("reads", "bob", {"version": 0, "value": None}),
        ("reads", "carl", "may not use the shared memory 'kb'"),
        ("unknown", "ana", "UsageError there is no memory.explode"),
        ("elsewhere", "ana", "no-such-op"),
        ("scopeless", "ana", "UsageError a memory is short, long or shared"),
        ("unnamed", "ana", "UsageError a shared memory's name"),
        ("fileless", "ana", "NotFoundError this memory has no file 'none'"),
    ],
)
async def test_a_run_gets_what_its_launcher_is_granted(
    tmp_path: Path, clock: StillClock, flow: str, principal: str, answer: Any
) -> None:
    async with InProcessExecutor(FLOWS) as executor:
        found = await World(tmp_path, clock, executor).result(flow, principal)
        assert found == answer or (isinstance(answer, str) and answer in found), found


async def test_a_node_that_comes_back_answers_what_was_asked_before(tmp_path: Path, clock: StillClock) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(run: InProcessRunner) -> Any:
        await run.ask("memory.set", scope="long", key="first", value=1)
        begun.set()
        await go_on.wait()
        return await run.ask("memory.get", scope="long", key="first")

    async with InProcessExecutor({"waits": waits}) as executor:
        world = World(tmp_path, clock, executor)
        async with world.memories() as kept, world.node(kept) as made:
            made.runs.keep_runs = True
            fid = await made.launch("waits")
            await begun.wait()
        go_on.set()
        await settled(lambda: executor.runners[fid].context.asks._open)  # asked while there is no node
        async with world.memories() as kept, world.node(kept) as made:
            assert (await made.all_events(fid))[-1].data["result"]["value"] == 1


async def test_what_is_stale_is_told_and_swept(tmp_path: Path, clock: StillClock) -> None:
    async with InProcessExecutor(FLOWS) as executor:
        world = World(tmp_path, clock, executor)
        async with world.memories() as kept, world.node(kept) as made:
            fid = await made.launch("remembers")
            assert (await made.all_events(fid))[-1].event == "final"
            assert await kept.stale([], []) == []
            clock.ms += 86_400_000
            [short] = await kept.stale([], [])
            assert (short.scope, short.of, short.bytes > 0) == ("short", fid, True)
            assert await kept.stale([fid], []) == []
            clock.ms += 30 * 86_400_000
            assert [row.scope for row in await kept.stale([], ["flows.remembers"])] == ["short"]
            assert [row.scope for row in await kept.sweep([], [])] == ["long", "short"]
            assert await kept.all() == []


async def test_a_file_that_is_published_is_verified(tmp_path: Path, clock: StillClock) -> None:
    import hashlib

    async with node_of(tmp_path, clock) as node:
        whole = b"x" * 3_000_000
        place: dict[str, Any] = {"scope": "shared", "of": "kb", "key": "a/b"}
        good = {**place, "size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
        assert (await node.call("memory.put", "home", pieces=[whole[:999], whole[999:]], **good))["key"] == "a/b"
        [row] = (await node.call("memory.list", "home", scope="shared", of="kb"))["result"]
        assert (row["kind"], row["key"], row["bytes"]) == ("file", "a/b", len(whole))
        for pieces, args in (
            ([whole[1:]], good),
            ([whole, b"more"], good),
            ([whole], {**good, "sha256": "0" * 64}),
        ):
            with pytest.raises(CallError) as caught:
                await node.call("memory.put", "home", pieces=pieces, **args)
            assert (caught.value.code, caught.value.reason) == (422, "bad-hash")
        assert (await node.refused("memory.put", "home", **{**good, "key": "../x", "size": 0})).code == 400
        assert (await node.refused("memory.put", "home", **{**place, "value": "x" * (1 << 21)})).code == 413
        assert (await node.refused("memory.put", "home", **{**place, "of": "../x"})).reason == "bad-args"
        assert (await node.refused("memory.put", "home", **{**place, "scope": "long"})).reason == "no-such-flow"
        assert (await node.refused("memory.put", "ana", **place)).reason == "developer-only"
        assert list((tmp_path / "memory" / "parts").iterdir()) == []


async def test_one_who_sends_files_and_stops_keeps_no_other_from_sending(tmp_path: Path, clock: StillClock) -> None:
    limits = MemoryLimits(parts=2)
    piece = {"data": b"ab", "offset": 0, "size": 4, "sha256": "0" * 64}
    async with Memories(tmp_path / "memory", Provider("ana"), clock, limits=limits) as memories:

        async def begin(payer: str, name: str) -> None:
            args = {**piece, "name": name, "upload": name}
            assert await memories.put("shared", "kb", "file.write", args, payer=payer) == {"offset": 2}

        for name in ("a", "b"):
            await begin("ana", name)
        with pytest.raises(CapacityError, match="2 files are being written"):
            await begin("ana", "c")
        # The uploads of two may have one name.
        await begin("bob", "a")
        await memories.drop("a", payer="ana")
        await begin("ana", "c")
        await begin("bob", "b")
        for payer in ("cid", "dan"):
            for name in ("a", "b"):
                await begin(payer, name)
        with pytest.raises(CapacityError, match="8 files are being sent"):
            await begin("eve", "a")


@pytest.mark.parametrize("meanwhile", ["offered", "changed", "nothing"])
async def test_a_memory_that_is_needed_after_it_was_found_stale_stays(
    tmp_path: Path, clock: StillClock, meanwhile: str
) -> None:
    offered: list[str] = []
    async with Memories(tmp_path, Provider("home"), clock) as kept:
        await kept.put("long", "flows.a", "set", {"key": "k", "value": 1})
        clock.advance(kept.long_s)
        chore = Memory(kept, lambda: [], lambda: offered)
        [stale] = await chore.stale(clock.ms)
        if meanwhile == "offered":
            offered.append("flows.a")
        elif meanwhile == "changed":
            clock.advance(1)
            await kept.put("long", "flows.a", "set", {"key": "k", "value": 2})
        await chore.remove(stale)
        assert len(await kept.all()) == (0 if meanwhile == "nothing" else 1)
