"""A node with a finished run to share, and callers that read it a piece at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kodo.p2p.core.callframe import FrameReader
from kodo.p2p.errors import CallError
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.service_rig import Node, node_of

SIZE = 180_000  # of the one output of `flows.work`: b"# Report" * 20_000 and what a piece is not
DAY = 86400.0


async def shared(node: Node, fid: str, **args: Any) -> dict[str, Any]:
    answer = await node.call("run.share", fid=fid, **args)
    assert isinstance(answer, dict)
    return answer


async def link_of(node: Node, fid: str, **args: Any) -> bytes:
    return decode_token((await shared(node, fid, link=True, **args))["token"]).secret


async def opened(node: Node, secret: bytes, *peers: str) -> None:
    for peer in peers:
        await node.call("share.open", peer, secret=secret)


def downloads(row: dict[str, Any]) -> tuple[int, int]:
    return row["done"], row["under_way"]


def contents(home: Path) -> list[bytes]:
    return [path.read_bytes() for path in home.rglob("*") if path.is_file()]


async def only_share(node: Node) -> dict[str, Any]:
    [row] = (await node.call("share.list"))["result"]
    assert isinstance(row, dict)
    return row


class Slow:
    """A call whose items are taken one at a time; `broken` is what the caller's going away looks like."""

    def __init__(self, node: Node, op: str, peer: str, **args: Any):
        self.items: list[Any] = []
        self.aborted = False
        self._room = asyncio.Semaphore(0)
        asked = SimpleNamespace(
            op=op,
            args=args,
            session=node.session(peer),
            send=self._send,
            send_frames=self._send_frames,
            abort=self._abort,
        )
        self.task = asyncio.create_task(node.service(asked))  # type: ignore[arg-type]

    async def _send(self, item: Any) -> None:
        await self._room.acquire()
        self.items.append(item)

    async def _send_frames(self, frames: bytes) -> None:
        for answer in FrameReader().feed(frames):
            await self._send(answer["item"])

    async def take(self, count: int) -> None:
        wanted = len(self.items) + count
        for _ in range(count):
            self._room.release()
        await settled(lambda: len(self.items) >= wanted or self.task.done())

    def _abort(self) -> None:
        self.aborted = True

    async def broken(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])

    async def refused(self) -> str:
        with pytest.raises(CallError) as caught:
            await self.task
        return f"{caught.value.code} {caught.value.reason}"


@contextlib.asynccontextmanager
async def world(tmp_path: Path, clock: StillClock) -> AsyncIterator[tuple[Node, str]]:
    """A node with a finished run of ana's."""
    async with node_of(tmp_path, clock) as node:
        yield node, await node.finished()
