"""What sessions, streams and calls promise, over each transport: in memory, and real WebRTC on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator

import pytest

from kodo.p2p.core.negotiate import ProtocolRefusedError
from kodo.p2p.errors import (
    BrokenSessionError,
    CallError,
    CapacityError,
    DeadlineError,
    IdentityError,
    LocallyClosedError,
    NetworkError,
    RemotelyClosedError,
    UnreachableError,
    UsageError,
)
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, CallServer, Request, request
from kodo.p2p.net.identify import identify, ping
from kodo.p2p.net.stream import Stream
from kodo.p2p.net.transport import Limits
from tests.support.peers import CLIENT, SERVER, STRANGER, Pair, another_client, make_pair

KINDS = ["memory", "webrtc"]


@pytest.fixture(params=KINDS)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with asyncio.timeout(60), make_pair(request.param) as pair:
        yield pair


async def test_a_session_proves_both_peers(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    assert (session.local_peer, session.remote_peer) == (CLIENT.peer_id, SERVER.peer_id)
    await request(session, "echo")
    [other] = pair.server.sessions
    assert (other.local_peer, other.remote_peer) == (SERVER.peer_id, CLIENT.peer_id)


async def test_connecting_twice_gives_the_same_session(pair: Pair) -> None:
    sessions = await asyncio.gather(*(pair.client.connect(pair.addresses) for _ in range(5)))
    assert len(set(sessions)) == 1


async def test_a_call_gives_its_items_in_order_and_then_its_end(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    async with Call(session, "count", {"n": 5000}) as call:
        assert [item async for item in call] == list(range(5000))
        assert await call.done() == {"n": 5000}


async def test_a_refusal_carries_code_reason_message_and_data(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    with pytest.raises(CallError) as caught:
        await request(session, "refuse")
    error = caught.value
    assert (error.code, error.reason, error.message) == (409, "busy", "another is at it")
    assert error.data == {"retry_after_ms": 5}


async def test_a_handler_that_fails_is_an_internal_error_that_tells_nothing(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    with pytest.raises(CallError) as caught:
        await request(session, "fail")
    assert (caught.value.code, caught.value.reason) == (500, "internal")
    assert "own fault" not in str(caught.value)
    assert await request(session, "echo", {"a": 1}) == {"a": 1}


async def test_what_a_caller_says_besides_is_read_without_waiting(pair: Pair) -> None:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    heard: list[bytes] = []

    async def answer(request: Request) -> int:
        assert list(request.arrived()) == []
        await request.send("begin")
        while len(heard) < 2:
            heard.extend(request.arrived())
            await asyncio.sleep(0.001)
        heard.extend([piece async for piece in request.uploads()])
        return len(heard)

    async def upload() -> AsyncIterator[bytes]:
        while piece := await said.get():
            yield piece

    pair.server.handle(CALL_PROTOCOL, CallServer(answer))
    session = await pair.client.connect(pair.addresses)
    async with Call(session, "any", upload=upload()) as call:
        assert await anext(call) == "begin"
        for piece in (b"one", b"two", b"three", b""):
            said.put_nowait(piece)
        assert await call.done() == 3
    assert heard == [b"one", b"two", b"three"]


async def test_an_upload_arrives_as_it_was_sent(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    pieces = [random.Random(i).randbytes(i * 7919 % 50_000) for i in range(30)]

    async def upload() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with Call(session, "upload", upload=upload()) as call:
        assert (await call.done())["bytes"] == b"".join(pieces)


async def test_leaving_a_call_cancels_it_at_the_callee(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    async with Call(session, "hang"):
        await pair.started.wait()
    await pair.cancelled.wait()
    assert await request(session, "echo") == {}


async def test_a_call_that_nobody_answers_ends_at_its_deadline(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    with pytest.raises(DeadlineError):
        await request(session, "hang", timeout=0.05)
    await pair.cancelled.wait()


async def test_many_calls_at_once_are_all_answered(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    for _ in range(4):
        answers = await asyncio.gather(*(request(session, "echo", {"i": i}) for i in range(60)))
        assert answers == [{"i": i} for i in range(60)]


async def test_streams_that_ended_leave_nothing_behind(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    for i in range(200):
        assert await request(session, "echo", {"i": i}) == {"i": i}


async def test_bytes_go_both_ways_at_once_unchanged(pair: Pair) -> None:
    sent = random.Random(1).randbytes(1_500_000)

    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            await stream.write(data)
        await stream.close_write()

    pair.server.handle("/test/echo", echo)
    session = await pair.client.connect(pair.addresses)
    stream = await session.open_stream("/test/echo")
    received = hashlib.sha256()

    async def write() -> None:
        await stream.write(sent)
        await stream.close_write()

    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        while data := await stream.read():
            received.update(data)
    assert received.digest() == hashlib.sha256(sent).digest()
    await stream.aclose()


async def test_what_was_written_before_closing_still_arrives(pair: Pair) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def collect(stream: Stream) -> None:
        data = b""
        while part := await stream.read():
            data += part
        got.set_result(data)
        await stream.aclose()

    pair.server.handle("/test/collect", collect)
    session = await pair.client.connect(pair.addresses)
    stream = await session.open_stream("/test/collect")
    await stream.write(bytes(100_000))
    await stream.aclose()
    assert await got == bytes(100_000)


async def test_using_a_stream_that_was_closed_here_says_so(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    stream = await session.open_stream("/ipfs/ping/1.0.0")
    await stream.close_write()
    with pytest.raises(LocallyClosedError):
        await stream.write(b"late")
    stream.reset()
    with pytest.raises(LocallyClosedError):
        await stream.read()


async def test_a_reset_breaks_the_other_side(pair: Pair) -> None:
    broke: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def wait(stream: Stream) -> None:
        try:
            while await stream.read():
                pass
        except NetworkError as error:
            broke.set_result(error)

    pair.server.handle("/test/wait", wait)
    session = await pair.client.connect(pair.addresses)
    stream = await session.open_stream("/test/wait")
    await stream.write(b"x")
    stream.reset()
    assert isinstance(await broke, BrokenSessionError)


async def test_an_unknown_protocol_is_refused(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    stream = await session.open_stream("/no/such/protocol")
    with pytest.raises(ProtocolRefusedError):
        await stream.read()
    assert await request(session, "echo") == {}


async def test_a_reader_that_stops_holds_up_no_other_session_and_can_go_on(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    async with another_client(pair) as other, Call(session, "pump", {"n": 400, "size": 60_000}) as call:
        assert len(await anext(call)) == 60_000
        beside = await other.connect(pair.addresses)
        async with Call(beside, "pump", {"n": 100, "size": 60_000}) as second:
            assert sum([len(item) async for item in second]) == 100 * 60_000
        assert sum([len(item) async for item in call]) == 399 * 60_000


async def test_calls_are_answered_while_another_stream_of_the_session_pumps(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)

    async def pump() -> int:
        async with Call(session, "pump", {"n": 100, "size": 60_000}) as call:
            return sum([len(item) async for item in call])

    pumping = asyncio.ensure_future(pump())
    while not pumping.done():
        assert await request(session, "echo", {"i": 1}) == {"i": 1}
    assert await pumping == 100 * 60_000


async def test_more_streams_than_allowed_are_refused_here(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    streams = [await session.open_stream("/ipfs/ping/1.0.0") for _ in range(Limits().streams)]
    with pytest.raises(CapacityError):
        await session.open_stream("/ipfs/ping/1.0.0")
    for stream in streams:
        stream.reset()
    assert await request(session, "echo") == {}


@pytest.mark.parametrize("kind", KINDS)
async def test_more_streams_than_the_other_side_allows_break_only_themselves(kind: str) -> None:
    async with asyncio.timeout(30), make_pair(kind, server_limits=Limits(streams=4)) as pair:
        session = await pair.client.connect(pair.addresses)
        hanging = [await session.open_stream("/ipfs/ping/1.0.0") for _ in range(4)]
        for stream in hanging:
            await stream.write(bytes(32))
            assert await stream.read()
        with pytest.raises(NetworkError):
            await request(session, "echo")
        for stream in hanging:
            await stream.aclose()
            await stream.wait_ended()
        assert await ping(session) > 0


async def test_closing_a_session_ends_the_other_side_in_order(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    await request(session, "echo")
    [other] = pair.server.sessions
    await session.aclose()
    await other.wait_closed()
    assert isinstance(other.error, RemotelyClosedError)
    assert isinstance(session.error, LocallyClosedError)
    with pytest.raises(LocallyClosedError):
        await session.open_stream("/ipfs/ping/1.0.0")


async def test_a_call_in_progress_breaks_when_the_other_side_closes(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    async with Call(session, "hang", timeout=None) as call:
        await pair.started.wait()
        [other] = pair.server.sessions
        await other.aclose()
        with pytest.raises(NetworkError):
            await call.done()


async def test_after_a_session_ended_connecting_makes_a_new_one(pair: Pair) -> None:
    first = await pair.client.connect(pair.addresses)
    await first.aclose()
    second = await pair.client.connect(pair.addresses)
    assert second is not first
    assert await request(second, "echo") == {}


async def test_somebody_else_at_the_address_is_refused(pair: Pair) -> None:
    wrong = [address.with_peer(STRANGER.peer_id) for address in pair.addresses]
    with pytest.raises(IdentityError, match=str(STRANGER.peer_id)):
        await pair.client.connect(wrong)


async def test_an_address_where_nobody_listens_is_unreachable(pair: Pair) -> None:
    address = pair.addresses[0]
    nobody = type(address).webrtc_direct(address.host, 9, address.certhash, address.peer_id)
    with pytest.raises(UnreachableError):
        await pair.client.connect([nobody], timeout=2)


async def test_the_address_that_answers_is_found_among_those_that_do_not(pair: Pair) -> None:
    address = pair.addresses[0]
    nobody = type(address).webrtc_direct(address.host, 9, address.certhash, address.peer_id)
    session = await pair.client.connect([nobody, address])
    assert session.remote_peer == SERVER.peer_id


async def test_addresses_of_several_peers_are_not_dialled(pair: Pair) -> None:
    with pytest.raises(UsageError):
        await pair.client.connect([pair.addresses[0], pair.addresses[0].with_peer(STRANGER.peer_id)])


async def test_a_port_in_use_cannot_be_listened_on(pair: Pair) -> None:
    with pytest.raises(UsageError, match="cannot listen"):
        await pair.client.listen(["127.0.0.1"], pair.addresses[0].port)


async def test_identify_and_ping_are_answered(pair: Pair) -> None:
    session = await pair.client.connect(pair.addresses)
    told = await identify(session)
    assert told.peer_id == SERVER.peer_id
    assert "/kodo/call/1" in told.protocols
    assert told.addresses == tuple(pair.addresses)
    assert await ping(session) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30])
async def test_cancelling_a_connect_or_call_anywhere_leaves_both_sides_usable(kind: str, turns: int) -> None:
    async with asyncio.timeout(60), make_pair(kind) as pair:

        async def work() -> None:
            session = await pair.client.connect(pair.addresses)
            await request(session, "count", {"n": 0})

        task = asyncio.ensure_future(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        session = await pair.client.connect(pair.addresses)
        assert await request(session, "echo", {"still": "here"}) == {"still": "here"}
