"""How far a stream of events may be ahead of its reader: for those whose transport holds nobody back, as browsers."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from kodo.node.store.follow import Batch
from kodo.p2p.errors import CallError

__all__ = ["ReadAhead", "Reader"]

_SEQ_BYTES = 8


class Reader(Protocol):
    """What says how far it has read: the pieces behind the args of a call."""

    def uploads(self) -> AsyncIterator[bytes]:
        """Return its pieces, until it ends its way."""
        ...

    def arrived(self) -> Iterator[bytes]:
        """Return those of its pieces that are here."""
        ...


class ReadAhead:
    """Counts the bytes that were sent and not read.

    Args:
        most: so many may be out before the next are sent; what is sent at once may exceed it once.
    """

    def __init__(self, most: int, reader: Reader):
        self._most = most
        self._reader = reader
        self._pieces = reader.uploads()
        self._ended = False
        self._out: deque[tuple[int, int]] = deque()
        self._bytes = 0

    def parts(self, batch: Batch) -> Iterator[Batch]:
        """Cut a batch, at events, into parts of at most half of what may be out, or of one event."""
        if batch.size <= self._most // 2 or len(batch.events) == 1:
            yield batch
            return
        middle = batch.events[len(batch.events) // 2 - 1].seq
        first = batch.until(middle)
        if first is not None:
            yield from self.parts(first)
        yield from self.parts(batch.after(middle))

    async def room(self, last_seq: int, size: int) -> None:
        """Wait until `size` bytes may be sent, whose last event is `last_seq`. Cancelling is safe.

        Raises:
            CallError: 400, the reader says something else than how far it has read.
        """
        for piece in self._reader.arrived():
            self._read(piece)
        while self._out and self._bytes + size > self._most and not self._ended:
            try:
                self._read(await anext(self._pieces))
            except StopAsyncIteration:
                self._ended = True
        self._out.append((last_seq, size))
        self._bytes += size

    def _read(self, piece: bytes) -> None:
        if len(piece) != _SEQ_BYTES:
            raise CallError(400, "bad-call", f"run.stream: the reading position must have {_SEQ_BYTES} bytes")
        seq = int.from_bytes(piece, "big")
        while self._out and self._out[0][0] <= seq:
            self._bytes -= self._out.popleft()[1]
