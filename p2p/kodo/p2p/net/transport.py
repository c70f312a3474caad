"""What carries sessions: the interfaces between a session and its transport, and the bounds of both.

A **transport** dials and listens. Either gives **links**: encrypted, authenticated connections to one peer that
carry **channels**, reliable and ordered sequences of messages of at most 16 KiB. `webrtc` is the real transport,
`memory` the seeded one of the tests; sessions and streams are built on top and know neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.budget import PROCESS_BYTES, SOURCE_BYTES
from kodo.p2p.net.leg import Carrier
from kodo.p2p.net.ways import OverRelay

__all__ = ["Attached", "Channel", "ChannelHandler", "Limits", "Link", "LinkHandler", "Listener", "Punch", "Transport"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one session and of one listener.

    Attributes:
        streams: open streams of one session, those of both sides counted.
        early_streams: the same, before the peer has shown any business here.
        queued_out_bytes: what a session keeps for a peer that does not take it; a writer waits long before.
        unread_bytes: what a session keeps for an application that does not read; a peer beyond it is cut off.
        ping_after_s: silence after which the other side is asked for a sign of life.
        silence_s: silence after which a session is over.
        sessions: links of one listener, handshakes counted.
        sessions_per_source: the same from one IPv4 address or IPv6 /64, so that nobody takes all.
        handshakes: handshakes in progress on one listener.
        handshakes_per_source: the same from one IPv4 address or IPv6 /64.
        handshake_s: time that one handshake may take.
        cookies_above: handshakes in progress above which a source must prove its address first.
        kept_bytes: what all sessions of a process may keep in memory together; over it those that keep most are cut.
        kept_bytes_per_source: the same of those from one IPv4 address or IPv6 /64.
        usernames: STUN usernames that a listener remembers.
        username_s: how long an unused STUN username is answered.
    """

    streams: int = 64
    early_streams: int = 16
    queued_out_bytes: int = 4 << 20
    unread_bytes: int = 4 << 20
    ping_after_s: float = 10.0
    silence_s: float = 15.0
    sessions: int = 4096
    sessions_per_source: int = 2048
    handshakes: int = 128
    handshakes_per_source: int = 16
    handshake_s: float = 10.0
    cookies_above: int = 32
    kept_bytes: int = PROCESS_BYTES
    kept_bytes_per_source: int = SOURCE_BYTES
    usernames: int = 8192
    username_s: float = 10.0


Punch = Literal["early", "after-login", "never"]
"""When a relayed peer is told where the listener is itself, so that it is reached without the relay."""


class ChannelHandler(Protocol):
    """Who takes the messages of one channel. Calls come in order and never wait."""

    def message_received(self, message: bytes) -> None:
        """Take the next message; `Channel.consumed` says later that it was read."""
        ...

    def channel_closed(self) -> None:
        """Nothing comes and nothing goes any more. Called once."""
        ...


class Channel(Protocol):
    """One reliable, ordered sequence of messages."""

    id: int

    def send(self, message: bytes) -> None:
        """Queue a message (at most 16 KiB).

        Raises:
            BrokenSessionError: when the channel is closed.
        """
        ...

    def consumed(self, count: int) -> None:
        """Note that the application has read `count` bytes: the peer may send as many more."""
        ...

    def drop(self) -> None:
        """Forget what is queued and has not gone; whole messages, so that what follows can be read."""
        ...

    def close(self) -> None:
        """Close both directions once what is queued has been sent; idempotent."""
        ...


class LinkHandler(Protocol):
    """Who takes what happens on a link."""

    def channel_opened(self, channel: Channel) -> ChannelHandler | None:
        """The peer opened a channel; None refuses it."""
        ...

    def link_lost(self, error: Exception) -> None:
        """The link is over and why: `RemotelyClosedError` or `BrokenSessionError`. Called once, not after aclose."""
        ...


