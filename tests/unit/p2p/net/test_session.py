"""Sessions over links in memory, in virtual time: silence, deadlines, delay, loss and cuts."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kodo.p2p.core.framing import MAX_MESSAGE_BYTES
from kodo.p2p.errors import BrokenSessionError, DeadlineError, LocallyClosedError, NetworkError
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, request
from kodo.p2p.net.session import NEGOTIATE_SECONDS, Session
from kodo.p2p.net.stream import Stream
from kodo.p2p.net.transport import Limits
from tests.support.peers import make_pair
from tests.support.virtual_time import run_virtual


def test_an_idle_session_lives_for_hours() -> None:
    async def story() -> None:
        async with make_pair("memory", delay_s=0.02) as pair:
            session = await pair.client.connect(pair.addresses)
            await asyncio.sleep(4 * 3600)
            assert await request(session, "echo", {"a": 1}) == {"a": 1}

    run_virtual(story())


def test_a_session_whose_other_side_fell_silent_is_over_after_fifteen_seconds() -> None:
    async def story() -> float:
        async with make_pair("memory") as pair:
            session = await pair.client.connect(pair.addresses)
            await request(session, "echo")
            assert pair.network is not None
            for link in pair.network.links:
                link.arrive = lambda channel, message: None  # type: ignore[method-assign]
                link.probed = lambda: None  # type: ignore[method-assign]
            began = asyncio.get_running_loop().time()
            await session.wait_closed()
            assert isinstance(session.error, BrokenSessionError)
            return asyncio.get_running_loop().time() - began

    limits = Limits()
    assert limits.silence_s <= run_virtual(story()) <= limits.silence_s + 2


def test_a_cut_breaks_what_is_in_progress_and_is_no_orderly_end() -> None:
    async def story() -> None:
        async with make_pair("memory", delay_s=0.01) as pair:
            session = await pair.client.connect(pair.addresses)
            async with Call(session, "hang", timeout=None) as call:
                await pair.started.wait()
                assert pair.network is not None
                pair.network.cut()
                with pytest.raises(BrokenSessionError):
                    await call.done()
            await pair.cancelled.wait()
            with pytest.raises(NetworkError):
                await session.open_stream("/ipfs/ping/1.0.0")
            again = await pair.client.connect(pair.addresses)
            assert await request(again, "echo") == {}

    run_virtual(story())


@pytest.mark.parametrize("seed", range(20))
def test_loss_and_jitter_below_change_nothing_above(seed: int) -> None:
    async def story() -> None:
        async with make_pair("memory", seed=seed, delay_s=0.05, jitter_s=0.04, loss=0.1) as pair:
            session = await pair.client.connect(pair.addresses)

            async def count(n: int) -> None:
                async with Call(session, "count", {"n": n}) as call:
                    assert [item async for item in call] == list(range(n))

            await asyncio.gather(*(count(n) for n in (0, 1, 10, 1000, 20_000)))

    run_virtual(story())


def test_a_stream_that_names_no_protocol_is_ended() -> None:
    async def story() -> None:
        async with make_pair("memory") as pair:
            session = await pair.client.connect(pair.addresses)
            stream = await session.open_stream("/kodo/call/1")
            stream._send(b"\x00")  # an empty message opens the channel and says nothing
            began = asyncio.get_running_loop().time()
            stream._hello = b""
            with pytest.raises(BrokenSessionError):
                await stream.read()
            assert asyncio.get_running_loop().time() - began <= NEGOTIATE_SECONDS + 2
            assert await request(session, "echo") == {}

    run_virtual(story())


def test_a_call_that_does_not_say_what_it_wants_is_ended() -> None:
    async def story() -> None:
        async with make_pair("memory") as pair:
            session = await pair.client.connect(pair.addresses)
            stream = await session.open_stream("/kodo/call/1")
            with pytest.raises(NetworkError):
                await stream.read()

    run_virtual(story())


def test_each_answer_of_a_slow_call_has_the_whole_timeout() -> None:
    async def story() -> None:
        async with make_pair("memory", delay_s=3) as pair:
            session = await pair.client.connect(pair.addresses, timeout=60)
            assert await request(session, "echo", {"a": 1}, timeout=10) == {"a": 1}
            with pytest.raises(DeadlineError, match="5 s"):
                await request(session, "echo", timeout=5)

    run_virtual(story())


def test_small_writes_of_one_turn_share_messages_and_wait_for_nobody() -> None:
    async def story() -> list[int]:
        async with make_pair("memory", delay_s=0.01) as pair:
            read = bytearray()
            finished = asyncio.Event()

            async def keep(stream: Stream) -> None:
                while data := await stream.read():
                    read.extend(data)
                    if len(read) == 100:
                        await stream.write(b"so far")
                finished.set()

            pair.server.handle("/keep/1", keep)
            session = await pair.client.connect(pair.addresses)
            stream = await session.open_stream("/keep/1")
            assert pair.network is not None
            here = pair.network.links[0]
            sizes: list[int] = []
            send = here.send

            def counting(channel: Any, message: bytes | None) -> None:
                sizes.append(len(message or b""))
                send(channel, message)

            here.send = counting  # type: ignore[method-assign]
            await stream.write(b"0" * 100)
            assert await stream.read() == b"so far"  # nothing more had to be written for it
            expected = [b"%d" % number * 50 for number in range(2000)]
            for piece in expected:
                await stream.write(piece)
            await stream.close_write()
            await finished.wait()
            assert bytes(read) == b"0" * 100 + b"".join(expected)
            return sizes

    sizes = run_virtual(story())
    assert len(sizes) <= 30
    assert max(sizes) <= MAX_MESSAGE_BYTES


def test_what_was_written_last_arrives_though_the_session_closes_at_once() -> None:
    async def story() -> None:
        async with make_pair("memory", delay_s=0.01) as pair:
            read = asyncio.get_running_loop().create_future()

            async def keep(stream: Stream) -> None:
                read.set_result(await stream.read())

            pair.server.handle("/keep/1", keep)
            session = await pair.client.connect(pair.addresses)
            await (await session.open_stream("/keep/1")).write(b"the last words")
            await session.aclose()
            assert await read == b"the last words"

    run_virtual(story())


def test_an_idle_session_is_looked_after_only_as_often_as_silence_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    look = Session._check_alive

    def counting(session: Session) -> None:
        nonlocal looks
        looks += 1
        look(session)

    monkeypatch.setattr(Session, "_check_alive", counting)

    async def story() -> None:
        async with make_pair("memory", delay_s=0.02) as pair:
            session = await pair.client.connect(pair.addresses)
            await request(session, "echo")
            await asyncio.sleep(3600)
            assert not session.closed

    run_virtual(story())
    # Two sessions; each falls silent, is asked, and answers.
    assert looks <= 2 * 3 * 3600 / Limits().ping_after_s


@pytest.mark.parametrize("op", ["echo", "hang", "refuse", "fail", "pump"])
@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.015, 0.025, 0.5])
@pytest.mark.parametrize("cut", [False, True])
def test_what_nobody_has_read_of_a_stream_that_is_over_holds_no_window(op: str, after_s: float, cut: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield bytes(60_000)
        if cut:
            await asyncio.Event().wait()

    async def story() -> None:
        async with make_pair("memory", delay_s=0.01) as pair:
            session = await pair.client.connect(pair.addresses)
            with contextlib.suppress(TimeoutError, StopAsyncIteration):
                async with (
                    asyncio.timeout(0.02 + after_s),
                    Call(session, op, {"n": 20, "size": 9000}, upload=pieces()) as call,
                ):
                    await anext(call)
                    await asyncio.Event().wait()
            await asyncio.sleep(1)
            assert pair.network is not None
            assert [link._unread for link in pair.network.links] == [0, 0]
            assert [link._under_way for link in pair.network.links] == [0, 0]

    run_virtual(story())


@pytest.mark.parametrize("kind", ["memory", "webrtc"])
async def test_readers_of_what_broke_keep_nothing_until_garbage_is_looked_for(kind: str) -> None:
    # A peer that breaks off thousands of uploads would else have a node keep what each had brought.
    class Brought:
        pass

    kept: list[weakref.ref[Brought]] = []

    async def read(stream: Stream) -> None:
        brought = Brought()
        kept.append(weakref.ref(brought))
        await stream.read()

    async with make_pair(kind) as pair:
        session = await pair.client.connect(pair.addresses)
        stream = await session.open_stream(CALL_PROTOCOL)
        gc.collect()
        gc.disable()
        try:
            stream.reset()
            for _ in range(3):
                with contextlib.suppress(LocallyClosedError):
                    await read(stream)
            await session.aclose()
            for _ in range(3):
                brought = Brought()
                kept.append(weakref.ref(brought))
                with pytest.raises(LocallyClosedError):
                    await session.open_stream(CALL_PROTOCOL)
                del brought
            assert [each() for each in kept] == [None] * 6
        finally:
            gc.enable()


@pytest.mark.parametrize("turns", range(12))
def test_a_stream_that_comes_while_a_session_is_ended_is_reset(turns: int) -> None:
    """Whatever turn of the loop it comes in: a task group that is on its way out takes no tasks."""

    async def story() -> None:
        async with make_pair("memory") as pair:
            session = await pair.client.connect(pair.addresses)
            async with Call(session, "hang", timeout=None):
                await pair.started.wait()
                [ending] = pair.server.sessions
                late = await session.open_stream(CALL_PROTOCOL)
                ending.cancel()
                for _ in range(turns):
                    await asyncio.sleep(0)
                with contextlib.suppress(NetworkError):
                    await late.write(b"x")
                    await late.read()
                with contextlib.suppress(NetworkError):
                    await session.wait_closed()
            gc.collect()

    run_virtual(story())
