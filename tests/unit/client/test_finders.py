"""The node that runs from this home, as its note tells of it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kodo.client import finders
from kodo.client.finders import HomeFinder, LanFinder, read_home_node
from kodo.client.resolve import Found, Wanted
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.discovery import Advertisement
from tests.support.virtual_time import run_virtual

PEER = Identity.from_seed(bytes(32)).peer_id
ADDRESS = Multiaddr.webrtc_direct("127.0.0.1", 4711, bytes(32)).with_peer(PEER)


def advertised(number: int, name: str = "n") -> Advertisement:
    peer = Identity.from_seed(bytes([number]) * 32).peer_id
    return Advertisement(str(peer), name, 1, (Multiaddr.webrtc_direct("192.0.2.7", 4711, bytes(32)).with_peer(peer),))


class Network:
    """A local network; each of its browsers hears `known` at once, and what `say` tells from then on."""

    def __init__(self, *known: Advertisement) -> None:
        self.known = list(known)
        self.opened: list[Listener] = []

    def browse(self) -> Any:
        self.opened.append(Listener(self))
        return self.opened[-1]

    @property
    def open(self) -> int:
        return sum(each.open for each in self.opened)


class Listener:
    """A browser of such a network."""

    def __init__(self, network: Network):
        self.network = network
        self.heard: list[Advertisement] = []
        self.asked: list[str] = []
        self.waits = 0
        self.open = False
        self.second: Advertisement | None = None
        """Who is heard while somebody waits for more."""

    async def __aenter__(self) -> Listener:
        self.open = True
        self.heard = list(self.network.known)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.open = False

    def ask_for(self, peer_id: str) -> None:
        self.asked.append(peer_id)

    def nodes(self) -> list[Advertisement]:
        return list(self.heard)

    async def changes(self) -> AsyncIterator[list[Advertisement]]:
        yield self.nodes()
        self.waits += 1
        if self.second is not None:
            self.heard.append(self.second)
            yield self.nodes()
        await asyncio.Event().wait()


def claimed(found: list[Found]) -> list[str]:
    return [str(each.peer_id) for each in found]


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finders, "SECOND_CLAIM_SECONDS", 0.001)


def pin(node: Advertisement) -> Wanted:
    return Wanted(name=node.name, pinned=PeerId.parse(node.peer_id))


async def test_a_pinned_name_waits_for_nobody_else() -> None:
    network = Network(advertised(1), advertised(2, "other"))
    finder = LanFinder(60, browse=network.browse)
    for _ in range(3):
        assert claimed(await finder.find(pin(advertised(1)))) == [advertised(1).peer_id]
    assert [each.waits for each in network.opened] == [0]


async def test_a_pinned_node_is_asked_itself() -> None:
    network = Network(advertised(1))
    await LanFinder(60, browse=network.browse).find(pin(advertised(1)))
    assert network.opened[0].asked == [advertised(1).peer_id]


async def test_one_browser_listens_for_names_until_the_finder_is_closed(instant: None) -> None:
    network = Network(advertised(1), advertised(2, "other"))
    finder = LanFinder(60, browse=network.browse)
    for name in ("n", "other", "n"):
        assert len(await finder.find(Wanted(name=name))) == 1
    assert (len(network.opened), network.open) == (1, 1)
    await finder.aclose()
    assert network.open == 0


@pytest.mark.parametrize("wanted", [Wanted(name="n"), pin(advertised(2))], ids=["new", "pinned to who is silent"])
async def test_a_second_claimant_of_a_name_is_listened_for(wanted: Wanted, instant: None) -> None:
    network = Network(advertised(1))
    finder = LanFinder(60, browse=network.browse)
    await finder.find(pin(advertised(1)))
    network.opened[0].second = advertised(2)
    network.known.append(advertised(2))
    both = {advertised(1).peer_id, advertised(2).peer_id}
    assert set(claimed(await finder.find(wanted))) == both


async def test_a_claim_of_a_node_that_left_without_a_word_does_not_count(instant: None) -> None:
    network = Network(advertised(1))
    finder = LanFinder(60, browse=network.browse)
    await finder.find(Wanted(name="n"))
    network.known[:] = [advertised(2)]
    network.opened[0].second = advertised(2)
    assert claimed(await finder.find(Wanted(name="n"))) == [advertised(2).peer_id]


async def test_a_node_that_moved_is_looked_for_anew() -> None:
    network = Network(advertised(1))
    finder = LanFinder(60, browse=network.browse)
    for _ in range(2):
        await finder.find(Wanted(peer_id=PeerId.parse(advertised(1).peer_id)))
    assert (len(network.opened), network.open) == (2, 0)


async def test_a_glance_ends_once_all_are_there_who_are_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finders, "GLANCE_SECONDS", 0)
    network = Network(advertised(1), advertised(2))
    expected = [PeerId.parse(advertised(1).peer_id)]
    glance = LanFinder(3600, browse=network.browse).glance(lambda: expected)
    assert set(claimed(await glance.find(None))) == {advertised(1).peer_id, advertised(2).peer_id}


@pytest.mark.parametrize("expected", [[], [3]], ids=["nobody is", "somebody is not there"])
async def test_a_glance_looks_around_as_long_as_ever_where(
    expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finders, "GLANCE_SECONDS", 0)
    network = Network(advertised(1))
    peers = [PeerId.parse(advertised(each).peer_id) for each in expected]
    glance = asyncio.ensure_future(LanFinder(0.05, browse=network.browse).glance(lambda: peers).find(None))
    started = asyncio.get_running_loop().time()
    assert claimed(await glance) == [advertised(1).peer_id]
    assert asyncio.get_running_loop().time() - started >= 0.05


class Slow(Network):
    """One on which the first is heard after a second, and the second 0.4 s later."""

    def browse(self) -> Any:
        listener = super().browse()
        loop = asyncio.get_running_loop()

        async def changes() -> AsyncIterator[list[Advertisement]]:
            for _ in range(2):
                await asyncio.sleep(1)
                yield listener.nodes()

        listener.changes = changes
        loop.call_later(1.0, lambda: listener.heard.append(advertised(1)))
        loop.call_later(1.4, lambda: listener.heard.append(advertised(2)))
        return listener

    def __init__(self) -> None:
        super().__init__()


def test_a_glance_is_longer_where_those_who_are_expected_were_slow() -> None:
    async def look() -> None:
        network = Slow()
        glance = LanFinder(60, browse=network.browse).glance(lambda: [PeerId.parse(advertised(1).peer_id)])
        assert set(claimed(await glance.find(None))) == {advertised(1).peer_id, advertised(2).peer_id}

    run_virtual(look())


def note(home: Path, **changes: object) -> None:
    value = {"pid": os.getpid(), "peer_id": str(PEER), "name": "n", "addrs": [str(ADDRESS)], **changes}
    (home / "node.json").write_text(json.dumps(value))


async def test_a_running_node_is_found_at_its_addresses(tmp_path: Path) -> None:
    note(tmp_path)
    [found] = await HomeFinder(tmp_path).find(None)
    assert (found.peer_id, found.name, found.addresses, found.source) == (PEER, "n", (ADDRESS,), "home")


async def test_without_a_note_nothing_is_found(tmp_path: Path) -> None:
    assert await HomeFinder(tmp_path).find(None) == []


def test_a_note_of_a_process_that_is_gone_counts_as_none(tmp_path: Path) -> None:
    process = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(process, 0)
    note(tmp_path, pid=process)
    assert read_home_node(tmp_path) is None


@pytest.mark.parametrize("changes", [{"peer_id": "x"}, {"addrs": ["/ip4/x"]}, {"addrs": 3}])
async def test_a_damaged_note_is_passed_over(tmp_path: Path, changes: dict[str, object]) -> None:
    note(tmp_path, **changes)
    assert await HomeFinder(tmp_path).find(None) == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"pid": "x"}'])
def test_a_note_that_is_no_map_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_text(text)
    assert read_home_node(tmp_path) is None
