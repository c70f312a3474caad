"""What sessions may keep in memory together: one budget for all of a process, and one for each source among them.

Each link says what it keeps: what is queued for its peer, what was not read, what waits to be looked at, and what
readers keep of frames that are not whole. Over a budget the link that keeps most is cut, of the source that keeps
most, so that whoever keeps little is left alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["PROCESS_BYTES", "SOURCE_BYTES", "Account", "Budget", "shared_budget"]

PROCESS_BYTES = 512 << 20
SOURCE_BYTES = 128 << 20
"""One session at its bounds, with a frame of a call begun on each stream, keeps about 80 MiB."""


class Account:
    """What one link keeps; made by `Budget.open`.

    Attributes:
        bytes: what it keeps now.
    """

    __slots__ = ("_budget", "bytes", "cut", "source")

    def __init__(self, budget: Budget, source: str, cut: Callable[[], None]) -> None:
        self._budget = budget
        self.source = source
        self.cut = cut
        self.bytes = 0

    def keeps(self, count: int) -> None:
        """Report what the link keeps now; may cut it, or others."""
        if count != self.bytes:
            self._budget.change(self, count)

    def close(self) -> None:
        """Count the link no longer; idempotent."""
        self._budget.close(self)


class Budget:
    """The bytes that the links which share it keep.

    Args:
        most: bytes of all links together.
        most_of_source: bytes of the links to one source.
    """

    def __init__(self, most: int = PROCESS_BYTES, most_of_source: int = SOURCE_BYTES) -> None:
        self._most = most
        self._most_of_source = most_of_source
        self._accounts: dict[str, set[Account]] = {}
        self._sources: Counter[str] = Counter()
        self.total = 0

    def open(self, source: str, cut: Callable[[], None]) -> Account:
        """Count one link to `source`; `cut` ends it, and is to close its account."""
        account = Account(self, source, cut)
        self._accounts.setdefault(source, set()).add(account)
        return account

    def change(self, account: Account, count: int) -> None:
        """Take what a link keeps now, and cut links until the budgets hold."""
        source = account.source
        if account not in self._accounts.get(source, ()):
            return
        grown = count - account.bytes
        account.bytes = count
        self._sources[source] += grown
        self.total += grown
        if grown > 0:
            while self._sources[source] > self._most_of_source:
                self._cut_biggest(source)
            while self.total > self._most:
                self._cut_biggest(max(self._sources, key=self._sources.__getitem__))

    def _cut_biggest(self, source: str) -> None:
        biggest = max(self._accounts[source], key=lambda account: account.bytes)
        self.close(biggest)
        biggest.cut()

    def close(self, account: Account) -> None:
        """See `Account.close`."""
        accounts = self._accounts.get(account.source)
        if accounts is None or account not in accounts:
            return
        accounts.remove(account)
        self._sources[account.source] -= account.bytes
        self.total -= account.bytes
        if not accounts:
            del self._accounts[account.source], self._sources[account.source]


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[int, int], Budget]] = WeakKeyDictionary()


def shared_budget(most: int, most_of_source: int) -> Budget:
    """Return the budget of all hosts of this process that have the same bounds; cutting is for their event loop.

    A node that listens and one that dials others, or probes them, are of one process, and share its memory.
    """
    budgets = _shared.setdefault(asyncio.get_running_loop(), {})
    return budgets.setdefault((most, most_of_source), Budget(most, most_of_source))
