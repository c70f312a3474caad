"""A UDP socket on the event loop, in batches: many datagrams for one wake-up, many for one system call.

On Linux the kernel joins datagrams of one sender on receipt (GRO) and cuts one buffer into datagrams on sending
(GSO); both are probed on the socket, and everything works without them. Source: Linux udp(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kodo.p2p.core.joined import Joined, join_more
from kodo.p2p.net import udp
from kodo.p2p.net.unexpected import note

__all__ = ["Endpoint", "Source", "Via"]


class Via(NamedTuple):
    """Through what a datagram comes that is relayed.

    Attributes:
        relay: where the relay is.
        channel: what the relay calls the other end.
    """

    relay: Source
    channel: int


class Source(NamedTuple):
    """Who is at the other end of a datagram.

    Attributes:
        host: IP address.
        port: UDP.
        local: the address of this machine that it came to, and that an answer comes from; "" for whichever.
        interface: number of the network interface where `host` is a link-local IPv6 address, else 0.
        via: the relay through which it goes; endpoints send to that, and know nothing of it.
    """

    host: str
    port: int
    local: str = ""
    interface: int = 0
    via: Via | None = None


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
_CANNOT_CUT = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)
"""Linux's answers to GSO that an interface does not do: any other error is about where the datagrams go."""


