"""The data channels in a WebRTC link, and what they ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from kodo.p2p.errors import BrokenSessionError
from kodo.p2p.net.transport import ChannelHandler

__all__ = ["Carrier", "DataChannel"]


WHOLE_BYTES, FIRST_BYTES = 4096, 1024
"""For a peer that may be go-libp2p, a longer message goes as two, the first of which has `FIRST_BYTES`: version 0.52
reads the length that a stream's message begins with through a buffer of `WHOLE_BYTES`, and loses a longer one."""


class Carrier(Protocol):
    """What a channel asks of its link."""

    def send(self, channel_id: int, message: bytes, /) -> None:
        """Queue one message of a channel."""
        ...

    def consumed(self, count: int, /) -> None:
        """Open the window again for bytes that the application read."""
        ...

    def drop_queued(self, channel_id: int, /) -> None:
        """Forget what is queued on a channel and has not gone."""
        ...

    def close_channel(self, channel_id: int, /) -> None:
        """Close a channel once what is queued has been sent."""
        ...


@dataclass(eq=False, slots=True)
class DataChannel:
    """One data channel as `transport.Channel`.

    Attributes:
        in_parts: whether a long message goes as two: what is sent is a stream of framed messages to its reader.
    """

    link: Carrier
    id: int
    handler: ChannelHandler | None = None
    closed: bool = False
    in_parts: bool = False

    def send(self, message: bytes) -> None:
        if self.closed:
            raise BrokenSessionError("the stream's channel is closed")
        if self.in_parts and len(message) > WHOLE_BYTES:
            self.link.send(self.id, message[:FIRST_BYTES])
            message = message[FIRST_BYTES:]
        self.link.send(self.id, message)

    def consumed(self, count: int) -> None:
        self.link.consumed(count)

    def drop(self) -> None:
        if not self.closed:
            self.link.drop_queued(self.id)

    def close(self) -> None:
        if not self.closed:
            self.link.close_channel(self.id)
