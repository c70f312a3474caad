"""Sessions over real networks: whoever moves, whatever address is dialled, whatever the path does to long packets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.lab import Lab, lab, needs_root

pytestmark = needs_root


@pytest.fixture
def net() -> Iterator[Lab]:
    """A user with two networks and a node, each wire to one router."""
    with lab() as made:
        made.host("user")
        made.host("node")
        made.host("router", forwards=True)
        made.wire("router", "node")
        made.address("router", "node", "10.3.0.1/24", "fd00:3::1/64")
        made.address("node", "router", "10.3.0.2/24", "10.3.0.3/24", "fd00:3::2/64", "fd00:3::3/64")
        made.route("node", "10.3.0.1")
        made.route("node", "fd00:3::1")
        made.wire("router", "user")
        made.address("router", "user", "10.1.0.1/24", "fd00:1::1/64")
        made.address("user", "router", "10.1.0.2/24", "fd00:1::2/64")
        made.route("user", "10.1.0.1")
        made.route("user", "fd00:1::1")
        yield made


def at(addresses: list[str], host: str) -> str:
    [found] = [address for address in addresses if f"/{host}/" in address]
    return found


@pytest.mark.parametrize("host", ["10.3.0.2", "10.3.0.3", "fd00:3::2", "fd00:3::3"])
async def test_a_node_answers_from_whichever_of_its_addresses_was_dialled(net: Lab, host: str) -> None:
    async with net.program("node", "serve") as node:
        address = at(await node.says(), host)
        async with net.program("user", "fetch", "100000", address) as user:
            assert await user.says() == {"connected": host}
            told = await user.says()
    assert (told["bytes"], told["error"], told["at"]) == (100_000, None, host)


@pytest.mark.parametrize("first", ["10.3.0.2", "fd00:3::2"])
async def test_a_stream_goes_on_when_the_user_changes_networks(net: Lab, first: str) -> None:
    net.host("roof", forwards=True)
    net.wire("roof", "router")
    net.address("roof", "router", "10.9.0.2/24", "fd00:9::2/64")
    net.address("router", "roof", "10.9.0.1/24", "fd00:9::1/64")
    net.route("roof", "10.9.0.1")
    net.route("roof", "fd00:9::1")
    net.wire("roof", "user")
    net.address("roof", "user", "10.2.0.1/24", "fd00:2::1/64")
    net.ip("router", "route", "add", "10.2.0.0/24", "via", "10.9.0.2")
    net.ip("router", "-6", "route", "add", "fd00:2::/64", "via", "fd00:9::2")
    async with net.program("node", "serve") as node:
        address = at(await node.says(), first)
        async with net.program("user", "follow", "3", address) as user:
            await user.says()
            await asyncio.sleep(1)
            # As a laptop does that leaves its dock: the old network is gone before the new one is there.
            net.ip("user", "link", "set", "router", "down")
            await asyncio.sleep(0.1)
            net.address("user", "roof", "10.2.0.2/24", "fd00:2::2/64")
            net.route("user", "10.2.0.1")
            net.route("user", "fd00:2::1")
            told = await user.says()
    assert (told["error"], told["closed"]) == (None, False)
    print("longest gap", told["longest_gap_ms"], "ms")
    assert told["items"] > 60


async def test_a_session_goes_on_at_another_address_of_the_node_when_one_goes(net: Lab) -> None:
    async with net.program("node", "serve") as node:
        tried = [each for each in await node.says() if "/10.3.0." in each]
        async with net.program("user", "follow", "5", *tried) as user:
            used = (await user.says())["connected"]
            await asyncio.sleep(1)
            net.ip("node", "addr", "del", f"{used}/24", "dev", "router")
            if used == "10.3.0.2":  # the first address takes those after it in its network along
                net.set("node", "net.ipv4.conf.all.promote_secondaries", 1)
                net.ip("node", "addr", "replace", "10.3.0.3/24", "dev", "router")
                net.route("node", "10.3.0.1")
            told = await user.says()
    assert (told["error"], told["closed"]) == (None, False)
    assert told["at"] != used
    print("longest gap", told["longest_gap_ms"], "ms")


async def test_a_download_goes_on_over_a_path_that_silently_carries_less(net: Lab) -> None:
    # The router does not say that a packet is too long: what it would say to the node finds no way.
    net.ip("router", "rule", "add", "iif", "lo", "to", "10.3.0.0/24", "blackhole")
    async with net.program("node", "serve-singly") as node:
        address = at(await node.says(), "10.3.0.2")
        async with net.program("user", "fetch", "40000000", address) as user:
            await user.says()
            await asyncio.sleep(0.5)
            net.ip("router", "link", "set", "user", "mtu", "1300")
            told = await user.says()
    assert (told["bytes"], told["error"]) == (40_000_000, None)
    print("longest gap", told["longest_gap_ms"], "ms")
