"""Room on a disk: whoever writes files asks for it first, and again while it writes.

    with room.promise(size) as promise:       # refused, or nobody else is promised the same bytes
        for piece in pieces:
            with promise.writing(len(piece)): # refused when others have filled the disk meanwhile
                file.write(piece)

A node's ledger is one (`kodo.node.files.ledger`); a client, and a flow that is tested alone, have no bound but the
disk.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

__all__ = ["ENDLESS", "ClosedAtEnd", "Promise", "Room"]


class Promise(Protocol):
    """Bytes that are kept for one writer until it is closed. Its methods may be called in any thread."""

    def writing(self, size: int) -> AbstractContextManager[None]:
        """Enter before `size` of the bytes are written, leave when they are.

        Raises:
            CapacityError: there is no room for them any more.
        """
        ...

    def close(self) -> None:
        """Return what was not written; what was written is counted by whoever keeps it. Idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Room(Protocol):
    """Returns promises."""

    def promise(self, size: int) -> Promise:
        """Keep `size` bytes for the caller.

        Raises:
            CapacityError: there is not so much room.
        """
        ...


class ClosedAtEnd:
    """What makes a promise one for a `with` block: it is closed when that ends."""

    def close(self) -> None:
        """Return what was not written; see `Promise`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Endless(ClosedAtEnd):
    """Room without a bound, and a promise of it."""

    def promise(self, size: int) -> Promise:
        return self

    def writing(self, size: int) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing was kept."""


ENDLESS = _Endless()
"""For writers that nobody bounds but the disk itself."""
