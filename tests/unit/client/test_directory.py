"""A node that is where it was last is used at once; else it is looked for, and nobody takes its place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from kodo.client import directory as directory_module
from kodo.client.directory import Directory
from kodo.client.known_addresses import KnownAddresses
from kodo.client.known_nodes import KnownNodes
from kodo.client.peer import RemoteNode
from kodo.client.resolve import Found, Target, Wanted
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import IdentityError, UnreachableError
from kodo.p2p.net.host import Host
from kodo.p2p.net.memory import MemoryTransport
from kodo.p2p.net.transport import Limits, Link
from kodo.settings.client import ClientSettings
from tests.support.world import World

NAME = "n.example"
SILENT = "10.9.9.9"
"""A host that never answers."""


class Way(MemoryTransport):
    """A transport by which hosts are on one local network, and one of them is silent, or `slow` until it is set."""

    slow: asyncio.Event | None = None

    async def dial(self, addresses: Sequence[Multiaddr], identity: Identity, limits: Limits) -> Link:
        heard = [address for address in addresses if address.host != SILENT]
        if not heard:
            await asyncio.Event().wait()
        if self.slow is not None:
            await self.slow.wait()
        link = await super().dial(heard, identity, limits)
        link.route = "lan"
        return link


class Home:
    """A user's home, and what finds nodes from it."""

    def __init__(self, folder: Path, world: World, host: Host, way: Way):
        self.world, self.host, self.way = world, host, way
        self.known = KnownNodes(folder / "known_nodes")
        self.places = KnownAddresses(folder / "known_addresses")
        settings = ClientSettings()
        self.directory = Directory(folder, settings, self.known, self.make, [world.place], self.places)

    def make(self, target: Target) -> RemoteNode:
        return RemoteNode(target, self.host, self.directory.everywhere, self.known, timeout=60, places=self.places)

    def was_at(self, *hosts: str) -> None:
        """Note that the node, whose name is pinned, was last at these hosts."""
        self.known.pin(NAME, self.world.host.peer_id)
        self.places.remember(self.world.host.peer_id, [self.address(host) for host in hosts])

    def address(self, host: str) -> Multiaddr:
        [there] = self.world.host.addresses()
        return Multiaddr.parse(str(there).replace(there.host, host))


@pytest.fixture
async def home(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Home]:
    monkeypatch.setattr(directory_module, "HEAD_START_SECONDS", 0.01)
    monkeypatch.setattr(directory_module, "DIAL_SECONDS", 3600.0)
    way = Way(world.network)
    async with Host(Identity.from_seed(b"u" * 32), way) as host:
        yield Home(tmp_path, world, host, way)


@pytest.mark.parametrize("by", ["name", "peer id"])
async def test_a_node_that_is_where_it_was_is_not_looked_for(by: str, home: Home) -> None:
    home.was_at("10.0.0.1")
    remote = await home.directory.node(NAME if by == "name" else str(home.world.host.peer_id))
    assert (remote.connected, home.world.place.asked) == (True, 0)


@pytest.mark.parametrize("where", [["10.0.0.99"], [SILENT]], ids=["nobody is there", "silence"])
async def test_a_node_that_moved_is_found_while_it_is_dialled_where_it_was(where: Sequence[str], home: Home) -> None:
    home.was_at(*where)
    remote = await home.directory.node(NAME)
    await remote.request("flow.list")
    assert home.world.place.asked == 1
    assert home.places.get(remote.peer_id) == (home.address("10.0.0.1"),)


async def test_a_node_that_is_slow_to_answer_where_it_was_is_waited_for(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.was_at("10.0.0.1")
    slow = home.way.slow = asyncio.Event()
    find = home.world.place.find

    async def look(wanted: Wanted | None) -> list[Found]:
        asyncio.get_running_loop().call_later(0.01, slow.set)
        return await find(wanted)

    monkeypatch.setattr(home.world.place, "find", look)
    assert (await home.directory.node(NAME)).connected
    assert home.world.place.asked == 1


async def test_who_took_a_nodes_address_gets_nothing(home: Home) -> None:
    async with home.world.stranger(7, "other", lambda request: pytest.fail("it was asked")):
        home.was_at("10.0.1.7")
        assert (await home.directory.node(NAME)).peer_id == home.world.host.peer_id


async def test_who_took_the_name_of_a_node_that_is_gone_is_refused(home: Home) -> None:
    home.was_at("10.0.0.99")
    stranger = Identity.from_seed(b"s" * 32).peer_id
    home.world.place.found = [Found(stranger, NAME, (home.address("10.0.0.1"),), "lan")]
    with pytest.raises(IdentityError):
        await home.directory.node(NAME)


async def test_a_node_that_is_gone_is_told_of_by_its_name(home: Home) -> None:
    home.was_at("10.0.0.99")
    home.world.place.found = []
    with pytest.raises(UnreachableError, match=NAME):
        await home.directory.node(NAME)


async def test_a_search_that_is_cancelled_leaves_nothing_behind(home: Home) -> None:
    home.was_at(SILENT)
    before = asyncio.all_tasks()
    finding = asyncio.ensure_future(home.directory.node(NAME))
    await asyncio.sleep(0)
    finding.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await finding
    assert asyncio.all_tasks() <= before


async def test_where_a_node_is_is_remembered_once_its_name_is_pinned(home: Home) -> None:
    [row] = await home.directory.nodes()
    assert home.places.all() == {}
    await (await home.directory.node(NAME)).request("flow.list")
    assert {str(peer): [str(each) for each in where] for peer, where in home.places.all().items()} == {
        row["peer_id"]: row["addrs"]
    }


async def test_where_a_node_without_a_name_is_is_not_remembered(home: Home) -> None:
    await (await home.directory.node(str(home.world.host.peer_id))).request("flow.list")
    assert home.places.all() == {}
