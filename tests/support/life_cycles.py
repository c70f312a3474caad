"""The life cycles of what users make and leave: each from its beginning until nobody needs it any more.

They use a node and a registry over the library alone, so that they run against those of this process, and against
those that somebody started. The node offers `story.count`, `story.ask`, `story.make` and `abilities.relay`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from kodo.client import Client, Run
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError, KodoError
from kodo.p2p.net.calls import Call
from kodo.registry.client.client import RegistryClient
from tests.support.records import flow, signed_goodbye, signed_heartbeat, signed_record

__all__ = ["CYCLES", "OTHERS", "STRANGERS", "Cycle", "Visitor"]

OUTPUT_BYTES = 100_000
CHUNK = 1 << 20
STRANGERS = 30
"""Of whom they have seen lately, nodes and registries remember thousands: so the same ones come again."""


@dataclass
class Visitor:
    """Somebody who uses a node.

    Attributes:
        client: is open.
        make_client: gives a further one, of the identity if one is named.
        node: address of the node; `other`: of the one that runs are delegated to.
        registry: its URL.
        folder: for what is downloaded.
        standing: a run that waits for an answer, to be followed; made by `prepare`.
    """

    client: Client
    make_client: Callable[[Identity | None], Client]
    node: str
    other: str
    registry: str
    folder: Path
    standing: Run | None = None
    number: int = 0

    async def prepare(self) -> None:
        """Make what several cycles look at."""
        self.standing = await self.launch("story.ask", topic="bread")
        await self.until_locked(self.standing)

    def stranger(self) -> Identity:
        """Give one of a few others, in turn."""
        self.number = (self.number + 1) % STRANGERS
        return Identity.from_seed(self.number.to_bytes(32, "big"))

    async def launch(self, flow: str, **inputs: Any) -> Run:
        return await self.client.launch(flow, node=self.node, inputs=inputs)

    async def until_locked(self, run: Run) -> str:
        async with aclosing(run.follow()) as events:
            async for event in events:
                if event.event == "lock":
                    return str(event.data["lid"])
        raise AssertionError("the run ended without a lock")

    async def ended(self, run: Run) -> None:
        await run.wait()
        await run.delete()


Cycle = Callable[[Visitor], Awaitable[None]]


async def a_run(visitor: Visitor) -> None:
    await visitor.ended(await visitor.launch("story.count", n=0))


async def a_run_that_is_kept(visitor: Visitor) -> None:
    await (await visitor.launch("story.count", n=0)).wait()


async def a_run_with_events(visitor: Visitor) -> None:
    await visitor.ended(await visitor.launch("story.count", n=20))


async def a_run_that_is_killed(visitor: Visitor) -> None:
    run = await visitor.launch("story.ask", topic="salt")
    await visitor.until_locked(run)
    await run.kill()
    await visitor.ended(run)


async def a_run_that_is_answered(visitor: Visitor) -> None:
    run = await visitor.launch("story.ask", topic="salt")
    await run.answer(await visitor.until_locked(run), {"approved": True})
    await visitor.ended(run)


async def a_run_that_is_restarted(visitor: Visitor) -> None:
    run = await visitor.launch("story.count", n=0)
    await run.wait()
    await visitor.ended(await run.restart())
    await run.delete()


async def a_download(visitor: Visitor) -> None:
    run = await visitor.launch("story.make", files=1, size=OUTPUT_BYTES)
    await run.wait()
    for file in await run.download(visitor.folder, overwrite=True):
        await asyncio.to_thread(os.unlink, visitor.folder / file.name)
    await run.delete()


async def a_download_that_is_left(visitor: Visitor) -> None:
    run = await visitor.launch("story.make", files=1, size=OUTPUT_BYTES)
    await run.wait()
    session = await (await visitor.client.node(visitor.node)).session()
    async with Call(session, "output.read", {"fid": run.fid, "name": "made/file0.bin"}) as call:
        await anext(call)
    await run.delete()


async def a_follower_who_leaves(visitor: Visitor) -> None:
    assert visitor.standing is not None
    async with aclosing(visitor.standing.follow()) as events:
        await anext(events)


async def a_follower_who_waits_and_leaves(visitor: Visitor) -> None:
    assert visitor.standing is not None
    last = visitor.standing.view.last_seq
    session = await (await visitor.client.node(visitor.node)).session()
    args = {"fid": visitor.standing.fid, "after": last}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.001), Call(session, "run.stream", args) as call:
            await anext(call)


async def a_session(visitor: Visitor) -> None:
    async with visitor.make_client(None) as client:
        await (await client.node(visitor.node)).request("node.state")


async def a_stranger(visitor: Visitor) -> None:
    async with visitor.make_client(visitor.stranger()) as client:
        await (await client.node(visitor.node)).request("node.state")
        await client.runs(visitor.node)


async def a_session_that_is_left_in_a_call(visitor: Visitor) -> None:
    assert visitor.standing is not None
    async with visitor.make_client(None) as client:
        session = await (await client.node(visitor.node)).session()
        call = Call(session, "run.stream", {"fid": visitor.standing.fid})
        await call.__aenter__()
        await anext(call)


async def a_link(visitor: Visitor) -> None:
    run = await visitor.launch("story.count", n=0)
    share = await run.share(expires=60)
    async with visitor.make_client(visitor.stranger()) as friend:
        await (await friend.get(str(share))).wait()
    await run.unshare(share)
    await visitor.ended(run)


async def a_guess_at_a_link(visitor: Visitor) -> None:
    async with visitor.make_client(visitor.stranger()) as guesser:
        remote = await guesser.node(visitor.node)
        with contextlib.suppress(CallError):
            await remote.request("share.open", {"secret": os.urandom(16)})


async def a_share(visitor: Visitor) -> None:
    run = await visitor.launch("story.count", n=0)
    await run.unshare(await run.share(str(visitor.stranger().peer_id), expires=60))
    await visitor.ended(run)


async def a_refused_call(visitor: Visitor) -> None:
    remote = await visitor.client.node(visitor.node)
    for op, args in (("run.launch", {"path": "story.none"}), ("run.state", {"fid": "x"}), ("no.op", {})):
        with contextlib.suppress(CallError):
            await remote.request(op, args)


async def an_upload(visitor: Visitor) -> None:
    path = visitor.folder / "same.bin"
    if not path.exists():
        path.write_bytes(b"x" * OUTPUT_BYTES)
    await visitor.client.upload(path, node=visitor.node)


async def an_upload_that_is_cut(visitor: Visitor) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 65536
        await asyncio.sleep(3600)

    session = await (await visitor.client.node(visitor.node)).session()
    args = {"name": "cut.bin", "size": 3 * CHUNK, "sha256": "ab" * 32}
    with contextlib.suppress(TimeoutError, KodoError):
        async with asyncio.timeout(0.005), Call(session, "input.write", args, upload=pieces()) as call:
            await call.done()


async def an_upload_of_other_bytes(visitor: Visitor) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"y" * 1000

    session = await (await visitor.client.node(visitor.node)).session()
    args = {"name": "wrong.bin", "size": 1000, "sha256": "cd" * 32}
    with contextlib.suppress(CallError):
        async with Call(session, "input.write", args, upload=pieces()) as call:
            await call.done()


async def a_delegation(visitor: Visitor) -> None:
    inputs = {"target": f"{visitor.other}/story.count", "inputs": {"n": 1}}
    run = await visitor.launch("abilities.relay", **inputs)
    view = await run.wait()
    assert view.final is not None, view.fatal
    await run.delete()


async def an_announcement(visitor: Visitor) -> None:
    node = visitor.stranger()
    now = time.time_ns() // 1_000_000
    said = {"seq": now, "issued_at": now}
    async with RegistryClient(visitor.registry) as registry:
        with contextlib.suppress(CallError):  # so often they may not
            await registry.up(signed_record(node, flow(), **said))
            await registry.state(signed_heartbeat(node, seq=now, at=now))
            await registry.down(signed_goodbye(node, seq=now, at=now))


async def a_search(visitor: Visitor) -> None:
    async with RegistryClient(visitor.registry) as registry:
        await registry.flows(search="*market*")
        await registry.nodes(query="name == 'flows.example.com'")


async def a_refused_request(visitor: Visitor) -> None:
    async with RegistryClient(visitor.registry) as registry:
        for method, path, data in (("GET", "/none", None), ("PUT", "/up", b"\xc1"), ("POST", "/mesh", b"x" * 1000)):
            with contextlib.suppress(CallError):
                await registry.call(method, path, data=data)


async def a_request_that_is_cut(visitor: Visitor) -> None:
    host, port = visitor.registry.removeprefix("http://").split(":")
    head = f"PUT /up HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/msgpack\r\nContent-Length: 900\r\n\r\n"
    for half in (b"GET /nodes HT", head.encode() + b"x" * 100):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(half)
        await writer.drain()
        writer.transport.abort()


async def a_look_at_a_registry(visitor: Visitor) -> None:
    await visitor.client.whoami(visitor.registry)


async def a_wait_at_the_rendezvous(visitor: Visitor) -> None:
    with contextlib.suppress(aiohttp.WSServerHandshakeError):  # so often one may not
        async with aiohttp.ClientSession() as http, http.ws_connect(visitor.registry + "/rendezvous") as socket:
            await socket.receive_bytes(timeout=10)


OTHERS = frozenset([a_delegation.__name__])
"""Those that need the other node."""

CYCLES: Mapping[str, Cycle] = {
    cycle.__name__: cycle
    for cycle in (
        a_run,
        a_run_that_is_kept,
        a_run_with_events,
        a_run_that_is_killed,
        a_run_that_is_answered,
        a_run_that_is_restarted,
        a_download,
        a_download_that_is_left,
        a_follower_who_leaves,
        a_follower_who_waits_and_leaves,
        a_session,
        a_stranger,
        a_session_that_is_left_in_a_call,
        a_link,
        a_guess_at_a_link,
        a_share,
        a_refused_call,
        an_upload,
        an_upload_that_is_cut,
        an_upload_of_other_bytes,
        a_delegation,
        an_announcement,
        a_search,
        a_refused_request,
        a_request_that_is_cut,
        a_look_at_a_registry,
        a_wait_at_the_rendezvous,
    )
}
