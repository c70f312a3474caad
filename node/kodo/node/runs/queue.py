"""Runs that wait for a runner: one line per principal, served in turn; nobody's hundred hold up another's one.

    waits ──► holds a place ◄──► is parked (it waits for a person) ──► gone
                    └───────────────────────────────────────────────────┘

A run that waits for a person gives its place to others while its process stays. It takes the place again, at once and
beyond the bound, when it is answered: nobody's answer waits for other people's runs. Processes are bounded, as one
principal has at most as many runs with a process as there are places, and only so many in all are parked.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable

__all__ = ["FairQueue"]

_PARKED = 4
"""Parked runs in all, per place: a process that waits costs memory, and no CPU."""


def _extra(slots: int) -> int:
    """Return the places for principals who hold none: else the long runs of one keep all others out."""
    return slots // 4


class FairQueue:
    """Returns out places; round robin over principals, first come first served within each.

    Args:
        slots: places; a quarter more of them is for principals that hold none.
        spare: whether the machine has the memory to keep one more process that waits.
    """

    def __init__(self, slots: int, spare: Callable[[], bool] = lambda: True):
        self._slots = slots
        self._spare = spare
        self._held: dict[str, str] = {}
        self._parked: dict[str, str] = {}
        self._to_park: dict[str, None] = {}  # runs that hold a place and wait for a person, the first one first
        self._holding: Counter[str] = Counter()
        self._living: Counter[str] = Counter()
        self._lines: OrderedDict[str, OrderedDict[str, asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._lines.values()))

    def fids(self) -> frozenset[str]:
        """Return which runs wait."""
        return frozenset(fid for line in self._lines.values() for fid in line)

    async def turn(self, principal: str, fid: str) -> None:
        """Wait for a place; returns at once for a run that has one. Cancelling gives up the wait, or the place."""
        if fid in self._held or fid in self._parked:
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

    def take(self, principal: str, fid: str) -> None:
        """Note a run that has its runner already, even beyond the bound."""
        if fid not in self._held and fid not in self._parked:
            self._living[principal] += 1
            self._hold(principal, fid)

    def park(self, fid: str) -> None:
        """Pass the place of a run that waits for a person on, once its process can stay beside that one's.

        Whether it can is looked at whenever a run comes, goes, or is answered.
        """
        if fid in self._held:
            self._to_park[fid] = None
            self._serve()

    def resume(self, fid: str) -> None:
        """Return a parked run to its place."""
        self._to_park.pop(fid, None)
        principal = self._parked.pop(fid, None)
        if principal is not None:
            self._hold(principal, fid)
            self._serve()

    def leave(self, fid: str) -> None:
        """Pass a run's place to the next; one that has none changes nothing."""
        self._to_park.pop(fid, None)
        if fid in self._held:
            principal = self._let_go(fid)
        elif fid in self._parked:
            principal = self._parked.pop(fid)
        else:
            return
        self._living[principal] -= 1
        if not self._living[principal]:
            del self._living[principal]
        self._serve()

    def position(self, fid: str) -> int | None:
        """Return how many turns are left until it is this run's, from 1; None when it does not wait."""
        for rank, line in enumerate(self._lines.values()):
            if fid in line:
                ahead = list(line).index(fid)
                others = [len(other) for other in self._lines.values()]
                # Each round serves one of every line; lines before this one are a round ahead.
                return 1 + sum(min(count, ahead + (place < rank)) for place, count in enumerate(others))
        return None

    def _hold(self, principal: str, fid: str) -> None:
        self._held[fid] = principal
        self._holding[principal] += 1

    def _let_go(self, fid: str) -> str:
        principal = self._held.pop(fid)
        self._holding[principal] -= 1
        if not self._holding[principal]:
            del self._holding[principal]
        return principal

    def _may(self, principal: str) -> bool:
        if self._living[principal] >= self._slots:
            return False
        if len(self._held) < self._slots:
            return True
        return len(self._held) < self._slots + _extra(self._slots) and not self._holding[principal]

    def _serve(self) -> None:
        while self._to_park and len(self._parked) < _PARKED * self._slots and self._spare():
            fid = next(iter(self._to_park))
            del self._to_park[fid]
            self._parked[fid] = self._let_go(fid)
        while (principal := next(filter(self._may, self._lines), None)) is not None:
            line = self._lines.pop(principal)
            fid, place = line.popitem(last=False)
            if line:
                self._lines[principal] = line
            if not place.done():
                self.take(principal, fid)
                place.set_result(None)