class Link(Protocol):
    """An encrypted connection whose two peer ids are proved."""

    local_peer: PeerId
    remote_peer: PeerId
    remote_address: tuple[str, int]
    route: str
    dialled: bool
    admitted: bool
    """Whether the peer has shown any business here, as `Session.admitted` says."""
    account: str | None
    """The account in whose line the work for the peer waits; see `Session.account`."""

    @property
    def same_process(self) -> bool:
        """Whether the peer is in this process, too, as the handshake has proved: addresses do not tell."""
        ...

    @property
    def full(self) -> bool:
        """Whether writers should wait with `drained`."""
        ...

    @property
    def last_heard(self) -> float:
        """When the peer was last heard, on the event loop's clock, seconds.

        Once there are keys, only what they authenticate counts.
        """
        ...

    @property
    def queued(self) -> int:
        """Bytes that were given to `send` and not yet handed to the network."""
        ...

    def start(self, handler: LinkHandler) -> None:
        """Begin to deliver; channels that were opened before are delivered first."""
        ...

    def open_channel(self, handler: ChannelHandler) -> Channel:
        """Open a channel; the peer learns of it with the first message."""
        ...

    def keep(self, change: int) -> None:
        """Note that readers keep so many bytes more, or fewer, of what they took and cannot use yet."""
        ...

    def before_sending(self, write: Callable[[], None]) -> None:
        """Call `write` once, soon, before anything more is sent: what was small until then can go as one message."""
        ...

    async def drained(self) -> None:
        """Wait until there is room for more output; cancelling is safe.

        Raises:
            NetworkError: when the link is over.
        """
        ...

    def let_in(self) -> OverRelay | None:
        """Admit the peer beside its relay, as often as it asks; return None if it comes over no relay.

        What the peer sends straight to `OverRelay.own` then passes the NAT before this machine.
        """
        ...

    def probe(self) -> None:
        """Ask the peer for a sign of life."""
        ...

    async def aclose(self) -> None:
        """Close in an orderly way; idempotent, bounded to 2 s."""
        ...


class Attached(Protocol):
    """A listener at one relay."""

    relay: tuple[str, int]

    @property
    def is_attached(self) -> bool:
        """Whether the relay reaches the listener."""
        ...


class Listener(Protocol):
    """Accepts links on one socket address."""

    address: tuple[str, int]

    def attach(
        self,
        relay: tuple[str, int],
        token: str,
        changed: Callable[[], None],
        carrier: Carrier | None = None,
        carries: bool = True,
    ) -> Attached | None:
        """Be reached through a relay too, by the token that it gave; a token given later replaces the one before.

        Args:
            relay: IP address and UDP port.
            changed: called whenever what `Attached.is_attached` says has changed, or the listener's address.
            carrier: connects to the relay where UDP does not get there.
            carries: whether the relay carries sessions; else it only introduces diallers.

        Returns:
            None where this listener cannot reach that relay.
        """
        ...

    def detach(self, relay: tuple[str, int]) -> None:
        """Undo `attach`; idempotent."""
        ...

    async def aclose(self) -> None:
        """Stop listening and end handshakes; links that exist are ended by their sessions."""
        ...


class Transport(Protocol):
    """Makes links."""

    def address_for(self, host: str, port: int) -> Multiaddr:
        """Return the address, without a peer id, at which a listener on this host and port is reached."""
        ...

    async def listen(
        self, host: str, port: int, identity: Identity, limits: Limits, accept: Callable[[Link], None]
    ) -> Listener:
        """Listen on one address; `accept` gets each link that proved its peer.

        Raises:
            UsageError: when the address cannot be bound.
        """
        ...

    async def dial(self, addresses: Sequence[Multiaddr], identity: Identity, limits: Limits) -> Link:
        """Dial one listener at its addresses. The caller sets the deadline; cancelling is safe.

        Args:
            addresses: at least one; all with the same certificate and peer id.

        Raises:
            UnreachableError: nobody answers there.
            IdentityError: somebody else answers there.
        """
        ...
