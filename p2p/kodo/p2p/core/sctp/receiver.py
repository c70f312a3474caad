"""The receiving half: which data is taken, how wide the window is, and when to acknowledge.

The window is what is neither kept in reassembly nor given to the application without `consumed`. Once it is closed,
new data is dropped unless it fills a gap, for what fills a gap lets something out that is kept already.

A SACK goes after every few packets or a short delay; at once after duplicates, a closed window, a gap that is filled,
data that asks for it, and the few packets that follow a new gap, since a peer believes a loss on the third report.

Source: RFC 9260, 6.2; RFC 7053.
"""

from __future__ import annotations

from typing import Final

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.reassembly import CHUNK_COST, MAX_AHEAD, Message, Reassembly, Received
from kodo.p2p.core.sctp.settings import Settings

__all__ = ["Receiver"]

_REPORTS: Final = 4
"""Packets after a new gap that are acknowledged at once."""
_MASK: Final = 0xFFFFFFFF


class Receiver:
    """What has arrived and was not read. `start` must come before the first data."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._window_size = settings.window
        self._received = Received(0)
        self._reassembly = Reassembly(settings.max_inbound_message, 2 * settings.max_channels + 16)
        self._unread = 0
        self._unread_messages = 0.0
        """In how many messages; an estimate, since `consumed` does not say of which."""
        self._announced = settings.window
        self._packets = 0
        self._urgent = 0
        self.sack_every = settings.sack_every
        """Packets with data after which they are acknowledged at once."""
        self.sack_now = False
        self.sack_at: float | None = None

    def start(self, tsn: int) -> None:
        """Take the peer's first TSN."""
        self._received = Received(tsn)

    @property
    def last_tsn(self) -> int:
        """The last TSN before the first gap, unwrapped."""
        return self._received.last

    def unwrap(self, tsn: int) -> int:
        """Return the unwrapped TSN for 32 bits of one."""
        return self._received.unwrap(tsn)

    def reset(self, stream: int) -> None:
        """Begin a stream anew."""
        self._reassembly.reset(stream)

    @property
    def used(self) -> int:
        """Bytes that are kept, the cost of each piece included."""
        return self._reassembly.held + self._unread + CHUNK_COST * int(self._unread_messages)

    @property
    def window(self) -> int:
        """Bytes that this side is still ready to keep."""
        return max(0, self._window_size - self.used)

    def delivered(self, size: int) -> None:
        """Note that the application was given a message that it will say it has read."""
        self._unread += size
        self._unread_messages += 1

    def consumed(self, count: int) -> None:
        """Note what the application has read; a window that opened by it is announced."""
        before = self._unread
        self._unread = max(0, before - count)
        self._unread_messages = self._unread_messages * self._unread / before if before else 0.0
        announced, quarter = self._announced, self._window_size >> 2
        if announced + quarter <= self._window_size:
            window = self.window
            if window - announced >= quarter or announced < quarter <= window:
                self.sack_now = True

    def take(
        self, flags: int, tsn: int, stream: int, sequence: int, protocol: int, data: bytes, out: list[Message]
    ) -> None:
        """Take a DATA chunk; append to `out` the messages that came out because of it.

        Raises:
            ValueError: when it breaks a rule.
        """
        received = self._received
        last = received.last
        tsn = last + ((tsn - last + 0x80000000) & _MASK) - 0x80000000
        if flags & wire.FLAG_IMMEDIATE:
            self.sack_now = True
        gaps = received.gaps
        if tsn != last + 1 or gaps:
            if tsn > last + MAX_AHEAD:
                return
            highest = gaps[-1][1] if gaps else last
            if tsn <= highest:
                self.sack_now = True
            elif tsn > highest + 1:
                self._urgent = _REPORTS
        used = self._reassembly.held + self._unread + CHUNK_COST * int(self._unread_messages)
        if used >= self._window_size and (used >= 2 * self._window_size or not received.fills_gap(tsn)):
            self.sack_now = True
            return
        if received.add(tsn):
            self._reassembly.add(tsn, flags, stream, sequence, protocol, data, out)
        else:
            self.sack_now = True

    def packet_ended(self, now: float) -> None:
        """Note the end of a packet with data."""
        self._packets += 1
        if self._urgent:
            self._urgent -= 1
            self.sack_now = True
        elif self._packets >= self.sack_every:
            self.sack_now = True
        elif self.sack_at is None:
            self.sack_at = now + self._settings.sack_delay

    @property
    def wants_sack(self) -> bool:
        """Whether something was not acknowledged yet, so that a packet that goes anyway should."""
        return self.sack_now or self.sack_at is not None

    def quiet(self) -> None:
        """Acknowledge nothing more."""
        self.sack_now = False
        self.sack_at = None
        self._packets = 0

    def take_sack(self, room: int) -> bytes:
        """Return a SACK chunk of at most `room` bytes."""
        self.quiet()
        received = self._received
        self._announced = window = self.window
        chunk = wire.encode_sack(received.last, window, received.gaps, received.duplicates, (room - 16) // 4)
        if received.duplicates:
            received.duplicates.clear()
        return chunk
