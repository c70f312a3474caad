"""A UDP socket on the event loop, in batches: many datagrams for one wake-up, many for one system call.

On Linux the kernel joins datagrams of one sender on receipt (GRO) and cuts one buffer into datagrams on sending
(GSO); both are probed on the socket, and everything works without them. Source: Linux udp(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from kodo.p2p.net import udp
from kodo.p2p.net.unexpected import note

__all__ = ["Endpoint", "Source"]

Source = tuple[str, int]

DRAIN_DATAGRAMS = 64
"""System calls for one wake-up: more would keep others waiting."""
DRAIN_BYTES = 256 << 10
"""The same in bytes, half a millisecond's work."""
QUEUED_DATAGRAMS = 4096
"""What waits for a socket that takes no more; further datagrams are dropped, as a network would."""
_UDP_SEGMENT, _UDP_GRO = 103, 104
_SEGMENTS, _SEGMENT_BYTES = 60, 65_507 - 20
"""Bounds of one GSO send: Linux takes 64 segments and 65,507 bytes, over IPv6 20 less."""
_ORDINARY_BYTES = 1280
_GRO_BYTES = 1 << 16


class Endpoint:
    """Sends and receives datagrams until it is closed; owns the socket.

    Args:
        sock: bound or connected, non-blocking.
        received: gets each datagram and where it came from.
        batch_ended: is called after the datagrams of one wake-up.
        failed: gets errors that the network reports of a connected socket.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[bytes, Source], None],
        batch_ended: Callable[[], None],
        failed: Callable[[OSError], None] = lambda error: None,
    ) -> None:
        self._sock = sock
        self._received = received
        self._batch_ended = batch_ended
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, int, Source | None]] = deque()
        self._gro = self._probe(_UDP_GRO, 1)
        self._gso = self._probe(_UDP_SEGMENT, 0)
        self._control_bytes = socket.CMSG_SPACE(4)
        self._loop.add_reader(sock, self._read)

    def _probe(self, option: int, value: int) -> bool:
        try:
            self._sock.setsockopt(socket.IPPROTO_UDP, option, value)
        except OSError:
            return False
        return True

    @property
    def address(self) -> Source:
        """The local address."""
        name = self._sock.getsockname()
        return name[0], name[1]

    def close(self) -> None:
        """Close the socket; idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()
        self._waiting.clear()

    # receiving

    def _read(self) -> None:
        sock, drained = self._sock, 0
        try:
            for _ in range(DRAIN_DATAGRAMS):
                if sock.fileno() < 0:
                    return
                if drained >= DRAIN_BYTES:
                    break
                if self._gro:
                    data, control, _, name = sock.recvmsg(_GRO_BYTES, self._control_bytes)
                    source = (name[0], name[1]) if name else ("", 0)
                    drained += len(data)
                    if control:
                        (size,) = struct.unpack_from("i", control[0][2])
                        for begin in range(0, len(data), size):
                            self._take(data[begin : begin + size], source)
                        continue
                else:
                    data, name = sock.recvfrom(_GRO_BYTES)
                    source = (name[0], name[1]) if name else ("", 0)
                    drained += len(data)
                self._take(data, source)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._failed(error)
        try:
            self._batch_ended()
        except Exception as error:
            note("a batch of datagrams was not answered", error)

    def _take(self, data: bytes, source: Source) -> None:
        """Pass one datagram to its receiver; what fails over it keeps no other from being served."""
        try:
            self._received(data, source)
        except Exception as error:
            note("a datagram is passed over", error)

    # sending

    def send(self, datagrams: Sequence[bytes], to: Source | None = None) -> None:
        """Send datagrams, to the connected address when `to` is None; what finds no room is dropped in the end."""
        if self._sock.fileno() < 0:
            return
        index = 0
        while index < len(datagrams):
            first = datagrams[index]
            end = index + 1
            if self._gso and len(datagrams) - index > 1:
                size, most = len(first), min(index + _SEGMENTS, index + max(_SEGMENT_BYTES // max(len(first), 1), 1))
                # All of one size; the last may be shorter.
                while end < len(datagrams) and end < most and len(datagrams[end]) <= size:
                    end += 1
                    if len(datagrams[end - 1]) < size:
                        break
            block = first if end == index + 1 else b"".join(datagrams[index:end])
            self._send(block, len(first) if end > index + 1 else 0, to)
            index = end

    def send_whole(self, datagram: bytes, to: Source | None = None) -> bool:
        """Send one datagram that is not to be fragmented on its way; False when this machine cannot."""
        if self._sock.fileno() < 0 or self._waiting:
            return True
        try:
            with udp.fragmenting(self._sock, allowed=False):
                self._send_now(datagram, 0, to)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return True

    def send_split(self, datagrams: Sequence[bytes], to: Source | None = None) -> None:
        """Send datagrams that are too long for the path: the network may fragment them."""
        if self._sock.fileno() < 0:
            return
        with contextlib.suppress(OSError), udp.fragmenting(self._sock, allowed=True):
            for datagram in datagrams:
                self._send(datagram, 0, to)

    def _send(self, block: bytes, segment: int, to: Source | None) -> None:
        if self._waiting:
            self._wait(block, segment, to)
            return
        try:
            self._send_now(block, segment, to)
        except (BlockingIOError, InterruptedError):
            self._wait(block, segment, to)
            self._loop.add_writer(self._sock, self._write)
        except OSError as error:
            if segment and self._gso:
                # This interface cannot cut, or not into pieces as long as these: it is done here.
                self._gso = segment > _ORDINARY_BYTES
                for begin in range(0, len(block), segment):
                    self._send(block[begin : begin + segment], 0, to)
            else:
                self._failed(error)

    def _send_now(self, block: bytes, segment: int, to: Source | None) -> None:
        if segment:
            control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", segment))]
            if to is None:
                self._sock.sendmsg([block], control)
            else:
                self._sock.sendmsg([block], control, 0, to)
        elif to is None:
            self._sock.send(block)
        else:
            self._sock.sendto(block, to)

    def _wait(self, block: bytes, segment: int, to: Source | None) -> None:
        if len(self._waiting) < QUEUED_DATAGRAMS:
            self._waiting.append((block, segment, to))

    def _write(self) -> None:
        while self._waiting:
            block, segment, to = self._waiting[0]
            try:
                self._send_now(block, segment, to)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error)
            self._waiting.popleft()
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_writer(self._sock)
