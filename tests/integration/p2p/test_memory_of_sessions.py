"""What a peer makes a host keep, whatever it is kept as, costs its own sessions and no other."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from kodo.p2p.core import callframe
from kodo.p2p.core.varint import PrefixedFrames, encode_varint
from kodo.p2p.errors import KodoError
from kodo.p2p.net.budget import SOURCE_BYTES, shared_budget
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Limits
from tests.support.peers import STRANGER, make_pair

MOST = 3 << 20
HALF_FRAME = encode_varint(1 << 20) + bytes(900_000)
HALF_CALL = callframe.encode_frame(callframe.request("upload"))
"""The first frame of a call that takes more."""


async def begins_frames(session: Session) -> None:
    """Begin a frame on each of many streams, which their readers take and keep."""
    for _ in range(20):
        stream = await session.open_stream(CALL_PROTOCOL)
        await stream.write(HALF_FRAME)


async def is_not_read(session: Session) -> None:
    """Send to a handler that reads nothing."""

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield bytes(64 << 10)

    async with Call(session, "hang", upload=upload()) as call:
        await call.done()


async def does_not_read(session: Session) -> None:
    """Ask for much, again and again, and take nothing of it."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(40):
            await stack.enter_async_context(Call(session, "pump", {"n": 100, "size": 65_536}))
        await session.wait_closed()


async def sends_halves(session: Session) -> None:
    """Begin a message of the stream's own framing on each of many streams."""
    link: Any = session._link
    for _ in range(60):
        stream: Any = await session.open_stream(CALL_PROTOCOL)
        await stream.write(b"x" * 100)
        stream._channel.send(encode_varint(16_000) + bytes(15_000))
        await link.drained()
    await session.wait_closed()


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(2000):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to be")


ROWS: list[tuple[Callable[[Session], Awaitable[None]], int, int]] = [
    (begins_frames, 1, MOST),
    (is_not_read, 1, MOST),
    (does_not_read, 4, MOST),
    (sends_halves, 1, 200_000),  # reached by a dozen streams: a call that names no op is forgotten after 30 s
]
"""What is done, in how many sessions, and the budget of their source."""


@pytest.mark.parametrize(("does", "count", "most"), ROWS, ids=[row[0].__name__ for row in ROWS])
async def test_who_makes_a_host_keep_too_much_is_cut_and_others_go_on(
    does: Callable[[Session], Awaitable[None]], count: int, most: int
) -> None:
    limits = Limits(kept_bytes_per_source=most)
    async with asyncio.timeout(60), make_pair("webrtc", server_limits=limits) as pair:
        honest = await pair.client.connect(pair.addresses)
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:

            async def attack(session: Session) -> None:
                with contextlib.suppress(KodoError):
                    await does(session)

            for _ in range(count):
                host = await stack.enter_async_context(Host(STRANGER, WebRtcTransport()))
                group.create_task(attack(await host.connect(pair.addresses, timeout=20)))
            cut = asyncio.ensure_future(until(lambda: len(pair.server.sessions) <= count))
            while not cut.done():
                assert await request(honest, "echo", {"a": 1}) == {"a": 1}
            await cut
            budget = shared_budget(limits.kept_bytes, limits.kept_bytes_per_source)
            assert budget.total <= most
            for session in pair.server.sessions:
                if session.remote_peer == STRANGER.peer_id:
                    session.cancel()
        assert await request(honest, "echo", {"a": 1}) == {"a": 1}
        assert budget.total < 10_000


async def test_a_session_that_ended_counts_no_longer() -> None:
    # Of its own, for the client in this process has the usual one.
    limits = Limits(kept_bytes_per_source=SOURCE_BYTES - 1)
    async with asyncio.timeout(60), make_pair("webrtc", server_limits=limits) as pair:
        budget = shared_budget(limits.kept_bytes, limits.kept_bytes_per_source)
        session = await pair.client.connect(pair.addresses)
        stream = await session.open_stream(CALL_PROTOCOL)
        await stream.write(HALF_FRAME)
        await until(lambda: budget.total > 900_000)
        await session.aclose()
        await until(lambda: not budget.total)


@pytest.mark.parametrize("begins", [HALF_FRAME, HALF_CALL + HALF_FRAME], ids=["a call", "a frame of a call"])
async def test_nothing_of_half_frames_outlives_its_session_until_garbage_is_looked_for(begins: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        async with asyncio.timeout(60), make_pair("webrtc") as pair:
            session = await pair.client.connect(pair.addresses)
            for _ in range(5):
                stream = await session.open_stream(CALL_PROTOCOL)
                await stream.write(begins)
            await until(lambda: kept_of_frames() > 4_000_000)
            await session.aclose()
            await until(lambda: not pair.server.sessions)
            await until(lambda: kept_of_frames() == 0)
    finally:
        gc.enable()


def kept_of_frames() -> int:
    """Give the bytes of half frames that any reader of this process has, whether it is in use or not."""
    return sum(each.buffered for each in gc.get_objects() if isinstance(each, PrefixedFrames))
