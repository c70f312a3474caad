"""The relay by WebSockets: a real registry, and those who would make it work for nothing or for harm."""

import asyncio
import contextlib

import aiohttp
import pytest

from kodo.p2p.core import relay_wire, stun
from kodo.p2p.core.batches import MAX_BATCH_BYTES, pack_batch, read_batch
from kodo.p2p.core.relay import RelayBounds
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net.leg import Leg
from kodo.registry.client import relaying
from kodo.registry.http import relay as relay_by_http
from kodo.registry.server import Registry
from tests.support.records import identity

NODE, OTHER = identity(1), identity(2)
TAG = relay_wire.tag_of(NODE.peer_id)


async def gone(registry, http, left=1):
    """Wait until so many connections are left."""
    async with asyncio.timeout(10):
        while len(registry.relay._connections) > left:
            async with http.get("/state"):
                pass


def check_to(tag, number=0):
    ufrag = f"{stun.UFRAG_PREFIXES[1]}{number:032x}/{tag}"
    return stun.binding_request(ufrag, ufrag, b"t" * 12, tie_breaker=1, priority=1)


@contextlib.asynccontextmanager
async def attached(registry, http):
    """Attach the node by a WebSocket; gives that."""
    with registry.relay.admitted(NODE.peer_id) as token:
        async with http.ws_connect("/relay") as socket:
            await socket.send_bytes(pack_batch([relay_wire.attach_request(TAG, token, 1, b"")]))
            [answer] = read_batch(await socket.receive_bytes(timeout=10))
            nonce = relay_wire.read_attach_answer(answer, token).nonce
            await socket.send_bytes(pack_batch([relay_wire.attach_request(TAG, token, 2, nonce)]))
            [answer] = read_batch(await socket.receive_bytes(timeout=10))
            assert relay_wire.read_attach_answer(answer, token).address == ("127.0.0.1", relay_wire.NO_UDP_PORT)
            yield socket, token


async def test_what_a_user_and_a_node_say_by_websockets_reaches_the_other(registry, http):
    async with attached(registry, http) as (node, token), http.ws_connect("/relay", params={"to": TAG}) as user:
        await user.send_bytes(pack_batch([check_to(TAG)]))
        [frame] = read_batch(await node.receive_bytes(timeout=10))
        introduced = relay_wire.read_check(relay_wire.read_frame(frame)[1], token)
        assert introduced.check == check_to(TAG)
        # No node opens its NAT for who has no UDP.
        assert introduced.address == ("127.0.0.1", relay_wire.NO_UDP_PORT)
        record = b"\x16" + bytes(1000)
        await user.send_bytes(pack_batch([record] * 3))
        frames = read_batch(await node.receive_bytes(timeout=10))
        assert [relay_wire.read_frame(each) for each in frames] == [(introduced.channel, record)] * 3
        await node.send_bytes(pack_batch(relay_wire.frame(introduced.channel, [record])))
        assert read_batch(await user.receive_bytes(timeout=10)) == [record]
        await user.close()
        await gone(registry, http)
        assert registry.relay.core.channels == 0


@contextlib.asynccontextmanager
async def next_answer(registry, socket):
    """Ask by a connection what is answered there; gives the answer."""
    with registry.relay.admitted(OTHER.peer_id) as token:
        request = relay_wire.attach_request(relay_wire.tag_of(OTHER.peer_id), token, 1, b"")
        await socket.send_bytes(pack_batch([request]))
        [answer] = read_batch(await socket.receive_bytes(timeout=10))
        yield answer, token


async def test_who_is_not_attached_is_said_not_to_be_here(registry, http):
    async with http.get("/relay", params={"to": TAG}) as response:
        assert response.status == 426
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await http.ws_connect("/relay", params={"to": TAG})
    assert refused.value.status == 404
    [carrier] = relaying.carriers_to(["http://registry.example:1"])
    assert carrier.host == "registry.example"
    with pytest.raises(UnreachableError, match="404"):
        await relaying._carry(registry.url, Leg(lambda data: None, lambda: None), TAG)


async def test_a_registry_that_relays_nothing_takes_no_connections(config, clock):
    config = config.model_copy(update={"relay_bytes": 0})
    async with Registry(config, clock=clock) as registry, aiohttp.ClientSession(registry.url) as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect("/relay")
        assert refused.value.status == 404


