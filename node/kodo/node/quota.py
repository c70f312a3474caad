"""How much of the disk a node may take: its database, outputs, uploads and memories together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kodo.p2p.errors import CapacityError

__all__ = ["NeverFitsError", "Quota"]


class NeverFitsError(CapacityError):
    """There is not so much room however long one waits."""


class Quota:
    """A bound, and what is counted against it.

    Args:
        limit: bytes; None: no bound.
        counts: each gives the bytes of one kind, at once.
    """

    def __init__(self, limit: int | None, counts: Sequence[Callable[[], int]]):
        self.limit = limit
        self._counts = list(counts)
        self._told: list[Callable[[], None]] = []

    def add(self, count: Callable[[], int]) -> None:
        """Count one more kind."""
        self._counts.append(count)

    @property
    def taken(self) -> int:
        """The bytes that are taken."""
        return sum(count() for count in self._counts)

    def tell(self, told: Callable[[], None]) -> None:
        """Have `told` called whenever something is refused: what need not be kept should go."""
        self._told.append(told)

    def check(self, size: int = 0) -> None:
        """Check that `size` more bytes stay within the bound.

        Raises:
            NeverFitsError: they are more than the bound.
            CapacityError: the bound is reached.
        """
        if self.limit is None:
            return
        if size > self.limit:
            raise NeverFitsError(f"{size} bytes never fit: this node may keep {self.limit} bytes (its quota)")
        taken = self.taken
        if taken + max(size, 1) > self.limit:
            for told in self._told:
                told()
            raise CapacityError(
                f"this node's quota is reached: it keeps {taken >> 20} MiB of the {self.limit >> 20} MiB that it may;"
                " delete runs, or acknowledge them, or ask its operator"
            )
