"""What a node need not keep any more: found, shown, removed, in intervals and on call.

`stale` and `clean` go by the same list, so what is shown is what goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from kodo.node.clock import Clock, wait_or_sleep
from kodo.node.housekeeping.cleanup import Chore, Stale
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError, KodoError, UsageError

__all__ = ["Housekeeping"]

logger = logging.getLogger(__name__)

_PAUSE_S = 60.0
"""Seconds between two rounds at least, however often one is asked for."""


class Housekeeping:
    """Finds and removes.

    Args:
        chores: the kinds, in the order in which they are seen to.
        interval_s: seconds between two rounds.
    """

    def __init__(self, store: Store, chores: Sequence[Chore], clock: Clock, *, interval_s: float = 600.0):
        self._store = store
        self._chores = list(chores)
        self._clock = clock
        self._interval_s = interval_s
        self._wanted = asyncio.Event()

    @property
    def kinds(self) -> list[str]:
        """The kinds of things that it looks after."""
        return [chore.kind for chore in self._chores]

    def add(self, chore: Chore) -> None:
        """Look after one more kind."""
        self._chores.append(chore)

    async def stale(self, kinds: Sequence[str] | None = None) -> list[Stale]:
        """Return what can go now, of all kinds or of some; of each the oldest first.

        Raises:
            UsageError: there is no such kind.
        """
        now = self._clock.now_ms()
        found = [stale for chore in self._chosen(kinds) for stale in await chore.stale(now)]
        # What a run remembers goes with it, and counts there.
        with_runs = {f"short/{each.id}" for each in found if each.kind in ("run", "unread")}
        return [each for each in found if each.kind != "memory" or each.id not in with_runs]

    async def clean(self, kinds: Sequence[str] | None = None) -> list[Stale]:
        """Remove what `stale` names and return the database's space to the disk; give what was removed."""
        gone: list[Stale] = []
        chores = {chore.kind: chore for chore in self._chosen(kinds)}
        for each in await self.stale(kinds):
            try:
                await chores[each.kind].remove(each)
            except KodoError as error:
                if not (isinstance(error, CallError) and error.code == 404):
                    logger.warning("housekeeping could not remove a stale %s: %s", each.kind, error)
                continue
            gone.append(each)
        if await self._store.shrink():
            await self._store.scrub()
        return gone

    def hurry(self) -> None:
        """Start a round soon: room is short."""
        self._wanted.set()

    async def keep(self) -> None:
        """Clean in intervals, for ever."""
        while True:
            self._wanted.clear()
            try:
                await self.clean()
            except KodoError as error:
                logger.warning("housekeeping failed, and tries again later: %s", error)
            pause = min(_PAUSE_S, self._interval_s)
            await self._clock.sleep(pause)
            await wait_or_sleep(self._clock, self._wanted, self._interval_s - pause)

    def _chosen(self, kinds: Sequence[str] | None) -> list[Chore]:
        unknown = set(kinds or ()) - set(self.kinds)
        if unknown:
            raise UsageError(f"there is no kind {sorted(unknown)[0]!r}; the kinds are {', '.join(self.kinds)}")
        return [chore for chore in self._chores if kinds is None or chore.kind in kinds]
