"""Relays: what a node attaches to, whatever becomes of its connections to registries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from kodo.node.catalog.relays import Address, Relays
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import BrokenSessionError, UnreachableError
from kodo.p2p.net.leg import Carrier
from kodo.registry.client.waiting import OfferedRelay
from kodo.registry.rendezvous import ReplacedError
from tests.unit.node.conftest import StillClock, settled

IDENTITY = Identity.from_seed(bytes(range(32)))
URL = "https://registry.example.com"
PUBLIC = ("192.0.2.7", "2001:db8::7")


def offered(*hosts: str, token: str = "t" * 32, carries: bool = True) -> OfferedRelay:
    return OfferedRelay(hosts, 8360, token, carries)


class Stage:
    """A host that keeps what it is attached to, and registries whose connections end when the test says so."""

    def __init__(self, clock: StillClock, *urls: str) -> None:
        self.clock, self.urls = clock, urls
        self.attached: dict[Address, str] = {}
        self.carriers: dict[Address, str] = {}
        self.introducers: dict[Address, bool] = {}
        self.taken = asyncio.Event()
        self.taken.set()
        self.changes = 0
        self.waits: list[str] = []
        self.offer: OfferedRelay | None = offered(*PUBLIC)
        self.ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def attach(
        self, relay: Address, token: str, changed: Callable[[], None], carrier: Carrier | None, carries: bool, /
    ) -> None:
        self.attached[relay] = token
        self.introducers[relay] = not carries
        if carrier is not None:
            self.carriers[relay] = carrier.host

    def detach(self, relay: Address, /) -> None:
        self.attached.pop(relay, None)

    def _changed(self) -> None:
        self.changes += 1

    async def _taken(self, url: str) -> None:
        await self.taken.wait()

    async def _wait(self, url: str, identity: Identity, told: Callable[[OfferedRelay | None], None]) -> None:
        self.waits.append(url)
        told(self.offer)
        await self.ends

    def open(self) -> Relays:
        return Relays(
            IDENTITY, self.urls, self, self._taken, self._changed, self.clock, chance=lambda: 1.0, wait=self._wait
        )

    async def end(self, error: Exception) -> None:
        """End the connection, and wait until the node has waited for long enough to come again."""
        ends, self.ends = self.ends, asyncio.get_running_loop().create_future()
        ends.set_exception(error)
        await settled(lambda: self.clock.asleep_for(0.5))


async def test_it_attaches_at_every_address_of_a_registrys_relay(clock: StillClock) -> None:
    stage = Stage(clock, URL)
    async with stage.open():
        await settled(lambda: stage.attached)
        assert stage.attached == {(host, 8360): "t" * 32 for host in PUBLIC}
    assert stage.waits == [URL]


@pytest.mark.parametrize(
    "offer",
    [None, offered("127.0.0.1", "::1", "fe80::1")],
    ids=["no relay", "one on this machine"],
)
async def test_it_attaches_to_nothing_that_brings_nobody(clock: StillClock, offer: OfferedRelay | None) -> None:
    stage = Stage(clock, URL)
    stage.offer = offer
    async with stage.open():
        await settled(lambda: stage.waits)
        assert (stage.waits, stage.attached) == ([URL], {})


async def test_it_attaches_by_udp_alone_where_a_relay_only_introduces(clock: StillClock) -> None:
    stage = Stage(clock, URL)
    stage.offer = offered(PUBLIC[0], carries=False)
    async with stage.open():
        await settled(lambda: stage.attached)
        assert (stage.introducers, stage.carriers) == ({(PUBLIC[0], 8360): True}, {})


@pytest.mark.parametrize("url", ["http://127.0.0.1:8360", "http://localhost:8360", "http://[::1]:8360"])
async def test_a_registry_on_this_machine_is_left_out(clock: StillClock, url: str) -> None:
    stage = Stage(clock, url)
    async with stage.open():
        await asyncio.sleep(0)
        assert stage.waits == []


async def test_it_waits_nowhere_before_its_record_is_taken(clock: StillClock) -> None:
    stage = Stage(clock, URL)
    stage.taken.clear()
    async with stage.open():
        await asyncio.sleep(0)
        assert stage.waits == []
        stage.taken.set()
        await settled(lambda: stage.waits)


@pytest.mark.parametrize("error", [BrokenSessionError("gone"), UnreachableError("away"), OSError(113, "no route")])
async def test_it_stays_attached_when_the_connection_ends_and_renews_its_token(
    clock: StillClock, error: Exception
) -> None:
    stage = Stage(clock, URL)
    async with stage.open():
        await settled(lambda: stage.attached)
        stage.offer = offered(*PUBLIC, token="n" * 32)
        await stage.end(error)
        assert set(stage.attached.values()) == {"t" * 32}
        clock.advance(0.5)
        await settled(lambda: len(stage.waits) == 2)
        assert set(stage.attached.values()) == {"n" * 32}
        # Another address: the one before is left.
        stage.offer = offered("192.0.2.8")
        await stage.end(error)
        clock.advance(0.5)
        await settled(lambda: len(stage.waits) == 3)
        assert set(stage.attached) == {("192.0.2.8", 8360)}
        assert stage.changes == 2


async def test_by_a_connection_it_attaches_once_where_the_registry_has_answered(clock: StillClock) -> None:
    stage = Stage(clock, URL)
    async with stage.open():
        await settled(lambda: stage.attached)
        assert set(stage.attached) == {(host, 8360) for host in PUBLIC}
        assert stage.carriers == {(PUBLIC[0], 8360): "registry.example.com"}


async def test_one_that_another_with_its_key_replaces_asks_whose_record_stands_and_comes_back_less_and_less(
    clock: StillClock,
) -> None:
    stage = Stage(clock, URL)
    async with stage.open():
        await settled(lambda: stage.attached)
        changes = stage.changes
        for pause in (0.5, 1.0, 2.0):
            ends, stage.ends = stage.ends, asyncio.get_running_loop().create_future()
            ends.set_exception(ReplacedError("replaced"))
            await settled(lambda pause=pause: clock.asleep_for(pause))
            changes += 1
            assert stage.changes == changes
            waits = len(stage.waits)
            clock.advance(pause)
            await settled(lambda waits=waits: len(stage.waits) == waits + 1)
