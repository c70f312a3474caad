"""The sockets of a relay; what it does is in `core.relay`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Sequence

from kodo.p2p.core.identity import PeerId
from kodo.p2p.core.relay import Relay, RelayBounds
from kodo.p2p.errors import UsageError
from kodo.p2p.net import udp
from kodo.p2p.net.endpoint import Endpoint, Source

__all__ = ["RelayServer"]

EXPIRE_SECONDS = 5.0


class RelayServer:
    """A relay that runs, between `open` and `close`; one event loop."""

    def __init__(self, bounds: RelayBounds | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self.core = Relay(secrets.token_bytes(32), bounds or RelayBounds(), self._loop.time())
        self.port = 0
        """UDP; 0 while it does not run."""
        self._endpoints: dict[bool, Endpoint] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def carries(self) -> bool:
        """Whether anything is relayed; else it answers only who asks for his own address."""
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
                endpoint = Endpoint(sock, self._received, self._batch_ended)
                self._endpoints[":" in host] = endpoint
                port = port or endpoint.address.port
        except BaseException:
            self.close()
            raise
        self.port = port
        self._timer = self._loop.call_later(EXPIRE_SECONDS, self._expire)

    def close(self) -> None:
        """Close the sockets; idempotent."""
        self.port = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for endpoint in self._endpoints.values():
            endpoint.close()
        self._endpoints.clear()

    @contextlib.contextmanager
    def admitted(self, peer_id: PeerId) -> Iterator[str]:
        """Let a node attach inside the block, and a little longer, by the token that is given.

        Raises:
            CapacityError: too many nodes are attached.
        """
        token = secrets.token_hex(16)
        self.core.admit(peer_id, token, self._loop.time())
        try:
            yield token
        finally:
            self.core.dismiss(peer_id, token, self._loop.time())

    def _received(self, data: bytes, source: Source) -> None:
        self.core.received(data, source, self._loop.time())

    def _batch_ended(self) -> None:
        for address, datagrams in self.core.take(self._loop.time()):
            assert isinstance(address, Source)
            endpoint = self._endpoints.get(":" in address.host)
            if endpoint is not None:
                endpoint.send(datagrams, address)

    def _expire(self) -> None:
        self.core.expire(self._loop.time())
        self._timer = self._loop.call_later(EXPIRE_SECONDS, self._expire)
