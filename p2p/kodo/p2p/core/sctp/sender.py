"""The sending half: what goes into which packet, as far as windows and pacing let it.

Lost chunks go first, then new ones, bundled until a packet is full. The peer's window is respected except for one
packet that probes a closed one; T3 repeats it. The last chunk of all that is queued asks to be acknowledged at once
(RFC 7053), as do those of a window so small that its sender would wait for the peer's delay.

Source: RFC 9260, 6.1, 6.3, 6.10.
"""

from __future__ import annotations

from typing import Final

from kodo.p2p.core.sctp import wire
from kodo.p2p.core.sctp.congestion import Controller
from kodo.p2p.core.sctp.outbound import Outbound
from kodo.p2p.core.sctp.pathmtu import PathMtu
from kodo.p2p.core.sctp.recovery import Recovery
from kodo.p2p.core.sctp.settings import Settings
from kodo.p2p.core.sctp.wire import DATA_HEADER, DATA_HEADER_BYTES, FLAG_IMMEDIATE, HEADER_BYTES, PacketCodec

__all__ = ["BATCH", "PACKET_OVERHEAD", "Sender"]

BATCH: Final = 64
"""Packets that are given at once."""
_BATCH_BYTES: Final = 256 << 10
PACKET_OVERHEAD: Final = HEADER_BYTES + 37
"""Bytes that a datagram has beside its chunks: SCTP's header and the DTLS record."""
_SILENCES: Final = 2
"""Times that waiting for an acknowledgement was in vain, before the packets' length is suspected."""
_STUCK: Final = 2
"""Times that a short packet got through while only too long ones are out, after which they never will."""
_LEAST_ROOM: Final = 64
"""Bytes below which no packet with data is begun."""
_MASK: Final = 0xFFFFFFFF
_TIMER_SECONDS: Final = 0.004
"""What pacing lets go at once: an event loop's timer is good for a millisecond or two."""


