"""Nodes on the local network by real mDNS: seen, several at once, updated, withdrawn."""

from __future__ import annotations

import asyncio
import contextlib

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.discovery import Advertisement, Advertiser, Browser, find
from kodo.p2p.net.host import Host
from kodo.p2p.net.identify import ping
from kodo.p2p.net.interfaces import local_addresses


def advertisement(number: int, name: str = "twin.example", flows: int = 1) -> Advertisement:
    peer = Identity.from_seed(number.to_bytes(32, "big")).peer_id
    hosts = [*local_addresses(4)[:1], "::1"]
    addresses = tuple(Multiaddr.webrtc_direct(host, 40000 + number, bytes(32), peer) for host in hosts)
    return Advertisement(str(peer), name, flows, addresses)


async def wait_for(browser: Browser, wanted: set[Advertisement]) -> None:
    async for nodes in browser.changes():
        if wanted <= set(nodes):
            return


async def test_several_nodes_of_one_name_are_seen_with_all_their_addresses() -> None:
    nodes = {advertisement(number) for number in range(3)}
    async with asyncio.timeout(20), contextlib.AsyncExitStack() as stack:
        browser = await stack.enter_async_context(Browser())
        for node in nodes:
            await stack.enter_async_context(Advertiser(lambda node=node: node))
        await wait_for(browser, nodes)


async def test_a_node_that_leaves_is_withdrawn() -> None:
    node = advertisement(7)
    async with asyncio.timeout(20), Browser() as browser:
        async with Advertiser(lambda: node):
            await wait_for(browser, {node})
        async for nodes in browser.changes():
            if node not in nodes:
                break


async def test_a_node_that_is_asked_for_itself_answers() -> None:
    node = advertisement(9)
    async with asyncio.timeout(20), Advertiser(lambda: node), Browser() as browser:
        browser._browser = await silent(browser)
        browser.ask_for(node.peer_id)
        await wait_for(browser, {node})


async def silent(browser: Browser) -> None:
    """End the questions to everybody, so that what is heard then is the answer to another."""
    if browser._browser is not None:
        await browser._browser.async_cancel()


async def test_what_a_node_says_anew_replaces_what_it_said() -> None:
    current = advertisement(8, flows=1)
    async with asyncio.timeout(20), Browser() as browser, Advertiser(lambda: current) as advertiser:
        await wait_for(browser, {current})
        current = advertisement(8, flows=5)
        await advertiser.refresh()
        await wait_for(browser, {current})


async def test_a_node_found_by_its_name_can_be_dialled() -> None:
    identity = Identity.from_seed(b"n" * 32)
    async with asyncio.timeout(30), Host(identity, WebRtcTransport()) as node:
        await node.listen()

        def current() -> Advertisement:
            return Advertisement(str(node.peer_id), "found.example", 0, tuple(node.addresses()))

        async with Advertiser(current), Host(Identity.from_seed(b"u" * 32), WebRtcTransport()) as user:
            found = await find(lambda each: each.name == "found.example", timeout=10)
            assert found is not None
            session = await user.connect(found.addresses)
            assert session.remote_peer == node.peer_id
            assert await ping(session) > 0


async def test_nobody_found_is_none_after_the_time_given() -> None:
    assert await find(lambda each: False, timeout=0.3) is None
