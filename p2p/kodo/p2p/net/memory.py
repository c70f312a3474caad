"""A transport without sockets, for tests: the same sessions and streams over links that live in memory.

Delay and loss are seeded. Links are reliable, so a loss shows as it does above any reliable transport: what was lost
comes one retransmission later, and what follows on the same channel waits for it. A link can be cut, too.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kodo.p2p.core.framing import MAX_MESSAGE_BYTES
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import (
    BrokenSessionError,
    IdentityError,
    LocallyClosedError,
    PeerError,
    RemotelyClosedError,
    UnreachableError,
    UsageError,
    afresh,
)
from kodo.p2p.net.leg import Carrier
from kodo.p2p.net.transport import Channel, ChannelHandler, Limits, Link, LinkHandler

__all__ = ["MemoryLink", "MemoryNetwork", "MemoryTransport"]

WINDOW_BYTES = 1 << 20
"""What one link carries unread in each direction."""
_CERTHASH = bytes(32)


class MemoryNetwork:
    """The wire between memory transports.

    Args:
        seed: of all delays and losses.
        delay_s: one way, seconds.
        jitter_s: added at random, up to this many seconds; a channel's order is kept.
        loss: share of messages that come a retransmission late, 0 to 1.
        retransmit_s: how much later that is, seconds.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        retransmit_s: float = 0.2,
    ) -> None:
        self._random = random.Random(seed)
        self._delay, self._jitter, self._loss, self._retransmit = delay_s, jitter_s, loss, retransmit_s
        self.listeners: dict[tuple[str, int], MemoryListener] = {}
        self.links: list[MemoryLink] = []

    def delay(self) -> float:
        """Draw the delay of one message, seconds."""
        delay = self._delay + self._random.random() * self._jitter
        while self._random.random() < self._loss:
            delay += self._retransmit
        return delay

    def free_port(self, host: str) -> int:
        """Return a port on which nobody listens."""
        return next(port for port in range(1024, 65536) if (host, port) not in self.listeners)

    def cut(self) -> None:
        """Break every link: both sides see it, what was under way is gone."""
        for link in list(self.links):
            link.break_off(BrokenSessionError("the link was cut"))


class MemoryListener:
    """Accepts links of one address; made by `MemoryTransport.listen`."""

    def __init__(
        self,
        network: MemoryNetwork,
        address: tuple[str, int],
        identity: Identity,
        limits: Limits,
        accept: Callable[[Link], None],
    ) -> None:
        self.address = address
        self.identity = identity
        self.limits = limits
        self.accept = accept
        self._network = network
        network.listeners[address] = self

    def attach(
        self, relay: tuple[str, int], token: str, changed: Callable[[], None], carrier: Carrier | None = None
    ) -> None:
        """Return None: there are no relays in memory."""

    def detach(self, relay: tuple[str, int]) -> None:
        """Do nothing; see `attach`."""

    async def aclose(self) -> None:
        """Stop listening."""
        self._network.listeners.pop(self.address, None)