class Sender:
    """What is queued and what is out.

    Attributes:
        outbound: what is queued.
        recovery: what is out.
        peer_window: bytes that the peer is ready to keep.
        pace_at: when pacing lets the next packet go; None if it does not hold anything up.
        path: how long a packet may be; `resize` takes a change over.
        more: whether only `BATCH` ended the last call.
    """

    def __init__(self, settings: Settings, initial_tsn: int, controller: Controller) -> None:
        self.path = PathMtu(settings.mtu, settings.most_mtu)
        self._base_room = settings.mtu - HEADER_BYTES
        self.outbound = Outbound()
        # One cycle up, so that no TSN is ever negative.
        self.recovery = Recovery(
            initial_tsn + (1 << 32),
            controller,
            rto_initial=settings.rto_initial,
            rto_min=settings.rto_min,
            rto_max=settings.rto_max,
        )
        self.peer_window = 0
        self.pace_at: float | None = None
        self.more = False
        self._short_passed = False
        self._stuck = 0
        self._allowance = 0.0
        self._paced_at = 0.0
        self._reopened_at = float("-inf")
        self.resize()

    def resize(self) -> None:
        """Take over what is known of the path's MTU."""
        self._mtu = mtu = self.path.size
        self._room = mtu - HEADER_BYTES
        self._batch = min(BATCH, _BATCH_BYTES // mtu)
        self._fragment = self.outbound.fragment = (mtu - HEADER_BYTES - DATA_HEADER_BYTES) & ~3
        self.recovery.controller.mtu = mtu

    @property
    def queued(self) -> int:
        """Bytes that are queued or not acknowledged."""
        return self.outbound.queued + self.recovery.outstanding

    @property
    def ready(self) -> bool:
        """Whether there is anything that could go."""
        return bool(self.outbound) or self.recovery.has_lost

    def take_sack(self, packet: bytes, start: int, end: int, now: float) -> int:
        """Take the SACK chunk in `packet`; give the bytes that it newly acknowledges.

        Raises:
            ValueError: when it is malformed or acknowledges what was never sent.
        """
        recovery = self.recovery
        tsn, window, offsets, duplicates = wire.parse_sack(packet, start, end)
        last = recovery.acknowledged
        tsn = last + ((tsn - last + 0x80000000) & _MASK) - 0x80000000
        if tsn < last:
            return 0  # overtaken by a later one
        acked = recovery.acknowledge(tsn, offsets, duplicates, now)
        if not window:
            recovery.dropped()
        elif not self.peer_window and recovery.outstanding:
            # What was sent into the closed window was dropped there; what was sent anew less than a round trip ago
            # nobody can have spoken of, or a window that opens and closes would have it sent again each time.
            if now - self._reopened_at >= recovery.rtt:
                self._reopened_at = now
                recovery.lose_all()
            else:
                recovery.look_soon(now)
        self.peer_window = window
        return acked

    @property
    def suspects_length(self) -> bool:
        """Whether what is not acknowledged may be too long for the path."""
        return self.path.size > self.path.base or self.recovery.first_repeated > self._base_room

    def waited(self) -> bool:
        """Note that an acknowledgement was waited for in vain.

        Returns:
            Whether there is a way out. There is none when a chunk that is out, which cannot be cut any more, does not
            get through in fragments either, as over IPv6, whose routers make none.
        """
        if self.recovery.silences < _SILENCES:
            self._stuck = 0
        elif self._short_passed and self.recovery.first_repeated > self._room:
            self._stuck += 1
        self._short_passed = False
        return self._stuck < _STUCK

    def short_passed(self) -> None:
        """Note that a short packet got through; if long ones are in vain meanwhile, the path has shrunk."""
        if self.recovery.silences < _SILENCES:
            return
        if self.recovery.first_repeated > self._room:
            self._short_passed = True  # it is from before the path shrank
        elif self.path.size > self.path.base:
            self.path.shrunk()
            self.resize()
            # The silence was no sign of a full queue.
            self.recovery.controller.restart()
            self.recovery.lose_all()

    def change_path(self, now: float) -> None:
        """Begin anew on another path."""
        self.path.restart()
        self.resize()
        self.recovery.change_path(now)
        self._allowance = 0.0
        self.pace_at = None

    def send(
        self, now: float, codec: PacketCodec, packets: list[bytes], head: bytes, most: int | None = None
    ) -> bytes:
        """Append packets, the first of them behind the chunks `head`; give what of `head` has not gone.

        At most `most` bytes go, where that is not None.
        """
        recovery = self.recovery
        window, pacing = recovery.controller.window, recovery.controller.pacing
        small_window = window if window < 8 * self._mtu else 1 << 60
        allowance = self._take_allowance(now, pacing)
        full = self._room
        idle = sent_any = False
        recovery.begin(now)
        while True:
            if most is not None:
                full = min(self._room, most - PACKET_OVERHEAD)
                if full < len(head) + _LEAST_ROOM:
                    break
            if recovery.in_flight:
                if recovery.in_flight >= window:
                    break
                if allowance <= 0:
                    self.pace_at = now + (self._burst(pacing) / 2 - allowance) / pacing
                    break
            if len(packets) >= self._batch:
                self.more = True
                break
            recovery.order += 1
            if recovery.has_lost:
                if not self.peer_window and recovery.in_flight:
                    break
                body = self._bundle_lost(head, full, bounded=most is not None)
            else:
                body = self._bundle_new(head, full, small_window)
            if len(body) > len(head):
                packets.append(codec.encode(body))
                allowance -= len(body)
                if most is not None:
                    most -= len(body) + PACKET_OVERHEAD
                head = b""
                sent_any = True
            elif head and self._fits_alone():
                # Only the head stands in its way.
                packets.append(codec.encode(head))
                head = b""
            else:
                idle = True  # nothing is left, or the peer's reader is what limits: not the path
                break
        self._allowance = allowance
        if sent_any:
            recovery.end(now, idle=idle)
        return head

    def _bundle_lost(self, body: bytes, full: int, *, bounded: bool) -> bytes:
        recovery = self.recovery
        while (chunk := recovery.resend(full - len(body), alone=not body and not bounded)) is not None:
            body += chunk
            if recovery.in_vain and len(chunk) > self._base_room:
                self.path.shrunk()
                self.resize()
                break
        recovery.in_vain = False
        return body

    def _bundle_new(self, body: bytes, full: int, small_window: int) -> bytes:
        recovery, outbound = self.recovery, self.outbound
        room = full - len(body)
        fragment, peer_window = self._fragment, self.peer_window
        while room > DATA_HEADER_BYTES:
            if recovery.outstanding and recovery.outstanding + fragment > peer_window:
                break
            taken = outbound.take(room - DATA_HEADER_BYTES)
            if taken is None:
                break
            flags, stream, sequence, protocol, data = taken
            size = len(data)
            if not outbound or recovery.in_flight + size >= small_window:
                flags |= FLAG_IMMEDIATE
            header = DATA_HEADER.pack(
                0, flags, DATA_HEADER_BYTES + size, recovery.next_tsn & _MASK, stream, sequence, protocol
            )
            chunk = header + data + bytes(-size & 3) if size & 3 else header + data
            recovery.sent(chunk, size)
            body = body + chunk if body else chunk
            room -= len(chunk)
        return body

    def _fits_alone(self) -> bool:
        """Whether something could go in a packet without a head."""
        recovery = self.recovery
        if recovery.has_lost:
            return True
        return bool(self.outbound) and (
            not recovery.outstanding or recovery.outstanding + self._fragment <= self.peer_window
        )

    def _burst(self, pacing: float) -> float:
        return max(pacing * _TIMER_SECONDS, 10.0 * self._mtu)

    def _take_allowance(self, now: float, pacing: float) -> float:
        """Return the bytes that pacing lets go now."""
        self.pace_at = None
        self.more = False
        elapsed, self._paced_at = now - self._paced_at, now
        if not pacing:
            return float("inf")
        return min(self._allowance + elapsed * pacing, self._burst(pacing))

    def stop(self) -> None:
        """Forget what is queued, and send nothing more."""
        self.outbound.clear()
        self.recovery.lose_all()
        self.recovery.timeout_at = self.recovery.probe_at = self.pace_at = None
        self.path.stop()
        self.more = False
