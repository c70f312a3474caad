"""The way on which a link's datagrams go, and what a datagram is that came on another."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, Protocol

__all__ = ["OverRelay", "Stray", "Way"]


class OverRelay(NamedTuple):
    """How a peer comes that comes over a relay.

    Attributes:
        relay: IP address and UDP port of the relay.
        own: where this machine is itself and lets the peer in; None where the peer may not know.
    """

    relay: tuple[str, int]
    own: tuple[str, int] | None


class Way(Protocol):
    """What carries datagrams to one peer."""

    def send(self, datagrams: list[bytes], /) -> None:
        """Send a batch."""
        ...

    def send_whole(self, datagram: bytes, /) -> bool:
        """Send a datagram that is not to be fragmented; False when this machine cannot."""
        ...

    def send_split(self, datagrams: list[bytes], /) -> None:
        """Send datagrams that the network may have to fragment."""
        ...

    def room(self) -> int | None:
        """Return how many bytes may go until something comes back; None for as many as there are."""
        ...

    def proved(self) -> None:
        """Note that the peer has received what went this way."""
        ...

    def let_in(self) -> OverRelay | None:
        """Admit a peer beside its relay, if it may know where; return None if it comes over no relay."""
        ...


class Stray(Enum):
    """What a datagram is that came from elsewhere than the link's peer did so far."""

    FOREIGN = 0
    """No authentic record of the link, or one that it had already."""
    LATE = 1
    """Authentic, and sent before the newest one that came."""
    NEWEST = 2
    """Authentic, and sent after everything that came."""
