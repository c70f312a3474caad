"""Runs that wait for a runner: one line per principal, served in turn; nobody's hundred hold up another's one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

__all__ = ["FairQueue"]


class FairQueue:
    """Gives out places, `slots` at once; round robin over principals, first come first served within each."""

    def __init__(self, slots: int):
        self._slots = slots
        self._held: set[str] = set()
        self._lines: OrderedDict[str, OrderedDict[str, asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    async def turn(self, principal: str, fid: str) -> None:
        """Wait for a place; returns at once for a run that has one. Cancelling gives up the wait, or the place."""
        if fid in self._held:
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(principal, OrderedDict())[fid] = place
        self._serve()
        try:
            await place
        except asyncio.CancelledError:
            line = self._lines.get(principal, OrderedDict())
            line.pop(fid, None)
            if not line:
                self._lines.pop(principal, None)
            self.leave(fid)
            raise

    def take(self, fid: str) -> None:
        """Note a run that has its runner already, even beyond the bound."""
        self._held.add(fid)

    def leave(self, fid: str) -> None:
        """Give a run's place to the next; one that has none changes nothing."""
        self._held.discard(fid)
        self._serve()

    def position(self, fid: str) -> int | None:
        """Give how many turns are left until it is this run's, from 1; None when it does not wait."""
        for rank, line in enumerate(self._lines.values()):
            if fid in line:
                ahead = list(line).index(fid)
                others = [len(other) for other in self._lines.values()]
                # Each round serves one of every line; lines before this one are a round ahead.
                return 1 + sum(min(count, ahead + (place < rank)) for place, count in enumerate(others))
        return None

    def _serve(self) -> None:
        while self._lines and len(self._held) < self._slots:
            principal, line = self._lines.popitem(last=False)
            fid, place = line.popitem(last=False)
            if line:
                self._lines[principal] = line
            if not place.done():
                self._held.add(fid)
                place.set_result(None)
