"""The channels of one link: what comes on them, and what came before anybody read."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kodo.p2p.core import sctp
from kodo.p2p.errors import PeerError
from kodo.p2p.net.datachannel import Carrier, DataChannel
from kodo.p2p.net.handshake import NOISE_CHANNEL
from kodo.p2p.net.transport import ChannelHandler, Limits, LinkHandler

__all__ = ["CLOSING_CHANNELS", "EARLY_BYTES", "EARLY_CHANNELS", "LinkChannels"]

EARLY_CHANNELS, EARLY_BYTES = 16, 64 << 10
"""What a peer may open, beside the handshake's channel, and send before its last handshake message has arrived."""
CLOSING_CHANNELS = 1024
"""Channels beside the open streams: both sides have to agree that one is closed, and a peer need never do."""


class LinkChannels:
    """The channels of one link, and their handler, once there is one.

    Args:
        link: what channels ask.
        association: is told what was consumed of messages that no channel takes.
        authenticate: takes the messages of the handshake's channel.
    """

    def __init__(
        self, link: Carrier, association: sctp.Association, limits: Limits, authenticate: Callable[[bytes], None]
    ) -> None:
        self.handler: LinkHandler | None = None
        self.unread = 0
        """Bytes that were delivered and not yet consumed."""
        self._link = link
        self._sctp = association
        self._limits = limits
        self._authenticate = authenticate
        self._channels: dict[int, DataChannel] = {}
        self._early: list[tuple[DataChannel, list[bytes]]] = []

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._channels))

    def open(self, handler: ChannelHandler) -> DataChannel:
        """Open a channel."""
        channel_id = self._sctp.open_channel()
        channel = self._channels[channel_id] = self._channel(channel_id, handler)
        return channel

    def _channel(self, channel_id: int, handler: ChannelHandler | None = None) -> DataChannel:
        # go-libp2p is on pion; what is sent in two parts costs a third more.
        return DataChannel(self._link, channel_id, handler, in_parts=self._sctp.may_be_pion)

    def message(self, event: sctp.MessageReceived) -> None:
        """Take a message.

        Raises:
            PeerError: it is more than the peer may send.
        """
        data, channel = event.data, self._channels.get(event.channel_id)
        if channel is None:
            self._sctp.consumed(len(data))
            if event.channel_id == NOISE_CHANNEL:
                self._authenticate(data)
            return
        if event.text:
            raise PeerError("the other side sent text where libp2p sends bytes")
        self.unread += len(data)
        if self.unread > self._limits.unread_bytes + EARLY_BYTES:
            raise PeerError("the other side sent more than this side allowed")
        if channel.handler is not None:
            channel.handler.message_received(data)
            return
        for early, messages in self._early:
            if early is channel:
                messages.append(data)
        if self.unread > EARLY_BYTES:
            raise PeerError("the other side sent too much before the handshake was over")

    def opened(self, channel_id: int) -> None:
        """Take a channel that the peer opened.

        Raises:
            PeerError: it has opened too many.
        """
        channel = self._channels[channel_id] = self._channel(channel_id)
        if len(self._channels) > self._limits.streams + CLOSING_CHANNELS:
            raise PeerError("the other side opens channels without closing any")
        if self.handler is not None:
            self._deliver(channel, [])
        elif len(self._early) < EARLY_CHANNELS:
            self._early.append((channel, []))
        else:
            channel.close()

    def closed(self, channel_id: int) -> None:
        """Take note that a channel is closed, if it was open."""
        channel = self._channels.pop(channel_id, None)
        if channel is None:
            return
        handler, channel.handler = channel.handler, None  # nothing more comes, and each would keep the other
        if channel.closed:
            return
        channel.closed = True
        if handler is not None:
            handler.channel_closed()

    def start(self, handler: LinkHandler) -> None:
        """Begin to deliver; what came before comes first."""
        self.handler = handler
        early, self._early = self._early, []
        for channel, messages in early:
            self._deliver(channel, messages)
            if channel.closed and channel.handler is not None:
                channel.handler.channel_closed()

    def _deliver(self, channel: DataChannel, messages: list[bytes]) -> None:
        if self.handler is None:
            return
        channel.handler = self.handler.channel_opened(channel)
        if channel.handler is None:
            self._link.consumed(sum(map(len, messages)))
            channel.close()
            return
        for message in messages:
            channel.handler.message_received(message)
