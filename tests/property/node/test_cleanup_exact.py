"""What a cleanup shows beforehand is what it removes, to the byte, and it removes nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kodo.access.null import NullProvider
from kodo.node.executors.in_process import InProcessRunner
from kodo.node.files.outputs import size_of
from kodo.node.housekeeping.cleanup import Memory, Uploaded
from kodo.node.housekeeping.deletion import Manager
from kodo.node.requests.memories import Memories
from kodo.protocol.args.files import InputWriteArgs
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.rig import Rig, rig_of

DAY = 86_400.0
Thing = tuple[str, str]
"""Kind and id."""

RETENTION, UNREAD = 7 * DAY, 20 * DAY


@dataclass(frozen=True)
class Made:
    """A run: what it leaves, and what its user does; the days are those that pass after each of these."""

    files: int
    remembers: int
    key: bool
    over: bool
    acknowledged: bool
    shared: str
    days: int


MADE = st.builds(
    Made,
    files=st.integers(0, 2),
    remembers=st.sampled_from([0, 0, 10, 5000]),
    key=st.booleans(),
    over=st.sampled_from([True, True, True, False]),
    acknowledged=st.booleans(),
    shared=st.sampled_from(["", "", "long", "short", "revoked", "link"]),
    days=st.integers(0, 12),
)
LEFT = st.lists(
    st.tuples(st.sampled_from(["part", "folder", "upload", "used", "long"]), st.integers(0, 9)), max_size=4
)


async def flow(run: InProcessRunner) -> None:
    for number in range(run.spec.inputs["files"]):
        run.output(f"deep/{number}.bin", bytes(100 * number + 7))
    if not run.spec.inputs["over"]:
        run.emit("log", {"text": "waits"})
        await asyncio.get_running_loop().create_future()


class World:
    def __init__(self, rig: Rig, home: Path, memories: Memories):
        self.rig, self.home, self.memories = rig, home, memories
        self.manager = Manager(
            rig.store,
            rig.runs,
            rig.outputs,
            retention_s=RETENTION,
            unread_s=UNREAD,
            forget=partial(memories.forget, "short"),
            besides=memories.short,
            more=[
                Uploaded(rig.uploads, lambda: [uid for live in rig.runs.live.values() for uid in live.uploads]),
                Memory(memories, lambda: rig.runs.live, lambda: ["flows.offered"]),
            ],
        )

    async def make(self, made: Made, number: int) -> None:
        rig = self.rig
        inputs = {"files": made.files, "over": made.over}
        fid = await rig.launch(inputs=inputs, key=f"k{number}" if made.key else None)
        if made.over:
            await rig.all_events(fid)
            await rig.gone(fid)
        else:
            await rig.until(fid, "log")
        if made.remembers:
            await self.memories.put("short", fid, "set", {"key": "k", "value": "x" * made.remembers})
        row = await rig.store.run(fid)
        assert row is not None
        if made.shared:
            terms: dict[str, Any] = {"level": 1, "mode": "r", "downloads": None, "link": made.shared == "link"}
            until = DAY if made.shared == "short" else 400 * DAY
            share, _ = await rig.shares.add(
                row, "ana", expires_s=until, users=["bob"] if not terms["link"] else [], **terms
            )
            if made.shared == "revoked":
                await rig.shares.revoke(share, "ana")
        if made.acknowledged and made.over:
            await self.manager.acknowledge(fid, "ana")
        rig.clock.advance(made.days * DAY)

    async def leave(self, what: str, days: int, number: int) -> None:
        outputs = self.home / "outputs"
        match what:
            case "part":
                (outputs / ".part" / f"left{number}").write_bytes(b"x" * number)
            case "folder":
                (outputs / fid_of(10**9 + number)).mkdir(exist_ok=True)
                (outputs / fid_of(10**9 + number) / "a.bin").write_bytes(b"x" * number)
            case "long":
                path = "flows.offered" if number % 2 else "flows.gone"
                await self.memories.put("long", path, "set", {"key": f"{number}", "value": number})
            case _:
                data = bytes([number]) * 10

                async def pieces() -> AsyncIterator[bytes]:
                    yield data

                args = InputWriteArgs(name="a", size=10, sha256=hashlib.sha256(data).hexdigest())
                uid = (await self.rig.uploads.write("ana", args, pieces()))["upload"]
                if what == "used":
                    fid = await self.rig.launch(inputs={"files": 0, "over": False, "doc": uid})
                    await self.rig.until(fid, "log")
        self.rig.clock.advance(days * DAY)

    async def holds(self) -> dict[Thing, int]:
        """Say what there is, looked up by itself: of each thing that could be removed its bytes."""
        found: dict[Thing, int] = {}
        rows = await self._ask("SELECT fid, (SELECT sum(length(data)) FROM events e WHERE e.rid=runs.rid) FROM runs")
        fids = {fid for fid, _ in rows}
        for fid, size in rows:
            found["run", fid] = size + size_of(self.home / "outputs" / fid)
        for folder in (self.home / "outputs").iterdir():
            if folder.name != ".part" and folder.name not in fids:
                found["output", folder.name] = size_of(folder)
        for part in (self.home / "outputs" / ".part").iterdir():
            found["part", part.name] = part.stat().st_size
        for upload in (self.home / "uploads").iterdir():
            found["upload", upload.name] = sum(file.stat().st_size for file in upload.glob("data*"))
        for (sid,) in await self._ask("SELECT sid FROM shares"):
            found["share", sid] = 0
        for key, size in await self._ask(
            "SELECT key, length(principal) + length(key) + length(value) + length(digest) FROM keys"
        ):
            found["key", key] = size
        for row in await self.memories.all():
            found["memory", f"{row.scope}/{row.of}"] = row.bytes
        return found

    async def _ask(self, query: str) -> list[Any]:
        return await self.rig.store.ask(lambda tables: tables.execute(query).fetchall())


async def check(home: Path, runs: list[Made], left: list[tuple[str, int]], kinds: list[str] | None) -> None:
    clock = StillClock()
    remembering = Memories(home / "memory", NullProvider("home"), clock)
    async with rig_of(home, clock, {"flow": flow}) as rig, remembering as memories:
        world = World(rig, home, memories)
        for number, made in enumerate(runs):
            await world.make(made, number)
        for number, (what, days) in enumerate(left, 1):
            await world.leave(what, days, number)
        before = await world.holds()
        shown = await world.manager.housekeeping.stale(kinds)
        assert await world.holds() == before, "to show is not to touch"
        assert await world.manager.housekeeping.clean(kinds) == shown
        after = await world.holds()
        gone = {thing: size for thing, size in before.items() if thing not in after}
        assert {thing: size for thing, size in before.items() if thing in after} == after
        _compare(gone, {(each.kind, each.id): each.bytes for each in shown})
        assert await world.manager.housekeeping.stale(kinds) == []


def _compare(gone: Mapping[Thing, int], shown: Mapping[Thing, int]) -> None:
    """Hold what is gone against what was shown: a run takes memory and shares along, keys are shown as one.

    What a run has of shares and keys goes with it, and its bytes are not counted.
    """
    left, told = dict(gone), dict(shown)
    keys = {thing: left.pop(thing) for thing in gone if thing[0] == "key"}
    if any(kind == "key" for kind, _ in shown):
        assert told.pop(("key", str(len(keys)))) == sum(keys.values())
    runs = [what for kind, what in shown if kind in ("run", "unread")]
    assert runs or not keys or shown.keys() != told.keys()
    for kind, what in shown:
        if kind in ("run", "unread"):
            size = left.pop(("run", what)) + left.pop(("memory", f"short/{what}"), 0)
            assert told.pop((kind, what)) == size
        elif kind == "share":
            assert told.pop((kind, what)) > 0
            del left[kind, what]
    shares_of_runs = {thing for thing in left if thing[0] == "share"}
    assert {thing: size for thing, size in left.items() if thing not in shares_of_runs} == told
    assert runs or not shares_of_runs


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(MADE, max_size=5), LEFT, st.sampled_from([None, None, None, ["run"], ["memory", "share", "key"]]))
def test_what_is_shown_is_what_goes_to_the_byte(
    runs: list[Made], left: list[tuple[str, int]], kinds: list[str] | None
) -> None:
    with tempfile.TemporaryDirectory() as home:
        asyncio.run(check(Path(home), runs, left, kinds))
