"""The events of a run that its node has not taken yet, in a file: what is in it outlives the flow's process.

Each is written when it is made, and the file emptied whenever the node has all. It is never synced: it is for the
death of a process, not of its machine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from kodo.p2p.net.files import open_plain, plain_descriptor

__all__ = ["SPOOL_FILE", "Spool", "read_spool", "unpack_spool"]

SPOOL_FILE = "unfetched"
"""Its name in the folder of a run."""

MAX_SPOOL_BYTES = 128 << 20
"""Beyond it the file is written anew with what is left: at most a fourth of it."""

_HEAD = 12


class Spool:
    """The file. One that cannot be written is given up: the run goes on without.

    Not safe for several threads.
    """

    def __init__(self, path: Path):
        """Begin an empty file (0600)."""
        self._size = 0
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = plain_descriptor(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    @property
    def full(self) -> bool:
        """Whether it is to be written anew."""
        return self._size > MAX_SPOOL_BYTES

    def add(self, rseq: int, packed: bytes) -> None:
        """Write one event."""
        record = rseq.to_bytes(8, "big") + len(packed).to_bytes(4, "big") + packed
        if self._file is None:
            return
        self._size += len(record)
        try:
            whole = os.write(self._file, record) == len(record)
        except OSError:
            whole = False
        if not whole:
            self._give_up()

    def clear(self, kept: Iterable[tuple[int, bytes]] = ()) -> None:
        """Empty the file, but for the events `kept`, with their numbers."""
        if self._file is not None and self._size:
            self._size = 0
            os.ftruncate(self._file, 0)
            for rseq, packed in kept:
                self.add(rseq, packed)

    def _give_up(self) -> None:
        """Write no more: an event that lacks would make a gap, and the disk is wanted for other things."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(file, 0)
            os.close(file)


def read_spool(path: Path, after: int, most: int) -> bytes:
    """Return the events of a file above the number `after`, at most `most` bytes of them; see `unpack_spool`.

    What was cut off, or is no such file, is left out.
    """
    found = bytearray()
    with contextlib.suppress(OSError), open_plain(path) as file:
        at = 0
        while at < 2 * MAX_SPOOL_BYTES and len(head := file.read(_HEAD)) == _HEAD:
            rseq, size = int.from_bytes(head[:8], "big"), int.from_bytes(head[8:], "big")
            at += _HEAD + size
            if rseq <= after:
                file.seek(at)
                continue
            if not size or len(found) + _HEAD + size > most:
                break
            event = file.read(size)
            if len(event) < size:
                break
            found += head + event
    return bytes(found)


def unpack_spool(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the events that `read_spool` returned, with their numbers."""
    at = 0
    while at < len(data):
        rseq, size = int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + _HEAD], "big")
        at += _HEAD + size
        yield rseq, data[at - size : at]
