"""A registry's relay: nodes that wait there attach to it, and are reached through it."""

import asyncio
import contextlib
import socket

import pytest
from aiohttp import web

from kodo.p2p.core import stun
from kodo.p2p.errors import BrokenSessionError, PeerError, UnreachableError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.waiting import wait_at
from kodo.registry.server import Registry
from tests.support.records import identity, signed_record

NODE, USER = identity(1), identity(2)


async def answer(call):
    return "reached"


@contextlib.asynccontextmanager
async def waiting(registry, of=NODE):
    """Wait at a registry as a node; gives what it says of its relay."""
    told = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(wait_at(registry.url, of, told.set_result))
    try:
        async with asyncio.timeout(10):
            await asyncio.wait([told, task], return_when=asyncio.FIRST_COMPLETED)
        if not told.done():
            task.result()
        yield await told, task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_node_that_waits_is_reached_through_the_relay(client, registry):
    await client.up(signed_record(NODE))
    attached = asyncio.Event()
    async with (
        Host(NODE, WebRtcTransport()) as node,
        Host(USER, WebRtcTransport()) as user,
        waiting(registry) as (relay, _),
    ):
        node.handle(CALL_PROTOCOL, CallServer(answer))
        await node.listen(["127.0.0.1"])
        assert (relay.hosts, relay.carries) == (("127.0.0.1",), True)
        node.attach((relay.hosts[0], relay.port), relay.token, attached.set)
        await asyncio.wait_for(attached.wait(), 10)
        [address] = node.relay_addresses()
        assert address.port == registry.relay.port == int(registry.url.rpartition(":")[2])
        session = await user.connect([address])
        assert await request(session, "any") == "reached"
        [at_node] = node.sessions
        assert (session.route, at_node.route) == ("relay", "relay")


async def test_a_registry_that_relays_nothing_says_so_and_introduces(config, clock):
    config = config.model_copy(update={"relay_bytes": 0})
    async with Registry(config, clock=clock) as registry:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            await loop.sock_sendto(sock, stun.plain_request(b"t" * 12), ("127.0.0.1", registry.relay.port))
            said = await asyncio.wait_for(loop.sock_recv(sock, 2000), 10)
            message = stun.parse_message(said, stun.BINDING_SUCCESS)
            mapped = stun.read_address(message.attributes[stun.XOR_MAPPED_ADDRESS], message.transaction_id)
            assert mapped == sock.getsockname()
        assert not registry.relay.carries
        # Nodes attach there all the same, to be introduced.
        async with RegistryClient(registry.url) as client:
            await client.up(signed_record(NODE))
        attached = asyncio.Event()
        async with Host(NODE, WebRtcTransport()) as node, waiting(registry) as (relay, _):
            await node.listen(["127.0.0.1"])
            assert not relay.carries
            node.attach((relay.hosts[0], relay.port), relay.token, attached.set, None, relay.carries)
            await asyncio.wait_for(attached.wait(), 10)
            [address] = node.relay_addresses()
            assert address.port == registry.relay.port


async def test_who_may_not_wait_learns_why_and_gets_no_token(registry):
    with pytest.raises(BrokenSessionError, match="no-such-node"):
        async with waiting(registry):
            pass
    assert registry.relay.core.attached == 0


async def test_a_registry_whose_udp_port_is_taken_does_all_else(config, clock, caplog):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        config = config.model_copy(update={"port": taken.getsockname()[1]})
        async with Registry(config, clock=clock) as registry:
            assert registry.relay is None
            assert "relayed" in caplog.text
            with pytest.raises(BrokenSessionError):
                async with waiting(registry):
                    pass


async def test_a_registry_that_ends_says_so_to_who_waits(client, registry):
    await client.up(signed_record(NODE))
    async with waiting(registry) as (_, task):
        await registry.aclose()
        with pytest.raises(BrokenSessionError, match="closing"):
            await asyncio.wait_for(task, 10)
    with pytest.raises(UnreachableError):
        await wait_at("http://127.0.0.1:9", NODE, lambda relay: None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_registry_leads_who_waits_to_no_other_address(status):
    asked = []

    async def lead(request):
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere?made=up"})

    app = web.Application()
    app.router.add_get("/{any:.*}", lead)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        [(host, port)] = runner.addresses
        with pytest.raises(PeerError, match="leads to another address"):
            await wait_at(f"http://{host}:{port}", NODE, lambda relay: None)
    finally:
        await runner.cleanup()
    assert asked == ["/rendezvous"]