class Endpoint:
    """Sends and receives datagrams until it is closed; owns the socket.

    Args:
        sock: bound, non-blocking.
        received: gets each datagram and where it came from.
        batch_ended: is called after the datagrams of one wake-up.
        failed: gets errors, and to whom the datagram went if that is known. What the network reports is only told of
            sockets by `udp.unconnected`, and on Linux.
        received_block: gets what the kernel has joined instead: datagrams one behind the other, and how long each is
            but the last, which may be shorter.
    """

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[bytes, Source], None],
        batch_ended: Callable[[], None],
        failed: Callable[[OSError, Source | None], None] = lambda error, to: None,
        received_block: Callable[[bytes, int, Source], None] | None = None,
    ) -> None:
        self._sock = sock
        self._received = received
        self._received_block = received_block
        self._batch_ended = batch_ended
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, int, Source]] = deque()
        self._gro = self._probe(_UDP_GRO, 1)
        self._gso = self._probe(_UDP_SEGMENT, 0)
        self._tells_errors = udp.tells_errors(sock)
        self._tells_local = not self._tells_errors and udp.tells_local(sock)
        self._control_bytes = socket.CMSG_SPACE(4) + socket.CMSG_SPACE(udp.LOCAL_BYTES)
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
        return Source(name[0], name[1])

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
        known, source = None, Source("", 0)
        try:
            for _ in range(DRAIN_DATAGRAMS):
                if sock.fileno() < 0:
                    return
                if drained >= DRAIN_BYTES:
                    break
                size, local = 0, ""
                if self._gro or self._tells_local:
                    data, control, _, name = sock.recvmsg(_GRO_BYTES, self._control_bytes)
                    for level, _, value in control:
                        if level == socket.IPPROTO_UDP:
                            (size,) = struct.unpack_from("i", value)
                        else:
                            local = udp.read_local(value)
                else:
                    data, name = sock.recvfrom(_GRO_BYTES)
                drained += len(data)
                if not name or not name[1]:
                    continue  # from port 0, to which nothing can be sent
                if (name, local) != known:  # most of a batch comes from one
                    known = name, local
                    source = Source(name[0], name[1], local, name[3] if len(name) == 4 else 0)
                if size and self._received_block is not None:
                    self._take_block(data, size, source)
                elif size:
                    for begin in range(0, len(data), size):
                        self._take(data[begin : begin + size], source)
                else:
                    self._take(data, source)
        except (BlockingIOError, InterruptedError):
            if not drained:
                self._read_errors()
        except OSError as error:
            if not self._read_errors():
                self._failed(error, None)
        try:
            self._batch_ended()
        except Exception as error:
            note("a batch of datagrams was not answered", error)

    def _read_errors(self) -> bool:
        """Pass on what the network said of single datagrams; return whether it said anything."""
        told = False
        if not self._tells_errors:
            return told
        for _ in range(DRAIN_DATAGRAMS):
            if self._sock.fileno() < 0 or (found := udp.read_error(self._sock)) is None:
                break
            told = True
            number, (host, port, interface) = found
            self._failed(OSError(number, os.strerror(number)), Source(host, port, "", interface))
        return told

    def _take(self, data: bytes, source: Source) -> None:
        """Pass one datagram to its receiver; what fails over it keeps no other from being served."""
        try:
            self._received(data, source)
        except Exception as error:
            note("a datagram is passed over", error)

    def _take_block(self, block: bytes, size: int, source: Source) -> None:
        """The same of datagrams that the kernel has joined."""
        assert self._received_block is not None
        try:
            self._received_block(block, size, source)
        except Exception as error:
            note("datagrams are passed over", error)

    # sending

    def send(self, datagrams: Sequence[bytes], to: Source) -> None:
        """Send datagrams; what finds no room is dropped in the end."""
        if self._sock.fileno() < 0:
            return
        index = 0
        if self._gso and 1 < len(datagrams) <= _SEGMENTS:
            size = len(datagrams[0])
            if size * len(datagrams) <= _SEGMENT_BYTES and len(set(map(len, datagrams))) == 1:
                self._send(b"".join(datagrams), size, to)
                return
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

    def send_joined(self, pieces: Sequence[Joined], to: Source) -> None:
        """Send datagrams that are joined already, as `send` does."""
        if self._sock.fileno() < 0:
            return
        for block, size in join_more(pieces, _SEGMENTS, _SEGMENT_BYTES) if len(pieces) > 1 else pieces:
            if len(block) <= size:
                self._send(block, 0, to)
            elif self._gso and len(block) <= min(_SEGMENT_BYTES, _SEGMENTS * size):
                self._send(block, size, to)
            else:
                self.send(Joined(block, size).datagrams(), to)

    def send_whole(self, datagram: bytes, to: Source) -> bool:
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

    def send_near(self, datagram: bytes, to: Source, hops: int) -> None:
        """Send one datagram that passes so many routers at most; it is dropped where that cannot be."""
        if self._sock.fileno() >= 0 and not self._waiting:
            with contextlib.suppress(OSError), udp.hops(self._sock, hops):
                self._send_now(datagram, 0, to)

    def send_split(self, datagrams: Sequence[bytes], to: Source) -> None:
        """Send datagrams that are too long for the path: the network may fragment them."""
        if self._sock.fileno() < 0:
            return
        with contextlib.suppress(OSError), udp.fragmenting(self._sock, allowed=True):
            for datagram in datagrams:
                self._send(datagram, 0, to)

    def _send(self, block: bytes, segment: int, to: Source, *, again: bool = True) -> None:
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
                if error.errno in _CANNOT_CUT and to.port:
                    # This interface cannot cut, or not into pieces as long as these: it is done here.
                    self._gso = segment > _ORDINARY_BYTES
                for begin in range(0, len(block), segment):
                    self._send(block[begin : begin + segment], 0, to)
            elif again and self._read_errors():
                self._send(block, segment, to, again=False)  # the error was that of an earlier datagram
            else:
                self._failed(error, to)

    def _send_now(self, block: bytes, segment: int, to: Source) -> None:
        name = (to.host, to.port, 0, to.interface) if to.interface else (to.host, to.port)
        control = udp.from_local(to.local, to.interface) if to.local and self._tells_local else ()
        if segment:
            cut = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", segment))
            self._sock.sendmsg([block], [cut, *control], 0, name)
        elif control:
            self._sock.sendmsg([block], control, 0, name)
        else:
            self._sock.sendto(block, name)

    def _wait(self, block: bytes, segment: int, to: Source) -> None:
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
                self._failed(error, to)
            self._waiting.popleft()
        with contextlib.suppress(OSError, ValueError):
            self._loop.remove_writer(self._sock)
