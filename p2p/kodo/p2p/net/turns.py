"""Whose turn it is on an event loop: what is done for each source of sessions waits in a line of its own.

An ordinary loop does all that is ready, in order, before it looks for what came. With fifty strangers who keep it
busy, each step of everybody else's question waits for a step of each of them. A `FairLoop` keeps a line for each
source, and goes on with the one that has used least of its time lately. For whom a callback is, its context tells,
which tasks, futures and timers inherit: whatever is begun for a source (a handshake, a call, a run, those who follow
it) is counted on that source, and what nobody is named for is done at once, as ever.

    ready, for nobody ───────────────────────────────┐
    ready, for a source ─► its line ─► least used ───┴─► TURN_SECONDS ─► look for what came
"""

from __future__ import annotations

import asyncio
import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVarTuple

__all__ = [
    "HALF_LIFE_SECONDS",
    "SLICE_SECONDS",
    "TURN_SECONDS",
    "FairLoop",
    "FairSemaphore",
    "for_nobody",
    "line_of",
    "new_loop",
]

_Arguments = TypeVarTuple("_Arguments")

HALF_LIFE_SECONDS = 1.0
"""After which half of what a source has used is forgiven."""
TURN_SECONDS = 0.002
"""Time for all lines together before the loop looks for what came."""
SLICE_SECONDS = 0.0005
"""Time after which a line lets others go on; one callback may take longer."""
_SOURCES = 4096
"""Sources that are remembered; the one that was named longest ago is forgotten first."""


class Line:
    """What waits for one source, first in, first out.

    Attributes:
        rank: compares with that of other lines at any time: the logarithm of the seconds used, all of which fade
            alike. The lowest goes on.
    """

    __slots__ = ("handles", "rank", "waits")

    def __init__(self) -> None:
        self.handles: deque[asyncio.Handle] = deque()
        self.rank = -math.inf
        self.waits = False

    def used(self, seconds: float, now: float) -> None:
        """Count some time that was used."""
        if seconds > 0:
            before = 2.0 ** (self.rank - now / HALF_LIFE_SECONDS)
            self.rank = math.log2(before + seconds) + now / HALF_LIFE_SECONDS


_line: ContextVar[Line | None] = ContextVar("line", default=None)


class FairLoop(asyncio.SelectorEventLoop):
    """An event loop on which sources take turns."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._waiting: list[tuple[float, int, Line]] = []
        self._numbers = count()
        self._serving = False
        self._own = Context()
        self._lines: OrderedDict[str, Line] = OrderedDict()

    def line(self, source: str) -> Line:
        """Return the line of a source."""
        line = self._lines.setdefault(source, Line())
        self._lines.move_to_end(source)
        if len(self._lines) > _SOURCES:
            self._lines.popitem(last=False)
        return line

    def call_soon(
        self,
        callback: Callable[[*_Arguments], object],
        *args: *_Arguments,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call a callback soon: in its line, if the context names one."""
        line = _line.get() if context is None else context.get(_line)
        if line is None or self.is_closed():
            return super().call_soon(callback, *args, context=context)
        handle = asyncio.Handle(callback, args, self, context)
        line.handles.append(handle)
        if not line.waits:
            self._wait(line)
            if not self._serving:
                self._serve_soon()
        return handle

    def _wait(self, line: Line) -> None:
        line.waits = True
        heappush(self._waiting, (line.rank, next(self._numbers), line))

    def _serve_soon(self) -> None:
        self._serving = True
        super().call_soon(self._serve, context=self._own)

    def _serve(self) -> None:
        begin = now = self.time()
        until = begin + TURN_SECONDS
        try:
            while self._waiting and now < until:
                line = heappop(self._waiting)[2]
                handles, slice_end = line.handles, begin + SLICE_SECONDS
                try:
                    while handles and now < slice_end:
                        handle = handles.popleft()
                        if not handle.cancelled():
                            handle._run()
                        now = self.time()
                finally:
                    line.used(now - begin, now)
                    begin = now
                    line.waits = False
                    if handles:
                        self._wait(line)
        finally:
            self._serving = False
            if self._waiting:
                self._serve_soon()


class FairSemaphore:
    """A semaphore that lets the source go first that has used least time lately; what is nobody's goes before all.

    Args:
        value: how many may have it at once.
    """

    def __init__(self, value: int) -> None:
        self._value = value
        self._waiting: list[tuple[Line | None, asyncio.Future[None]]] = []

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *error: object) -> None:
        self.release()

    async def acquire(self) -> None:
        """Wait for it; cancelling is safe."""
        if self._value > 0:
            self._value -= 1
            return
        place = asyncio.get_running_loop().create_future()
        waiting = _line.get(), place
        self._waiting.append(waiting)
        try:
            await place
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not place.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Let the next one have it."""
        while self._waiting:
            _, place = waiting = min(self._waiting, key=_rank)
            self._waiting.remove(waiting)
            if not place.done():
                place.set_result(None)
                return
        self._value += 1


def _rank(waiting: tuple[Line | None, asyncio.Future[None]]) -> float:
    line, _ = waiting
    return -math.inf if line is None else line.rank


def line_of(loop: asyncio.AbstractEventLoop, source: str) -> Context | None:
    """Return a context in which work for a source is to be begun; None on loops where none take turns."""
    if not isinstance(loop, FairLoop):
        return None
    context = copy_context()
    context.run(_line.set, loop.line(source))
    return context


def for_nobody() -> Context:
    """Return a context for work that is many sources', though one of them was the first to want it."""
    context = copy_context()
    context.run(_line.set, None)
    return context


def new_loop() -> asyncio.AbstractEventLoop:
    """Return the loop for programs that strangers talk to."""
    return asyncio.new_event_loop() if sys.platform == "win32" else FairLoop()
