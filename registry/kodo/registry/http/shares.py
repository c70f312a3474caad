"""Places for requests: so many at once in all, of which no source takes those that others need."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from kodo.p2p.core.hosts import THIS_MACHINE
from kodo.registry.problems import problem

__all__ = ["Shares"]


class Shares:
    """Counts who has how many places. One event loop.

    Once half are taken, a source gets none beyond a quarter of them; this machine, where a proxy may be that is not
    named, none beyond three quarters.

    Args:
        most: places.
        what: what they are for, as "readers".
        retry_after_s: when whoever got none should try again.
    """

    def __init__(self, most: int, what: str, *, retry_after_s: int = 1) -> None:
        self.most = most
        self._what = what
        self._retry_after_s = retry_after_s
        self._held: Counter[str] = Counter()
        self._all = 0

    @contextlib.contextmanager
    def hold(self, source: str) -> Iterator[None]:
        """Hold a place inside the block.

        Raises:
            CallError: 503 `busy`, 429 `too-often`.
        """
        if self._all >= self.most:
            raise problem(503, "busy", f"too many {self._what} at once; try later", retry_after_s=self._retry_after_s)
        if self._crowds(source):
            told = f"too many {self._what} of yours at once; wait until some have been answered"
            raise problem(429, "too-often", told, retry_after_s=self._retry_after_s)
        self._held[source] += 1
        self._all += 1
        try:
            yield
        finally:
            self._all -= 1
            self._held[source] -= 1
            if not self._held[source]:
                del self._held[source]

    def _crowds(self, source: str) -> bool:
        """Return whether a source has so many that it has to leave the rest to others."""
        each = self.most - self.most // 4 if source == THIS_MACHINE else max(self.most // 4, 1)
        return self._all >= self.most // 2 and self._held[source] >= each
