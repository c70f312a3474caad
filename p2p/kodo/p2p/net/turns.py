"""Whose turn it is on an event loop: sources that cost little go at once, those that cost much share what is left.

A loop does all that is ready before it looks for what came. A hundred links that take a millisecond each would make
everybody else's question wait a tenth of a second, three times until it is answered. So each source has a credit of
time that renews itself; who is within it has its turns at once. Who is over it waits in line: one link at a time, a
source after the other, for two milliseconds in each turn of the loop.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from weakref import WeakKeyDictionary

__all__ = ["CREDIT_SECONDS", "LINE_SECONDS", "RENEWED", "Turns", "turns_of"]

RENEWED = 0.05
"""Seconds of credit that a source gets in each second."""
CREDIT_SECONDS = 0.01
"""Credit that a source may have saved, and debt that it may have."""
LINE_SECONDS = 0.002
"""Time for those in line, in each turn of the loop."""
_SOURCES = 4096
"""Sources that are remembered; the one that cost something longest ago is forgotten first."""


class Turns:
    """The turns of one event loop; made by `turns_of`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._credit: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By source: its credit in seconds, and when it was that."""
        self._lines: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._left = LINE_SECONDS
        self._serving: asyncio.Handle | None = None
        self._renewing: asyncio.Handle | None = None

    def take(self, source: str, work: Callable[[], None]) -> bool:
        """Do work for a source, unless others are to come first; return whether it was done."""
        if source in self._lines:
            return False
        if self._credit_of(source, self._loop.time()) <= 0 and (self._lines or self._left <= 0):
            return False
        self._do(source, work)
        return True

    def take_or_wait(self, source: str, work: Callable[[], None]) -> None:
        """Do work for a source, at once or in line."""
        if not self.take(source, work):
            self._lines.setdefault(source, deque()).append(work)
            if self._serving is None:
                self._serving = self._loop.call_soon(self._serve)

    def _do(self, source: str, work: Callable[[], None]) -> None:
        begin = self._loop.time()
        try:
            work()
        finally:
            self._spend(source, self._loop.time() - begin)

    def _spend(self, source: str, seconds: float) -> None:
        if seconds <= 0:
            return
        now = self._loop.time()
        self._credit[source] = max(self._credit_of(source, now) - seconds, -CREDIT_SECONDS), now
        self._credit.move_to_end(source)
        if len(self._credit) > _SOURCES:
            self._credit.popitem(last=False)
        self._left -= seconds
        if self._renewing is None:
            self._renewing = self._loop.call_soon(self._renew)

    def _credit_of(self, source: str, now: float) -> float:
        credit, at = self._credit.get(source, (CREDIT_SECONDS, now))
        return min(credit + RENEWED * (now - at), CREDIT_SECONDS)

    def _renew(self) -> None:
        """Begin another turn of the loop."""
        self._renewing = None
        self._left = LINE_SECONDS

    def _serve(self) -> None:
        self._serving = None
        self._left = LINE_SECONDS
        try:
            # One at least, or those in line would wait for as long as all others are busy.
            while self._lines:
                source, line = next(iter(self._lines.items()))
                work = line.popleft()
                if line:
                    self._lines.move_to_end(source)
                else:
                    del self._lines[source]
                self._do(source, work)
                if self._left <= 0:
                    break
        finally:
            if self._lines:
                self._serving = self._loop.call_soon(self._serve)


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


def turns_of(loop: asyncio.AbstractEventLoop) -> Turns:
    """Return the turns of a loop, which all links of its process share."""
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = Turns(loop)
    return turns
