"""The one ledger of a node's disk: what is kept, what is promised to whom, and what may still be written.

Every writer of files and events asks it first (`kodo.protocol.room`), so that many at once cannot be given the same
bytes, and again while it writes, because others fill disks too. Two bounds: `reserve_bytes` of the disk stay free
whatever flows and callers write, so that the node can still say how runs ended; and the node keeps at most
`quota_bytes` in all.

A promise counts whole against the quota until it is closed, and against the disk by what is not yet written: what is
written, the disk itself counts.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kodo.p2p.errors import CapacityError
from kodo.protocol.room import ClosedAtEnd, Promise, Room

__all__ = ["Ledger", "NeverFitsError", "QuotaReachedError"]


class NeverFitsError(CapacityError):
    """There is not so much room however long one waits."""


class QuotaReachedError(CapacityError):
    """The node keeps as much as it may."""


class Ledger:
    """Decides who may write how much. Its methods may be called in any thread.

    Args:
        root: a folder of the disk.
        reserve_bytes: what stays free on it.
        quota_bytes: what the node may keep in all; None: no bound.
        disk: gives `total` and `free` bytes of the disk of a folder.
    """

    def __init__(
        self,
        root: Path,
        *,
        reserve_bytes: int = 0,
        quota_bytes: int | None = None,
        disk: Callable[[Path], Any] = shutil.disk_usage,
    ):
        self.root = root
        self.reserve_bytes = reserve_bytes
        self.quota_bytes = quota_bytes
        self._disk = disk
        self._counts: list[tuple[str, Callable[[], int]]] = []
        self._owed: list[Callable[[], int]] = []
        self._told: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self._open: set[_Promise] = set()
        self._writing = 0

    def count(self, count: Callable[[], int], part: str = "files") -> None:
        """Count what one part takes; bytes of promises that are open are left out of it. It must be quick."""
        self._counts.append((part, count))

    def owe(self, count: Callable[[], int]) -> None:
        """Keep room for what is written without asking, as when a write-ahead log is folded into its file."""
        self._owed.append(count)

    def tell(self, told: Callable[[], object]) -> None:
        """Call `told`, in any thread, whenever something is refused: what need not be kept should go."""
        self._told.append(told)

    @property
    def taken(self) -> int:
        """The bytes that are kept."""
        return sum(count() for _, count in self._counts)

    @property
    def parts(self) -> list[tuple[str, int]]:
        """The bytes that each part takes."""
        return [(part, count()) for part, count in self._counts]

    def check(self) -> None:
        """Check that there is room for anything.

        Raises:
            CapacityError: the quota is reached, or the disk is nearly full.
        """
        self.promise(0).close()

    @property
    def owed(self) -> int:
        """The bytes that will be written without asking."""
        return sum(count() for count in self._owed)

    @property
    def promised(self) -> int:
        """The bytes that are promised and not yet written."""
        return sum(promise.left for promise in self._open)

    def share_of(self, holder: str) -> Room:
        """Return the room of one who sends at a pace of its own: half of what others leave is promised to it.

        One of them must not take all room from the others for as long as it likes.
        """
        return _Share(self, holder)

    def promise(self, size: int, holder: str | None = None) -> Promise:
        """Keep `size` bytes for the caller, who closes the promise; 0 asks whether there is room at all.

        Args:
            holder: see `share_of`.

        Raises:
            NeverFitsError: they do not fit even when all else is gone.
            CapacityError: there is not so much room now.
        """
        made = _Promise(self, size, holder)
        try:
            with self._lock:
                room = min(self._check_quota(max(size, 1)), self._check_disk(size, self.promised))
                if holder is not None:
                    self._check_share(size, holder, room)
                self._open.add(made)
        except CapacityError:
            self._tell()
            raise
        return made

    # --- of promises ---

    @contextlib.contextmanager
    def write(self, promise: _Promise, size: int) -> Iterator[None]:
        """Keep watch while `size` bytes of a promise are being written."""
        try:
            with self._lock:
                self._check_quota(0)
                self._check_disk(size, self._writing)
                self._writing += size
        except CapacityError:
            self._tell()
            raise
        try:
            yield
        finally:
            with self._lock:
                self._writing -= size
                promise.left = max(promise.left - size, 0)

    def close(self, promise: _Promise) -> None:
        """Forget a promise."""
        with self._lock:
            self._open.discard(promise)

    # --- inside ---

    def _check_share(self, size: int, holder: str, room: int) -> None:
        mine = sum(promise.left for promise in self._open if promise.holder == holder)
        if mine + size > (room + mine) // 2:
            raise CapacityError(
                f"{size} bytes are too many: what you are sending may take half of the room that others leave on"
                f" this node ({(room + mine) >> 20} MiB, {mine >> 20} MiB of them promised to you already);"
                " delete uploads or runs"
            )

    def _check_quota(self, size: int) -> int:
        """Return the bytes that the quota leaves."""
        limit = self.quota_bytes
        if limit is None:
            return sys.maxsize
        if size > limit:
            raise NeverFitsError(f"{size} bytes can never fit: this node's quota is {limit} bytes")
        taken = self.taken + self.owed + sum(promise.size for promise in self._open)
        if taken + size > limit:
            raise QuotaReachedError(
                f"this node's quota is reached: {taken >> 20} MiB of {limit >> 20} MiB are used;"
                " delete or acknowledge runs, or ask its operator"
            )
        return limit - taken

    def _check_disk(self, size: int, kept: int) -> int:
        """Return the bytes that the disk leaves beside `kept`."""
        usage = self._disk(self.root)
        kept += self.owed
        if size > usage.total - self.reserve_bytes:
            raise NeverFitsError(
                f"{size} bytes can never fit on the disk under {self.root}: it has {usage.total >> 20} MiB,"
                f" of which {self.reserve_bytes >> 20} MiB are kept in reserve"
            )
        room = int(usage.free) - self.reserve_bytes - kept
        if size > room:
            raise CapacityError(
                f"the disk under {self.root} is nearly full: {usage.free >> 20} MiB free, {self.reserve_bytes >> 20}"
                f" MiB are kept in reserve, {kept >> 20} MiB are being written; free some space"
            )
        return room

    def _tell(self) -> None:
        for told in self._told:
            told()


class _Share:
    """See `Ledger.share_of`."""

    def __init__(self, ledger: Ledger, holder: str):
        self._ledger = ledger
        self._holder = holder

    def promise(self, size: int) -> Promise:
        return self._ledger.promise(size, self._holder)


class _Promise(ClosedAtEnd):
    """See `kodo.protocol.room.Promise`; `left`: the bytes that are not yet written."""

    def __init__(self, ledger: Ledger, size: int, holder: str | None):
        self.size = size
        self.holder = holder
        self.left = size
        self._ledger = ledger

    def writing(self, size: int) -> contextlib.AbstractContextManager[None]:
        return self._ledger.write(self, size)

    def close(self) -> None:
        self._ledger.close(self)
