"""Places that many want: nobody gets more than three quarters of those that the others leave. Pure."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from kodo.p2p.errors import CallError

__all__ = ["Places", "fair_share"]


def fair_share(most: int, others: int, each: int) -> int:
    """Return how many of `most` places one holder may have while others have `others`; `each` at most.

    Who is alone may have `each`; else there is always one for who comes next until the last is taken, and it takes
    many holders together to come to that.
    """
    left = most - others
    return min(each, most, left - left // 4 if others else left)


class Places:
    """Counts who holds how many places.

    Args:
        what: what a place is for, as "logins".
        most: places in all.
        each: of one holder, at most.
    """

    def __init__(self, what: str, *, most: int, each: int):
        self._what = what
        self._most = most
        self._each = each
        self._held: Counter[str] = Counter()

    def held(self, holder: str | None = None) -> int:
        """Return how many places are taken, by one holder or by all."""
        return self._held.total() if holder is None else self._held[holder]

    @contextlib.contextmanager
    def hold(self, holder: str) -> Iterator[None]:
        """Hold a place inside the block.

        Raises:
            CallError: 429 `busy`.
        """
        mine = self._held[holder]
        if mine >= fair_share(self._most, self._held.total() - mine, self._each):
            message = (
                f"{self._what} at once: {mine} by you or from your address, {self._held.total()} in all; try again"
            )
            raise CallError(429, "busy", message, {"retry_after_ms": 1000})
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            if not self._held[holder]:
                del self._held[holder]
