"""No caller holds a file of the node open, or reads for ever: whatever is read or written, and however slowly."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from kodo.node.answers import memories
from kodo.node.answers import outputs as answers
from kodo.node.answers.outputs import MAX_READS_EACH, MAX_READS_PAID
from kodo.node.files.uploads import UploadLimits
from kodo.p2p.errors import CallError
from kodo.p2p.net.descriptors import raise_descriptors
from kodo.protocol.args.files import InputWriteArgs
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import Node, node_of


def open_below(folder: Path) -> list[str]:
    """Give the files of outputs and uploads that this process has open."""
    kept = (str(folder / "outputs"), str(folder / "uploads"))
    return [file.path for file in psutil.Process().open_files() if file.path.startswith(kept)]


class Reader:
    """Takes one piece of an output, and then no more until it is told to."""

    def __init__(self, node: Node, fid: str, peer: str = "ana"):
        self.took = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.aborted = False
        asked = SimpleNamespace(
            op="output.read", args={"fid": fid, "name": "report.md"}, session=node.session(peer),
            send=self._send, abort=self._abort,
        )  # fmt: skip
        self.task: asyncio.Task[Any] = asyncio.ensure_future(node.service(asked))  # type: ignore[arg-type]

    async def _send(self, piece: bytes) -> None:
        self.took.set()
        await self.goes_on.wait()

    def _abort(self) -> None:
        self.aborted = True


async def test_a_reader_that_stopped_holds_no_file(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        readers = [Reader(node, fid) for _ in range(10)]
        for reader in readers:
            await reader.took.wait()
        assert open_below(tmp_path) == []
        for reader in readers:
            reader.goes_on.set()
        assert {(await reader.task)["bytes"] for reader in readers} == {160_000}


async def test_a_sender_that_stopped_holds_no_file(tmp_path: Path, clock: StillClock) -> None:
    content = bytes(3 << 20)
    came, goes_on = asyncio.Event(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield content[: 2 << 20]
        came.set()
        await goes_on.wait()
        yield content[2 << 20 :]

    async with node_of(tmp_path, clock) as node:
        said = InputWriteArgs(name="a", size=len(content), sha256=hashlib.sha256(content).hexdigest())
        writing = asyncio.ensure_future(node.rig.uploads.write("ana", said, pieces()))
        await came.wait()
        assert open_below(tmp_path) == []
        goes_on.set()
        assert (await writing)["complete"]


async def test_one_caller_reads_few_outputs_at_once_and_others_read_meanwhile(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock) as node:
        mine, theirs = (
            await node.finished(),
            (await node.call("run.launch", "bob", path="flows.work", inputs={"n": 3})),
        )
        await node.rig.all_events(theirs["fid"])
        readers = [Reader(node, mine) for _ in range(MAX_READS_EACH)]
        for reader in readers:
            await reader.took.wait()
        refused = await node.refused("output.read", fid=mine, name="report.md")
        assert (refused.code, refused.reason) == (429, "busy")
        assert (await node.call("output.read", "bob", fid=theirs["fid"], name="report.md"))["bytes"] == 160_000
        for reader in readers:
            reader.goes_on.set()
            await reader.task
        assert (await node.call("output.read", fid=mine, name="report.md"))["bytes"] == 160_000


async def test_many_peers_of_one_address_leave_reads_to_others(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        fid = await node.finished()
        token = (await node.call("run.share", fid=fid, level=1, link=True))["token"]
        peers = [f"peer-{number}" for number in range(2 + MAX_READS_PAID // MAX_READS_EACH)]
        for peer in [*peers, "bob"]:
            await node.call("share.open", peer, secret=decode_token(token).secret)
        node.session("bob").remote_address = ("192.0.2.9", 4711)
        readers = [Reader(node, fid, peers[number // MAX_READS_EACH]) for number in range(MAX_READS_PAID)]
        for reader in readers:
            await reader.took.wait()
        refused = await node.refused("output.read", peers[-1], fid=fid, name="report.md")
        assert (refused.code, refused.reason) == (429, "busy")
        assert (await node.call("output.read", "bob", fid=fid, name="report.md"))["bytes"] == 160_000
        for reader in readers:
            reader.goes_on.set()
            await reader.task
        assert (await node.call("output.read", peers[-1], fid=fid, name="report.md"))["bytes"] == 160_000


async def test_a_reader_that_takes_nothing_is_not_waited_for(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_TAKE_S", 0.0)
    async with node_of(tmp_path, clock) as node:
        reader = Reader(node, await node.finished())
        with pytest.raises(CallError, match="resume from there") as caught:
            await reader.task
        assert (caught.value.code, caught.value.reason, reader.aborted) == (408, "too-slow", True)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("input.write", {"name": "a", "size": 9, "sha256": "0" * 64}),
        ("memory.put", {"scope": "shared", "of": "team", "key": "a", "size": 9, "sha256": "0" * 64}),
    ],
)
async def test_a_sender_that_says_nothing_is_not_waited_for(
    tmp_path: Path, clock: StillClock, monkeypatch: pytest.MonkeyPatch, op: str, args: dict[str, Any]
) -> None:
    async def silence() -> AsyncIterator[bytes]:
        yield b"few"
        await asyncio.Event().wait()

    monkeypatch.setattr(memories, "PIECE_S", 0.0)
    async with node_of(tmp_path, clock) as node:
        node.rig.uploads.limits = UploadLimits(piece_s=0.0)
        asked = SimpleNamespace(op=op, args=args, session=node.session("home"), uploads=silence)
        with pytest.raises(CallError) as caught:
            await node.service(asked)  # type: ignore[arg-type]
        assert (caught.value.code, caught.value.reason) == (408, "too-slow")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
def test_a_process_may_open_what_its_hard_limit_allows() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
    try:
        allowed = raise_descriptors()
        assert allowed == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(65_536, before[1])
        assert raise_descriptors() == allowed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
