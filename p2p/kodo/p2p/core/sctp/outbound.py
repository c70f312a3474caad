"""What waits to be sent: a queue per channel, served in turn, cut into fragments only when it goes out.

The turn passes from channel to channel at the end of a message: fragments of two messages must not be mixed on the
wire (their TSNs must follow each other, RFC 9260, 6.9), and a message is the grain of fairness.
"""

from __future__ import annotations

from collections import deque

from kodo.p2p.core.sctp.wire import FLAG_BEGIN, FLAG_END, PROTOCOL_DCEP

__all__ = ["Fragment", "Outbound", "OutboundStream"]

Fragment = tuple[int, int, int, int, bytes]
"""Flags, stream, stream sequence number, payload protocol, payload."""

_WORTH_FILLING = 256
"""Room in a packet, bytes, below which no fragment of a long message is begun in it."""


class OutboundStream:
    """The messages of one channel."""

    __slots__ = ("id", "messages", "offset", "sequence")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.sequence = 0
        self.messages: deque[tuple[int, bytes]] = deque()
        self.offset = 0
        """Bytes of the first message that have gone."""


class Outbound:
    """All channels' queues.

    Attributes:
        fragment: the most payload bytes that one packet carries.
    """

    __slots__ = ("_ready", "fragment", "queued")

    def __init__(self, fragment: int = 0) -> None:
        self.fragment = fragment
        self._ready: deque[OutboundStream] = deque()
        self.queued = 0
        """Bytes that no packet has carried yet."""

    def __bool__(self) -> bool:
        return bool(self._ready)

    def put(self, stream: OutboundStream, protocol: int, data: bytes) -> None:
        """Queue a message."""
        if not stream.messages:
            self._ready.append(stream)
        stream.messages.append((protocol, data))
        self.queued += len(data)

    def take(self, room: int) -> Fragment | None:
        """Return what goes next, of at most `room` payload bytes; None if nothing fits or is left."""
        ready = self._ready
        if not ready:
            return None
        stream = ready[0]
        protocol, data = stream.messages[0]
        offset = stream.offset
        size = len(data) - offset
        sequence = stream.sequence
        if size > room:
            # A message that would fit into a packet of its own is not cut to fill this one.
            if room < _WORTH_FILLING or size <= self.fragment:
                return None
            room &= ~3
            stream.offset = offset + room
            self.queued -= room
            return (0 if offset else FLAG_BEGIN), stream.id, sequence, protocol, data[offset : offset + room]
        self.queued -= size
        stream.messages.popleft()
        stream.sequence = (sequence + 1) & 0xFFFF
        if not stream.messages:
            ready.popleft()
        elif protocol != PROTOCOL_DCEP:
            # A channel's announcement goes with its first message: nothing of a later channel comes between.
            ready.rotate(-1)
        if offset:
            stream.offset = 0
            return FLAG_END, stream.id, sequence, protocol, data[offset:]
        return FLAG_BEGIN | FLAG_END, stream.id, sequence, protocol, data

    def drop(self, stream: OutboundStream) -> None:
        """Forget the messages of a channel of which nothing has gone yet, but for its announcement."""
        kept = [
            message for number, message in enumerate(stream.messages)
            if (number == 0 and stream.offset) or message[0] == PROTOCOL_DCEP
        ]  # fmt: skip
        self.queued -= sum(len(data) for _, data in stream.messages) - sum(len(data) for _, data in kept)
        if stream.messages and not kept:
            self._ready.remove(stream)
        stream.messages = deque(kept)

    def clear(self) -> None:
        """Forget everything."""
        for stream in self._ready:
            stream.messages.clear()
        self._ready.clear()
        self.queued = 0
