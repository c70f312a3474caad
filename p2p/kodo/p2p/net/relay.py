"""The sockets and connections of a relay; what it does is in `core.relay`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence

from kodo.p2p.core.hosts import source_block
from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.relay import Relay, RelayBounds, Stream
from kodo.p2p.errors import CapacityError, UsageError
from kodo.p2p.net import udp
from kodo.p2p.net.endpoint import Endpoint, Source
from kodo.p2p.net.leg import Leg, Receive, Room, Send

__all__ = ["RelayServer"]

EXPIRE_SECONDS = 5.0
UNUSED_SECONDS = 15.0
"""How long a connection may be there without a node that attaches by it, or a dialler that has a channel."""


class _Connection(Stream):
    """A connection that is served."""

    __slots__ = ("leg", "used_at")

    def __init__(self, host: str, number: int, now: float) -> None:
        super().__init__(host, number)
        self.used_at = now
        self.leg: Leg | None = None


class RelayServer:
    """A relay that runs, between `open` and `close`; one event loop."""

    def __init__(self, bounds: RelayBounds | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.core = Relay(secrets.token_bytes(32), bounds or RelayBounds(), self._loop.time())
        self.port = 0
        """UDP; 0 while it does not run."""
        self._endpoints: dict[bool, Endpoint] = {}
        self._connections: set[_Connection] = set()
        self._sources: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._room = Room()
        self._batch_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def carries(self) -> bool:
        """Whether sessions are relayed; else it only introduces diallers to nodes."""
        return self.core.bounds.rate is not None

    def open(self, hosts: Sequence[str], port: int) -> None:
        """Bind the same UDP port of each address, at most one of each family, and begin; 0 takes a free one.

        A wildcard IPv6 address is left out on machines without IPv6.

        Raises:
            UsageError: an address cannot be bound.
        """
        try:
            for host in hosts:
                try:
                    sock = udp.bind(host, port)
                except UsageError:
                    if host == "::" and self._endpoints:
                        continue
                    raise
                endpoint = Endpoint(sock, self._received, self._batch_ended, received_block=self._received_block)
                self._endpoints[":" in host] = endpoint
                port = port or endpoint.address.port
        except BaseException:
            self.close()
            raise
        self.port = port
        self._timer = self._loop.call_later(EXPIRE_SECONDS, self._expire)

    def close(self) -> None:
        """Close the sockets and end the connections; idempotent."""
        self.port = 0
        for connection in self._connections:
            if connection.leg is not None:
                connection.leg.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for endpoint in self._endpoints.values():
            endpoint.close()
        self._endpoints.clear()

    @contextlib.contextmanager
    def admitted(self, peer_id: PeerId) -> Iterator[str]:
        """Admit a node inside the block, and a little longer, by the token that is returned.

        Raises:
            CapacityError: too many nodes are attached.
        """
        token = secrets.token_hex(16)
        self.core.admit(peer_id, token, self._loop.time())
        try:
            yield token
        finally:
            self.core.dismiss(peer_id, token, self._loop.time())

    async def carry(self, host: str, send: Send, receive: Receive) -> None:
        """Serve a connection of who has no UDP, until it ends or is of no use. Cancelling is safe.

        Args:
            host: the IP address of who is at its other end.

        Raises:
            CapacityError: there are too many connections, in all or from there.
            ValueError: the other side sends something else than batches of datagrams, or one of far too many.
            TimeoutError: it takes nothing.
            OSError: the connection broke.
        """
        block, bounds = source_block(host), self.core.bounds
        if not self.port or len(self._connections) >= bounds.streams:
            raise CapacityError("this relay has too many connections")
        if self._sources[block] >= bounds.channels_per_source:
            raise CapacityError(f"{bounds.channels_per_source} connections to this relay are open from {block}")
        connection = _Connection(host, next(self._numbers), self._loop.time())
        connection.leg = Leg(
            lambda data: self._received(data, connection), self._batch_ended, room=self._room, source=block
        )
        self._connections.add(connection)
        self._sources[block] += 1
        try:
            await connection.leg.carry(send, receive, rate=lambda: self.core.rate_of(connection))
        finally:
            self.core.ended(connection)
            self._connections.discard(connection)
            self._sources[block] -= 1
            self._sources += Counter()  # forgets who has none

    def _received(self, data: bytes, source: Source | _Connection) -> None:
        self.core.received(data, source, self._now())

    def _received_block(self, block: bytes, size: int, source: Source) -> None:
        self.core.received_block(block, size, source, self._now())

    def _now(self) -> float:
        """Return the time at which the batch began to come."""
        if self._batch_at is None:
            self._batch_at = self._loop.time()
        return self._batch_at

    def _batch_ended(self) -> None:
        self._batch_at = None
        for address, pieces in self.core.take(self._loop.time()):
            if isinstance(address, _Connection):
                if address.leg is not None:
                    address.leg.send([data for piece in pieces for data in piece.datagrams()])
                continue
            assert isinstance(address, Source)
            endpoint = self._endpoints.get(":" in address.host)
            if endpoint is not None:
                endpoint.send_joined(pieces, address)

    def _expire(self) -> None:
        now = self._loop.time()
        self.core.expire(now)
        for connection in self._connections:
            if self.core.serves(connection):
                connection.used_at = now
            elif now - connection.used_at >= UNUSED_SECONDS and connection.leg is not None:
                connection.leg.close()
        self._timer = self._loop.call_later(EXPIRE_SECONDS, self._expire)
