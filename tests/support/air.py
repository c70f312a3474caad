"""UDP without sockets, for tests in virtual time: hosts that move, NATs that forget, packets from anybody.

Only the sockets are made up: listeners, diallers and links above them are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from kodo.p2p.core.joined import Joined
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net import checks, dialler, listener, relay, udp
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.endpoint import Source
from kodo.p2p.net.host import Host
from kodo.p2p.net.leg import Carrier
from kodo.p2p.net.transport import Punch
from tests.support.peers import CLIENT, SERVER

__all__ = ["NODE", "PORT", "USER", "Air", "AirEndpoint", "air_pair"]

NODE, PORT, USER = "192.0.2.1", 4711, "198.51.100.1"
Address = tuple[str, int]


class Air:
    """What carries packets.

    Attributes:
        delay_s: one way.
        home: where diallers' sockets are; another address is another network.
        nat: whether what diallers send goes from a port that a NAT has chosen.
        blocked: addresses to which nothing gets.
        drop: sees each packet, where it seems to come from, and where it goes; what it says yes to is dropped.
        received: bytes that each address was sent.
        opened: addresses towards which a packet went that passes a few routers only.
    """

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.home = USER
        self.nat = False
        self.blocked: set[str] = set()
        self.drop: Callable[[bytes, Address, Address], bool] = lambda data, source, to: False
        self.received: Counter[Address] = Counter()
        self.opened: set[Address] = set()
        self.there: dict[Address, AirEndpoint] = {}
        self._inner: dict[Address, int] = {}
        self._outer: dict[int, Address] = {}
        self._order = 0.0
        self._ports = iter(range(20_000, 60_000))

    def free_port(self) -> int:
        return next(self._ports)

    def rebind(self) -> None:
        """Have the NAT forget everybody."""
        self._inner.clear()
        self._outer.clear()

    def seen(self, endpoint: AirEndpoint) -> Address:
        """Return where an endpoint's packets seem to come from."""
        if endpoint.host:
            return endpoint.host, endpoint.port
        if not self.nat:
            return self.home, endpoint.port
        if endpoint.port not in self._outer:
            self._outer[endpoint.port] = (self.home, self.free_port())
            self._inner[self._outer[endpoint.port]] = endpoint.port
        return self._outer[endpoint.port]

    def carry(self, data: bytes, source: Address, to: Address) -> None:
        """Carry one packet, from whomever it seems to be."""
        self.received[to] += len(data)
        if to[0] not in self.blocked and source[0] not in self.blocked and not self.drop(data, source, to):
            # In their order: a loop's timers of one time have none.
            self._order += 1e-9
            asyncio.get_running_loop().call_later(self.delay_s + self._order, self._arrive, data, source, to)

    def _arrive(self, data: bytes, source: Address, to: Address) -> None:
        endpoint = self.there.get(to)
        if endpoint is None:
            port = self._inner.get(to) if self.nat else to[1] if to[0] == self.home else None
            endpoint = self.there.get(("", port)) if port is not None else None
        if endpoint is not None:
            endpoint.received(data, Source(source[0], source[1], endpoint.local_of(to)))
            endpoint.batch_ended()


class AirSocket:
    """Stands for a socket until an endpoint takes it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port


class AirEndpoint:
    """Stands for `endpoint.Endpoint`."""

    def __init__(self, air: Air, sock: AirSocket, received: Any, batch_ended: Any, failed: Any = None) -> None:
        self.air, self.host, self.port = air, sock.host, sock.port or air.free_port()
        self.received, self.batch_ended, self.failed = received, batch_ended, failed
        self.address = Source(self.host, self.port)
        air.there[self.host, self.port] = self

    def local_of(self, to: Address) -> str:
        return to[0] if self.host else ""

    def send(self, datagrams: Sequence[bytes], to: Source) -> None:
        source = self.air.seen(self)
        for datagram in datagrams:
            self.air.carry(datagram, (to.local or source[0], source[1]), (to.host, to.port))

    send_split = send

    def send_joined(self, pieces: Sequence[Joined], to: Source) -> None:
        self.send([data for piece in pieces for data in piece.datagrams()], to)

    def send_near(self, datagram: bytes, to: Source, hops: int) -> None:
        assert len(datagram) == 20
        assert hops < 5
        self.air.opened.add((to.host, to.port))

    def send_whole(self, datagram: bytes, to: Source) -> bool:
        self.send([datagram], to)
        return True

    def close(self) -> None:
        self.air.there.pop((self.host, self.port), None)


async def _answer(request: Request) -> None:
    """Read what is uploaded if `reads`, then send `n` items of `size` bytes, one every `every` seconds."""
    if request.args.get("reads"):
        async for _ in request.uploads():
            pass
    for number in range(request.args["n"]):
        await request.send(number.to_bytes(4, "big") + bytes(request.args.get("size", 0)))
        if every := request.args.get("every"):
            await asyncio.sleep(every)


@contextlib.asynccontextmanager
async def air_pair(
    patch: pytest.MonkeyPatch,
    *,
    delay_s: float = 0.02,
    punch: Punch = "never",
    admits: Callable[[str | None], bool] = lambda host: True,
    carriers: Sequence[Carrier] = (),
) -> AsyncIterator[tuple[Air, Host, Host, Multiaddr]]:
    """Make a node that listens and a user, who may move; gives both hosts and the node's address."""
    air = Air(delay_s)
    patch.setattr(udp, "bind", AirSocket)
    patch.setattr(udp, "unconnected", lambda family: AirSocket("", 0))
    for module in (checks, dialler, listener, relay):
        patch.setattr(module, "Endpoint", lambda *args, **named: AirEndpoint(air, *args))
    # A machine with no network but the one that the user is in.
    patch.setattr("kodo.p2p.net.direct.local_networks", list)
    transport = WebRtcTransport(punch=punch, admits=admits)
    async with Host(SERVER, transport) as node, Host(CLIENT, WebRtcTransport(carriers=carriers)) as user:
        node.handle(CALL_PROTOCOL, CallServer(_answer))
        [address] = await node.listen([NODE], PORT)
        yield air, node, user, address
