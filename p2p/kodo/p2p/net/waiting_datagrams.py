"""Datagrams of one link that wait for its turn, bounded in number and bytes; more is dropped, as a network would."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = [
    "DATAGRAM_COST",
    "HANDSHAKE_BYTES",
    "HANDSHAKE_DATAGRAMS",
    "WAITING_BYTES",
    "WAITING_DATAGRAMS",
    "WaitingDatagrams",
]

WAITING_DATAGRAMS = 4096
WAITING_BYTES = 6 << 20
"""Room for a whole window of small packets, with what each costs."""
HANDSHAKE_DATAGRAMS = 64
"""Before DTLS is over: one flight is a few datagrams."""
HANDSHAKE_BYTES = 64 << 10
DATAGRAM_COST = 256
"""Bytes that keeping a datagram takes besides its own."""


class WaitingDatagrams:
    """What came for a link and was not looked at, first in, first out.

    Attributes:
        bytes: what it takes in memory.
    """

    __slots__ = ("_waiting", "bytes")

    def __init__(self) -> None:
        self._waiting: deque[tuple[bytes, Callable[[], None]]] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, datagram: bytes, proved: Callable[[], None], *, encrypted: bool) -> None:
        """Keep one, and what is to be called once keys show that it is the peer's; what is too much is dropped.

        Args:
            encrypted: whether DTLS is over its handshake.
        """
        cost = len(datagram) + DATAGRAM_COST
        if encrypted:
            most, most_bytes = WAITING_DATAGRAMS, WAITING_BYTES
        else:
            most, most_bytes = HANDSHAKE_DATAGRAMS, HANDSHAKE_BYTES
        if len(self._waiting) < most and self.bytes + cost <= most_bytes:
            self._waiting.append((datagram, proved))
            self.bytes += cost

    def take(self) -> tuple[bytes, Callable[[], None]]:
        """Take the first one."""
        first = self._waiting.popleft()
        self.bytes -= len(first[0]) + DATAGRAM_COST
        return first

    def clear(self) -> None:
        """Drop all."""
        self._waiting.clear()
        self.bytes = 0
