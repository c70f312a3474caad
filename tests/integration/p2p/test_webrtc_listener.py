"""The listener on a real UDP socket against peers that are lost, hostile, late or many."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest

from kodo.p2p.core import stun
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.core.sctp import association
from kodo.p2p.core.sctp.wire import RE_CONFIG
from kodo.p2p.errors import BrokenSessionError, IdentityError, KodoError, UnreachableError
from kodo.p2p.net import link as link_module
from kodo.p2p.net import waiting_datagrams
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, CallServer, request
from kodo.p2p.net.certificate import Certificate
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.dtls import Dtls
from kodo.p2p.net.host import Host
from kodo.p2p.net.identify import ping
from kodo.p2p.net.transport import Limits
from tests.support.lossy_relay import lossy_relay
from tests.support.peers import CLIENT, SERVER, STRANGER, Pair, make_pair

UFRAG = "libp2p+webrtc+v2/abcdefgh"


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with asyncio.timeout(60), make_pair("webrtc") as pair:
        yield pair


def through(relay_port: int, address: Multiaddr) -> list[Multiaddr]:
    return [Multiaddr.webrtc_direct("127.0.0.1", relay_port, address.certhash, address.peer_id)]


def binding(ufrag: str = UFRAG) -> bytes:
    return stun.binding_request(ufrag, "clientufrag", b"t" * 12, tie_breaker=1, priority=1)


@pytest.fixture
def raw(pair: Pair) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((pair.addresses[0].host, pair.addresses[0].port))
        yield sock


async def answered(raw: socket.socket, data: bytes, seconds: float = 0.5) -> bytes | None:
    raw.send(data)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().sock_recv(raw, 2000)
    except TimeoutError:
        return None


@pytest.mark.parametrize("loss", [0.02, 0.1])
async def test_calls_and_bytes_survive_loss_doubling_and_reordering(pair: Pair, loss: float) -> None:
    address = pair.addresses[0]
    options = {"seed": 7, "loss": loss, "duplicate": 0.02, "jitter_s": 0.002}
    async with lossy_relay((address.host, address.port), **options) as relay:
        session = await pair.client.connect(through(relay.port, address), timeout=30)
        async with Call(session, "count", {"n": 2000}) as call:
            assert [item async for item in call] == list(range(2000))
        payload = random.Random(3).randbytes(60_000)

        async def upload() -> AsyncIterator[bytes]:
            yield payload

        async with Call(session, "upload", upload=upload()) as call:
            assert (await call.done())["bytes"] == payload


async def test_a_link_that_falls_silent_is_over_after_its_time() -> None:
    limits = Limits(ping_after_s=0.5, silence_s=1.5)
    async with asyncio.timeout(30), make_pair("webrtc", limits=limits) as pair:
        address = pair.addresses[0]
        async with lossy_relay((address.host, address.port), seed=1) as relay:
            session = await pair.client.connect(through(relay.port, address))
            await request(session, "echo")
            [other] = pair.server.sessions
            relay.cut = True
            await asyncio.gather(session.wait_closed(), other.wait_closed())
            assert isinstance(session.error, BrokenSessionError)
            assert isinstance(other.error, BrokenSessionError)


async def test_an_idle_link_stays_as_long_as_both_sides_answer() -> None:
    limits = Limits(ping_after_s=0.3, silence_s=1.2)
    async with asyncio.timeout(30), make_pair("webrtc", limits=limits) as pair:
        session = await pair.client.connect(pair.addresses)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(4):
                await session.wait_closed()
        assert await ping(session) > 0


async def test_a_node_with_another_certificate_is_refused(pair: Pair) -> None:
    address = pair.addresses[0]
    wrong = Multiaddr.webrtc_direct(address.host, address.port, Certificate.generate().digest, address.peer_id)
    with pytest.raises(IdentityError, match="certificate"):
        await pair.client.connect([wrong])


async def test_garbage_is_not_answered_and_harms_nobody(pair: Pair, raw: socket.socket) -> None:
    session = await pair.client.connect(pair.addresses)
    rng = random.Random(11)
    valid = binding()
    for _ in range(3000):
        data = bytearray(valid if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 200)))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        raw.send(bytes(data))
        if rng.random() < 0.02:
            await asyncio.sleep(0)
    assert await request(session, "echo", {"a": 1}) == {"a": 1}
    assert await request(await pair.client.connect(pair.addresses), "echo") == {}


async def test_a_binding_request_is_answered_with_the_address_it_came_from(pair: Pair, raw: socket.socket) -> None:
    answer = await answered(raw, binding())
    assert answer is not None
    assert stun.read_binding_response(answer, b"t" * 12, UFRAG).address == raw.getsockname()


@pytest.mark.parametrize("ufrag", ["libp2p+webrtc+v3/abcdefgh", "abcdefgh"])
async def test_a_username_of_an_unknown_kind_is_not_answered(pair: Pair, raw: socket.socket, ufrag: str) -> None:
    assert await answered(raw, binding(ufrag)) is None


async def test_dtls_before_stun_is_not_answered(pair: Pair, raw: socket.socket) -> None:
    assert await answered(raw, b"\x16\xfe\xfd" + bytes(50)) is None


async def test_a_username_that_never_became_a_session_is_forgotten() -> None:
    limits = Limits(username_s=0.2)
    async with asyncio.timeout(30), make_pair("webrtc", server_limits=limits) as pair:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as raw:
            raw.setblocking(False)
            raw.connect((pair.addresses[0].host, pair.addresses[0].port))
            assert await answered(raw, binding()) is not None
            await asyncio.sleep(0.4)
            assert await answered(raw, binding()) is None
            assert await answered(raw, binding(UFRAG + "other")) is not None


async def test_a_handshake_that_stalls_is_dropped_and_its_place_is_free_again() -> None:
    limits = Limits(handshakes=1, handshake_s=1.0)
    async with asyncio.timeout(30), make_pair("webrtc", server_limits=limits) as pair:
        address = pair.addresses[0]
        async with lossy_relay((address.host, address.port), seed=1) as relay:
            stalled = asyncio.ensure_future(pair.client.connect(through(relay.port, address), timeout=20))
            await relay.newcomer.wait()
            await asyncio.sleep(0.003)
            relay.cut = True
            async with Host(STRANGER, WebRtcTransport()) as other:
                session = await other.connect(pair.addresses, timeout=20)
                assert await request(session, "echo") == {}
            stalled.cancel()
            await asyncio.wait([stalled])


@pytest.mark.parametrize("limits", [Limits(sessions=1), Limits(sessions_per_source=1)], ids=["all", "source"])
async def test_beyond_the_bound_of_sessions_nobody_is_let_in_until_one_ends(limits: Limits) -> None:
    async with asyncio.timeout(30), make_pair("webrtc", server_limits=limits) as pair:
        session = await pair.client.connect(pair.addresses)
        async with Host(STRANGER, WebRtcTransport()) as other:
            with pytest.raises(UnreachableError):
                await other.connect(pair.addresses[:1], timeout=1)
            assert await request(session, "echo") == {}
            await session.aclose()
            assert await request(await other.connect(pair.addresses[:1], timeout=20), "echo") == {}


async def test_a_peer_that_never_lets_channels_close_loses_its_session_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asyncio.timeout(60), make_pair("webrtc") as pair:
        hostile = await pair.client.connect(pair.addresses)
        async with Host(STRANGER, WebRtcTransport()) as other:
            honest = await other.connect(pair.addresses)
            await request(hostile, "echo")
            link: Any = hostile._link
            take = association.Association._take_re_config
            monkeypatch.setitem(
                cast("dict[int, Any]", association._HANDLERS),
                RE_CONFIG,
                lambda side, body: None if side is link._sctp else take(side, body),
            )
            link._sctp._channels._most = 1 << 16
            with contextlib.suppress(KodoError):
                while not hostile.closed and len(pair.server.sessions) == 2:
                    raw = link._sctp.open_channel()
                    link.send(raw, b"x")
                    await link.drained()
                    await asyncio.sleep(0)
            assert [session.remote_peer for session in pair.server.sessions] == [STRANGER.peer_id]
            assert await request(honest, "echo", {"a": 1}) == {"a": 1}


async def test_a_hundred_dials_at_once_all_succeed(pair: Pair) -> None:
    async with asyncio.TaskGroup() as group:

        async def dial(i: int) -> None:
            async with Host(
                Identity.from_seed(i.to_bytes(32, "big")), WebRtcTransport(Certificate.generate())
            ) as host:
                session = await host.connect(pair.addresses, timeout=40)
                assert await request(session, "echo", {"i": i}, timeout=40) == {"i": i}

        for i in range(100):
            group.create_task(dial(i))


async def test_above_the_bound_a_source_must_echo_a_cookie_first() -> None:
    limits = Limits(cookies_above=0)
    async with asyncio.timeout(30), make_pair("webrtc", server_limits=limits) as pair:
        session = await pair.client.connect(pair.addresses)
        assert await request(session, "echo") == {}


async def test_before_a_source_has_answered_little_is_sent_to_it(pair: Pair, raw: socket.socket) -> None:
    # A ClientHello as a WebRTC stack sends it, replayed by somebody who cannot hear the answers.
    hello = bytearray()

    class Recorder(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if stun.is_stun(data):
                request = stun.read_binding_request(data)
                self.transport.sendto(stun.binding_response(request, addr), addr)  # type: ignore[attr-defined]
            elif not hello:
                hello.extend(data)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Recorder, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    with pytest.raises(UnreachableError):
        await pair.client.connect(through(port, pair.addresses[0]), timeout=0.5)
    transport.close()
    sent = received = 0
    for _ in range(20):
        for data in (binding(), bytes(hello)):
            raw.send(data)
            sent += len(data)
    try:
        async with asyncio.timeout(4):
            while True:
                received += len(await loop.sock_recv(raw, 2000))
    except TimeoutError:
        pass
    assert 0 < received <= 3 * sent


async def test_sources_that_are_not_admitted_hear_nothing() -> None:
    async with asyncio.timeout(30), Host(SERVER, WebRtcTransport(admits=lambda host: False)) as server:
        addresses = await server.listen(["127.0.0.1"])
        async with Host(CLIENT, WebRtcTransport()) as client:
            with pytest.raises(UnreachableError, match="nobody answered"):
                await client.connect(addresses, timeout=0.5)


async def test_one_port_serves_both_families() -> None:
    async with (
        asyncio.timeout(30),
        Host(SERVER, WebRtcTransport()) as server,
        Host(CLIENT, WebRtcTransport()) as client,
    ):

        async def echo(call: object) -> str:
            return "here"

        server.handle(CALL_PROTOCOL, CallServer(echo))
        addresses = await server.listen(["127.0.0.1", "::1"])
        assert {address.family for address in addresses} == {"ip4", "ip6"}
        assert len({address.port for address in addresses}) == 1
        for address in addresses:
            session = await client.connect([address])
            assert await request(session, "any") == "here"
            await session.aclose()


async def test_a_restarted_node_has_its_address_again_and_is_noticed() -> None:
    certificate = Certificate.from_pem(Certificate.generate().to_pem())
    limits = Limits(ping_after_s=0.5, silence_s=2)
    async with asyncio.timeout(60), Host(CLIENT, WebRtcTransport(), limits=limits) as client:
        async with Host(SERVER, WebRtcTransport(certificate)) as server:
            addresses = await server.listen(["127.0.0.1"])
            first = await client.connect(addresses)
        await first.wait_closed()
        async with Host(SERVER, WebRtcTransport(certificate)) as server:
            assert await server.listen(["127.0.0.1"], addresses[0].port) == addresses
            assert await ping(await client.connect(addresses)) > 0


@pytest.mark.parametrize(("turn", "waiting"), [(0.0, 4096), (0.0, 16), (0.001, 16)])
async def test_a_link_that_takes_little_at_a_turn_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, turn: float, waiting: int
) -> None:
    monkeypatch.setattr(link_module, "TURN_SECONDS", turn)
    monkeypatch.setattr(waiting_datagrams, "WAITING_DATAGRAMS", waiting)
    async with asyncio.timeout(60), make_pair("webrtc") as pair:
        session = await pair.client.connect(pair.addresses)

        async def count() -> None:
            async with Call(session, "count", {"n": 20_000}) as call:
                assert [item async for item in call] == list(range(20_000))

        async def upload() -> None:
            pieces = [random.Random(number).randbytes(100_000) for number in range(8)]

            async def given() -> AsyncIterator[bytes]:
                for piece in pieces:
                    yield piece

            async with Call(session, "upload", upload=given()) as call:
                assert await call.done() == {"bytes": b"".join(pieces)}

        async def pump() -> None:
            async with Call(session, "pump", {"n": 60, "size": 65_536}) as call:
                assert [item async for item in call] == [bytes(65_536)] * 60

        await asyncio.gather(count(), upload(), pump(), pump())
        assert await request(session, "echo", {"a": 1}) == {"a": 1}


async def test_stopped_readers_cost_the_sender_little_and_nobody_else_anything(pair: Pair) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(5):
            host = Host(Identity.from_seed(bytes([number]) * 32), WebRtcTransport())
            session = await (await stack.enter_async_context(host)).connect(pair.addresses)
            await stack.enter_async_context(Call(session, "pump", {"n": 1600, "size": 65_536}))
        links = [session._link for session in pair.server.sessions]
        before: list[int] = []
        for _ in range(300):
            kept = [link.queued for link in links]
            if kept == before and all(link.full for link in links):
                break
            before = kept
            await asyncio.sleep(0.1)
        assert all(link.full for link in links)
        assert max(before) <= 8 << 20
        reader = await pair.client.connect(pair.addresses)
        async with Call(reader, "pump", {"n": 100, "size": 65_536}) as call:
            assert sum([len(item) async for item in call]) == 100 * 65_536
        assert max(link.queued for link in links) <= 8 << 20


async def test_an_answer_given_at_once_travels_with_the_acknowledgement(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await pair.client.connect(pair.addresses)
    [answering] = pair.server.sessions
    encrypted, encrypt = [0], Dtls.encrypt

    def counting(self: Dtls, payload: bytes) -> bytes:
        encrypted[0] += self is cast(Any, answering)._link._dtls
        return encrypt(self, payload)

    monkeypatch.setattr(Dtls, "encrypt", counting)
    packets = []
    for _ in range(20):
        before = encrypted[0]
        await request(session, "echo", {"a": 1})
        packets.append(encrypted[0] - before)
    assert min(packets) == 1  # more where an acknowledgement was overdue or a channel's end was confirmed