class MemoryTransport:
    """Dials and listens on one `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork) -> None:
        self._network = network

    def address_for(self, host: str, port: int) -> Multiaddr:
        """Return the address of a listener on this host and port."""
        return Multiaddr.webrtc_direct(host, port, _CERTHASH)

    async def listen(
        self, host: str, port: int, identity: Identity, limits: Limits, accept: Callable[[Link], None]
    ) -> MemoryListener:
        """Listen on one address; see `transport.Transport`."""
        port = port or self._network.free_port(host)
        if (host, port) in self._network.listeners:
            raise UsageError(f"cannot listen on {host} port {port}: in use")
        return MemoryListener(self._network, (host, port), identity, limits, accept)

    async def dial(self, addresses: Sequence[Multiaddr], identity: Identity, limits: Limits) -> Link:
        """Dial one listener at the first of its addresses where there is one; see `transport.Transport`."""
        await asyncio.sleep(self._network.delay())
        listeners = self._network.listeners
        address = next((each for each in addresses if (each.host, each.port) in listeners), addresses[0])
        listener = listeners.get((address.host, address.port))
        if listener is None:
            raise UnreachableError(f"nobody listens at {address.host} port {address.port}")
        if address.peer_id is not None and address.peer_id != listener.identity.peer_id:
            raise IdentityError(f"{address.host} is {listener.identity.peer_id}, not {address.peer_id}")
        here = MemoryLink(self._network, identity, listener.identity, limits, listener.address, dialled=True)
        there = MemoryLink(
            self._network, listener.identity, identity, listener.limits, ("127.0.0.1", 1), dialled=False
        )
        here.other, there.other = there, here
        self._network.links += [here, there]
        await asyncio.sleep(self._network.delay())
        listener.accept(there)
        return here


@dataclass(eq=False)
class _MemoryChannel:
    link: MemoryLink
    id: int
    handler: ChannelHandler | None = None
    closed: bool = False
    due: float = 0.0

    def send(self, message: bytes) -> None:
        if self.closed:
            raise BrokenSessionError("the stream's channel is closed")
        if len(message) > MAX_MESSAGE_BYTES:
            raise UsageError(f"a message of {len(message)} bytes; the limit is {MAX_MESSAGE_BYTES}")
        self.link.send(self, message)

    def consumed(self, count: int) -> None:
        self.link.consumed(count)

    def drop(self) -> None:
        """Nothing is queued here: what is sent has gone."""

    def close(self) -> None:
        if not self.closed:
            self.link.send(self, None)


class MemoryLink:
    """One end of a link in memory."""

    def __init__(
        self,
        network: MemoryNetwork,
        local: Identity,
        remote: Identity,
        limits: Limits,
        remote_address: tuple[str, int],
        *,
        dialled: bool,
    ) -> None:
        self.local_peer = local.peer_id
        self.remote_peer = remote.peer_id
        self.remote_address = remote_address
        self.route = "memory"
        self.same_process = True
        self.admitted = False
        self.account: str | None = None
        self.dialled = dialled
        self.other: MemoryLink
        self._network = network
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._last_heard = self._loop.time()
        self._handler: LinkHandler | None = None
        self._early: deque[Callable[[], None]] = deque()
        self._channels: dict[int, _MemoryChannel] = {}
        self._next_id = 0 if dialled else 1
        self._waiting: deque[tuple[_MemoryChannel, bytes | None]] = deque()
        self._under_way = 0
        self._unread = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._writers: list[Callable[[], None]] = []
        self._error: Exception | None = None

    @property
    def full(self) -> bool:
        """Whether writers should wait; see `transport.Link`."""
        return not self._drained.is_set()

    @property
    def last_heard(self) -> float:
        """When the last message came; see `transport.Link`."""
        return self._last_heard

    @property
    def queued(self) -> int:
        """Bytes given to `send` and not yet read; see `transport.Link`."""
        return self._under_way + sum(len(message or b"") for _, message in self._waiting)

    def start(self, handler: LinkHandler) -> None:
        """Begin to deliver; see `transport.Link`."""
        self._handler = handler
        while self._early:
            self._early.popleft()()
        if self._error is not None:
            handler.link_lost(self._error)

    def keep(self, change: int) -> None:
        """See `transport.Link`; nothing is counted here."""

    def open_channel(self, handler: ChannelHandler) -> Channel:
        """Open a channel; see `transport.Link`."""
        if self._error is not None:
            raise afresh(self._error)
        channel = self._channels[self._next_id] = _MemoryChannel(self, self._next_id, handler)
        self._next_id += 2
        return channel

    def send(self, channel: _MemoryChannel, message: bytes | None) -> None:
        """Queue a message, or with None the channel's end."""
        if self._error is not None:
            if message is None:
                return
            raise afresh(self._error)
        self._waiting.append((channel, message))
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._under_way < WINDOW_BYTES and self._error is None:
            channel, message = self._waiting.popleft()
            self._under_way += len(message or b"")
            # Order within a channel holds: nothing overtakes, or comes at the same time as, what was sent before.
            channel.due = max(math.nextafter(channel.due, math.inf), self._loop.time() + self._network.delay())
            self._loop.call_at(channel.due, self.other.arrive, channel.id, message)
        if self._waiting:
            self._drained.clear()
        else:
            self._drained.set()

    def arrive(self, channel_id: int, message: bytes | None) -> None:
        """Take a message that the other end sent."""
        if self._error is not None:
            return
        if self._handler is None:
            self._early.append(lambda: self.arrive(channel_id, message))
            return
        self._last_heard = self._loop.time()
        channel = self._channels.get(channel_id)
        if channel is None:
            if channel_id % 2 == self._next_id % 2 or message is None:
                self.other.read_by_peer(len(message or b""))
                return
            channel = self._channels[channel_id] = _MemoryChannel(self, channel_id)
            channel.handler = self._handler.channel_opened(channel)
            if channel.handler is None:
                self.other.read_by_peer(len(message))
                channel.close()
                return
        if message is None:
            if not channel.closed:
                channel.close()
                self._end(channel)
        elif channel.handler is not None:
            self._unread += len(message)
            if self._unread > self._limits.unread_bytes:
                self.break_off(PeerError("the other side sent more than this side allowed"))
            else:
                channel.handler.message_received(message)

    def _end(self, channel: _MemoryChannel) -> None:
        if not channel.closed:
            channel.closed = True
            self._channels.pop(channel.id, None)
            if channel.handler is not None:
                channel.handler.channel_closed()

    def consumed(self, count: int) -> None:
        """Note that the application has read; see `transport.Channel`."""
        self._unread -= count
        if self._error is None:
            self._loop.call_later(self._network.delay(), self.other.read_by_peer, count)

    def read_by_peer(self, count: int) -> None:
        """Take back window."""
        self._under_way -= count
        self._pump()

    def before_sending(self, write: Callable[[], None]) -> None:
        """Call `write` soon; see `transport.Link`."""
        self._writers.append(write)
        self._loop.call_soon(self._write)

    def _write(self) -> None:
        writers, self._writers = self._writers, []
        for write in writers:
            write()

    async def drained(self) -> None:
        """Wait until there is room; see `transport.Link`."""
        await self._drained.wait()
        if self._error is not None:
            raise afresh(self._error)

    def let_in(self) -> None:
        """Return None: there are no relays."""

    def probe(self) -> None:
        """Ask for a sign of life; see `transport.Link`."""
        if self._error is None:
            self._loop.call_later(self._network.delay(), self.other.probed)

    def probed(self) -> None:
        """Answer a probe."""
        if self._error is None:
            self.heard()
            self._loop.call_later(self._network.delay(), self.other.heard)

    def heard(self) -> None:
        """Take a sign of life."""
        self._last_heard = self._loop.time()

    def break_off(self, error: Exception) -> None:
        """End this side because of `error`, and the other side of the link as broken."""
        if self._error is None:
            self._stop(error)
            self.other.break_off(BrokenSessionError("the link broke"))
            if self._handler is not None:
                self._handler.link_lost(error)

    def _closed_by_peer(self) -> None:
        if self._error is None:
            error = RemotelyClosedError("the other side closed the session")
            self._stop(error)
            if self._handler is not None:
                self._handler.link_lost(error)

    def _stop(self, error: Exception) -> None:
        self._error = error
        self._drained.set()
        if self in self._network.links:
            self._network.links.remove(self)
        for channel in list(self._channels.values()):
            self._end(channel)

    async def aclose(self) -> None:
        """Close in an orderly way; see `transport.Link`."""
        self._write()
        if self._error is None:
            last = max((channel.due for channel in self._channels.values()), default=0.0)
            due = max(last, self._loop.time() + self._network.delay())
            self._loop.call_at(due, self.other._closed_by_peer)
            self._stop(LocallyClosedError("this side closed the session"))