async def code_after(http, message, *, text=False):
    """Send a message; return with which code the registry ends the connection."""
    async with http.ws_connect("/relay", max_msg_size=0) as socket, asyncio.timeout(10):
        await (socket.send_str(message) if text else socket.send_bytes(message))
        while (await socket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
            pass
        return socket.close_code


async def test_who_sends_something_else_than_batches_of_datagrams_is_left(registry, http):
    assert await code_after(http, b"") == 4001
    assert await code_after(http, b"\0\0") == 4001
    assert await code_after(http, b"\0\2a") == 4001
    assert await code_after(http, "text", text=True) == 4001
    assert await code_after(http, bytes(MAX_BATCH_BYTES + 1)) == 1009
    await gone(registry, http, 0)


async def test_nobody_attaches_by_a_wrong_token(registry, http):
    with registry.relay.admitted(NODE.peer_id):
        async with http.ws_connect("/relay") as socket:
            await socket.send_bytes(pack_batch([relay_wire.attach_request(TAG, "w" * 32, 1, b"")]))
            with pytest.raises(TimeoutError):
                await socket.receive(timeout=0.3)
        assert registry.relay.core.attached == 0


async def test_a_user_reaches_one_node_by_a_connection_and_by_no_other_tag(registry, http):
    async with attached(registry, http) as (_, _), http.ws_connect("/relay", params={"to": TAG}) as user:
        other = relay_wire.tag_of(OTHER.peer_id)
        await user.send_bytes(pack_batch([check_to(other), check_to(TAG), check_to(other)]))
        await user.send_bytes(pack_batch([relay_wire.frame(relay_wire.FIRST_CHANNEL, [b"\x16" + bytes(40)])[0]]))
        # What is asked is answered in order, and this not at all by connections.
        await user.send_bytes(pack_batch([stun.plain_request(b"p" * 12)]))
        async with next_answer(registry, user) as (answer, token):
            assert relay_wire.read_attach_answer(answer, token).nonce
        assert registry.relay.core.channels == 1


async def test_one_address_opens_so_many_connections_and_others_still_can(registry):
    most = RelayBounds().channels_per_source
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(registry.url, connector=aiohttp.TCPConnector(limit=0))
        )
        opened, statuses = 0, []
        elsewhere = {"X-Forwarded-For": "198.51.100.1"}
        for _ in range(most + 4):
            try:
                socket = await stack.enter_async_context(http.ws_connect("/relay", headers=elsewhere))
            except aiohttp.WSServerHandshakeError as error:
                statuses.append(error.status)
                continue
            opened += not socket.closed
        assert len(registry.relay._connections) <= most
        assert set(statuses) <= {429}
        async with http.ws_connect("/relay", headers={"X-Forwarded-For": "198.51.100.2"}) as socket:
            assert not socket.closed
            await asyncio.sleep(0)
            assert "198.51.100.2" in {each.host for each in registry.relay._connections}


async def test_the_registry_answers_others_while_somebody_floods_it(registry, http):
    async def flood():
        batch = pack_batch([check_to(TAG, number) for number in range(200)])
        async with http.ws_connect("/relay") as socket:
            while True:
                await socket.send_bytes(batch)

    flooding = [asyncio.ensure_future(flood()) for _ in range(4)]
    try:
        await asyncio.sleep(0.5)
        async with asyncio.timeout(10):
            for _ in range(10):
                async with http.get("/state") as response:
                    assert response.status == 200
    finally:
        for task in flooding:
            task.cancel()
        await asyncio.wait(flooding)
    assert registry.relay.core.channels == 0


async def test_of_a_connection_that_has_to_wait_hardly_more_is_read(registry, http, monkeypatch):
    sockets, serve = [], relay_by_http._serve

    def noted(relay, socket, request):
        sockets.append(socket)
        return serve(relay, socket, request)

    monkeypatch.setattr(relay_by_http, "_serve", noted)

    async def flood(socket):
        # This is worth all but two seconds; the others would be read meanwhile.
        await socket.send_bytes(pack_batch([check_to(TAG)[:20]] * 900))
        while True:
            await socket.send_bytes(pack_batch([bytes(60_000)]))

    async with http.ws_connect("/relay") as socket:
        flooding = asyncio.ensure_future(flood(socket))
        held = []
        for _ in range(100):
            async with http.get("/state"):
                held += [each._reader._size for each in sockets]
        flooding.cancel()
        await asyncio.wait([flooding])
        assert max(held) < 100_000
        [connection] = registry.relay._connections
        assert connection.leg.is_open


async def test_who_sends_far_too_much_work_in_one_message_is_left(registry, http):
    assert await code_after(http, pack_batch([b"\x17"] * 21_000)) == 4001


async def test_a_registry_that_ends_says_so(registry, http):
    async with http.ws_connect("/relay") as socket:
        closing = asyncio.ensure_future(registry.aclose())
        async with asyncio.timeout(10):
            while (await socket.receive()).type not in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                pass
        assert socket.close_code == 1001
        await closing
