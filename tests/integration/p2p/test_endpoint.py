"""The UDP endpoint on real sockets: batches both ways, with and without the kernel's help."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest

from kodo.p2p.core.joined import Joined
from kodo.p2p.net import udp
from kodo.p2p.net.endpoint import Endpoint, Source
from tests.support.lab import needs_root


class Collector:
    """Keeps what arrives and counts the batches."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.sources: set[Source] = set()
        self.batches = 0
        self.errors: list[tuple[OSError, Source | None]] = []
        self._arrived = asyncio.Event()

    def received(self, data: bytes, source: Source) -> None:
        self.datagrams.append(data)
        self.sources.add(source)
        self._arrived.set()

    def batch_ended(self) -> None:
        self.batches += 1
        self._arrived.set()

    def failed(self, error: OSError, to: Source | None) -> None:
        self.errors.append((error, to))
        self._arrived.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.datagrams) < count and not self.errors:
                self._arrived.clear()
                await self._arrived.wait()


@contextlib.contextmanager
def listening(host: str) -> Iterator[tuple[Endpoint, Collector]]:
    collector = Collector()
    endpoint = Endpoint(udp.bind(host, 0), collector.received, collector.batch_ended)
    try:
        yield endpoint, collector
    finally:
        endpoint.close()


@contextlib.contextmanager
def unconnected(host: str) -> Iterator[tuple[Endpoint, Collector]]:
    collector = Collector()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    endpoint = Endpoint(udp.unconnected(family), collector.received, collector.batch_ended, collector.failed)
    try:
        yield endpoint, collector
    finally:
        endpoint.close()


SIZES = {
    "equal": [1200] * 200,
    "one": [1],
    "last is shorter": [1200] * 70 + [7],
    "mixed": [1200, 1200, 50, 1200, 1300, 1300, 1, 1, 1200],
    "large": [9000] * 20,
}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("offload", [True, False])
async def test_a_batch_arrives_datagram_by_datagram(host: str, sizes: list[int], offload: bool) -> None:
    sent = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    with listening(host) as (server, at_server), unconnected(host) as (client, at_client):
        if not offload:
            server._gso = server._gro = client._gso = client._gro = False
        client.send(sent, server.address)
        await at_server.until(len(sent))
        assert at_server.datagrams == sent
        assert at_server.sources == {Source(host, client.address.port)}
        server.send(sent, Source(host, client.address.port))
        await at_client.until(len(sent))
        assert at_client.datagrams == sent


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
async def test_what_the_kernel_has_joined_is_given_as_it_is_to_who_wants_that(sizes: list[int]) -> None:
    sent = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    collector = Collector()

    def received_block(block: bytes, size: int, source: Source) -> None:
        for begin in range(0, len(block), size):
            collector.received(block[begin : begin + size], source)

    server = Endpoint(
        udp.bind("127.0.0.1", 0), collector.received, collector.batch_ended, received_block=received_block
    )
    with contextlib.closing(server), unconnected("127.0.0.1") as (client, _):
        client.send(sent, server.address)
        await collector.until(len(sent))
    assert collector.datagrams == sent


@pytest.mark.parametrize("cuts", [True, False], ids=["the kernel cuts", "the kernel cuts nothing"])
async def test_what_is_joined_already_arrives_as_its_datagrams(cuts: bool) -> None:
    pieces = [
        Joined(b"a" * 3000, 1000),
        Joined(b"b" * 500, 500),
        Joined(b"c" * 2500, 1200),
        Joined(b"d" * 64_000, 1000),
    ]
    sent = [data for piece in pieces for data in piece.datagrams()]
    with listening("127.0.0.1") as (server, at_server), unconnected("127.0.0.1") as (client, _):
        client._gso = client._gso and cuts
        client.send_joined(pieces, server.address)
        await at_server.until(len(sent))
    assert at_server.datagrams == sent


async def test_many_datagrams_come_in_few_batches() -> None:
    with listening("127.0.0.1") as (server, at_server), unconnected("127.0.0.1") as (client, _):
        client.send([bytes(1200)] * 50, server.address)
        await at_server.until(50)
        assert at_server.batches <= 5


async def test_a_port_where_nobody_listens_is_told() -> None:
    with listening("127.0.0.1") as (server, _):
        address = server.address
    with unconnected("127.0.0.1") as (client, at_client), listening("127.0.0.1") as (other, at_other):
        client.send([b"hello?"], address)
        await at_client.until(1)
        [(error, to)] = at_client.errors
        assert isinstance(error, ConnectionRefusedError)
        assert to == address
        client.send([b"hello?"], address)
        client.send([b"hello"], other.address)
        await at_other.until(1)  # what went wrong before is not what goes to another


@pytest.mark.parametrize("to", [("127.0.0.1", 0), ("255.255.255.255", 5000)], ids=["port 0", "not allowed"])
async def test_one_address_that_cannot_be_sent_to_slows_nobody_down(to: tuple[str, int]) -> None:
    with unconnected("127.0.0.1") as (client, at_client):
        before = client._gso
        client.send([bytes(1200)] * 3, Source(*to))
        assert at_client.errors
        assert client._gso == before


@needs_root
async def test_a_datagram_from_port_0_is_nobodys() -> None:
    with (
        listening("127.0.0.1") as (server, at_server),
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw,
        unconnected("127.0.0.1") as (client, _),
    ):
        raw.sendto(struct.pack("!HHHH", 0, server.address.port, 8 + 5, 0) + b"first", ("127.0.0.1", 0))
        client.send([b"second"], server.address)
        await at_server.until(1)
        assert at_server.datagrams == [b"second"]


async def test_a_closed_endpoint_sends_nothing_and_closes_again() -> None:
    with listening("127.0.0.1") as (server, at_server), unconnected("127.0.0.1") as (client, _):
        client.close()
        client.send([b"late"], server.address)
        client.close()
        with unconnected("127.0.0.1") as (other, _):
            other.send([b"in time"], server.address)
            await at_server.until(1)
    assert at_server.datagrams == [b"in time"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_what_may_not_be_fragmented_arrives_whole_or_is_refused(host: str) -> None:
    with listening(host) as (server, at_server), unconnected(host) as (client, _):
        assert client.send_whole(bytes(16_400), server.address)
        assert not client.send_whole(bytes(65_530), server.address)  # more than loopback takes
        client.send_split([bytes(1500), bytes(60_000)], server.address)
        await at_server.until(3)
        assert server.send_whole(b"back", Source(host, client.address.port))
    assert [len(datagram) for datagram in at_server.datagrams] == [16_400, 1500, 60_000]
