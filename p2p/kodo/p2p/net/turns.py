"""Whose turn it is on an event loop: what is done for each source of sessions waits in a line of its own.

An ordinary loop does all that is ready, in order, before it looks for what came. With fifty strangers who keep it
busy, each step of everybody else's question waits for a step of each of them. A `FairLoop` keeps a line for each
source, and goes on with the one that has used least of its time lately. For whom a callback is, its context tells,
which tasks, futures and timers inherit: whatever is begun for a source (a handshake, a call, a run, those who follow
it) is counted on that source, and what nobody is named for is done at once, as ever. So is the reading of a socket
that was opened for a source: what it has brought waits in the kernel until it is the source's turn.

    ready, for nobody ───────────────────────────────────────────────┐
    ready, for a source ─► its line ─► least used, or waited longest ┴─► TURN_SECONDS ─► look for what came

Who has an account that its host admits is known. Among the known goes on who used least, too, and all others together
are like one of them: an account that asks for little goes before all strangers, and one that asks for much keeps
nobody from logging in.

Sources cost nothing to who has a network of addresses. So those that are new take turns as if they were one source,
and each `LONGEST_EVERY`th slice is for the line that has waited longest: however many come after it, a line has its
turn after `LONGEST_EVERY` slices for itself and for each line that waited before it, at most.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar, copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

__all__ = [
    "HALF_LIFE_SECONDS",
    "LONGEST_EVERY",
    "NEW_SECONDS",
    "SLICE_SECONDS",
    "TURN_SECONDS",
    "FairLoop",
    "FairSemaphore",
    "FairThreads",
    "Line",
    "count_work",
    "for_nobody",
    "join_account",
    "join_source",
    "line_for",
    "line_of",
    "line_of_account",
    "new_loop",
]

_Arguments = TypeVarTuple("_Arguments")
_Done = TypeVar("_Done")

HALF_LIFE_SECONDS = 1.0
"""After which half of what a source has used is forgiven."""
TURN_SECONDS = 0.002
"""Time for all lines together before the loop looks for what came."""
SLICE_SECONDS = 0.0005
"""Time after which a line lets others go on; one callback may take longer."""
NEW_SECONDS = 0.005
"""What a source uses before it has turns of its own; a handshake takes about as much."""
LONGEST_EVERY = 8
"""Of so many slices one is for the line that has waited longest, whatever others have used."""
_SOURCES = 4096
"""Sources that are remembered; the one that was named longest ago is forgotten first."""


class Line:
    """What waits for one source, first in, first out.

    Attributes:
        known: whether it goes before those that are not.
        rank: compares with that of other lines at any time: the logarithm of the seconds used, all of which fade
            alike. The lowest goes on.
        total: seconds used in all.
        place: its number among those that wait; 0 if it does not.
    """

    __slots__ = ("handles", "known", "place", "rank", "total")

    def __init__(self) -> None:
        self.handles: deque[asyncio.Handle] = deque()
        self.known = False
        self.rank = -math.inf
        self.total = 0.0
        self.place = 0

    def used(self, seconds: float, now: float) -> None:
        """Count some time that was used."""
        if seconds > 0:
            before = 2.0 ** (self.rank - now / HALF_LIFE_SECONDS)
            self.rank = math.log2(before + seconds) + now / HALF_LIFE_SECONDS
            self.total += seconds


_Entry = tuple[float, int, Line]
"""A rank, a place, and the line that waits there."""

_line: ContextVar[Line | None] = ContextVar("line", default=None)


class FairLoop(asyncio.SelectorEventLoop):
    """An event loop on which sources take turns."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._waiting: OrderedDict[int, Line] = OrderedDict()
        """The lines that wait, by place: who has waited longest is the first."""
        self._new: OrderedDict[int, Line] = OrderedDict()
        """Those of them that are new."""
        self._ranks: list[_Entry] = []
        """A heap of the others that are not known. An entry whose place does not wait is of a turn that is over."""
        self._known: list[_Entry] = []
        """The same of those that are known."""
        self._places = count(1)
        self._slices = 0
        self._newcomers = Line()
        """Counts what new lines use, all together."""
        self._strangers = Line()
        """Counts what all lines use that are not known."""
        self._serving = False
        self._own = Context()
        self._lines: OrderedDict[str, Line] = OrderedDict()
        self._sockets: set[asyncio.Handle] = set()
        """What sockets have ready that waits in a line; the selector tells of it again until it is done."""

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
        self._join(line, handle)
        return handle

    def _add_callback(self, handle: asyncio.Handle) -> None:
        """Do what the selector has found ready: in its line, if the context in which it was registered names one."""
        line = handle._context.get(_line)  # type: ignore[attr-defined]
        if line is None:
            super()._add_callback(handle)  # type: ignore[misc]
        elif handle not in self._sockets:
            self._sockets.add(handle)
            self._join(line, handle)

    def count(self, line: Line, seconds: float) -> None:
        """Count what a line has used, here or in another thread."""
        now = self.time()
        if line.total < NEW_SECONDS and not line.known:
            self._newcomers.used(seconds, now)
        if not line.known:
            self._strangers.used(seconds, now)
        line.used(seconds, now)

    def _join(self, line: Line, handle: asyncio.Handle) -> None:
        line.handles.append(handle)
        if not line.place:
            self._wait(line)
            if not self._serving:
                self._serve_soon()

    def _wait(self, line: Line) -> None:
        line.place = place = next(self._places)
        self._waiting[place] = line
        if line.total < NEW_SECONDS and not line.known:
            self._new[place] = line
            return
        ranks = self._known if line.known else self._ranks
        if len(ranks) > 2 * len(self._waiting) + 64:
            ranks[:] = [entry for entry in ranks if entry[1] in self._waiting]
            heapify(ranks)
        heappush(ranks, (line.rank, place, line))

    def _next(self) -> Line:
        """Take the line that goes on out of those that wait."""
        self._slices += 1
        known, ranks, waiting = self._known, self._ranks, self._waiting
        for heap in (known, ranks):
            while heap and heap[0][1] not in waiting:
                heappop(heap)
        if self._slices % LONGEST_EVERY == 0:
            place = next(iter(waiting))
        elif known and (known[0][0] <= self._strangers.rank or not (self._new or ranks)):
            place = heappop(known)[1]
        elif self._new and (not ranks or self._newcomers.rank <= ranks[0][0]):
            place = next(iter(self._new))
        else:
            place = heappop(ranks)[1]
        self._new.pop(place, None)
        return waiting.pop(place)

    def _serve_soon(self) -> None:
        self._serving = True
        super().call_soon(self._serve, context=self._own)

    def _serve(self) -> None:
        begin = now = self.time()
        until = begin + TURN_SECONDS
        try:
            while self._waiting and now < until:
                line = self._next()
                handles, slice_end = line.handles, begin + SLICE_SECONDS
                try:
                    while handles and now < slice_end:
                        handle = handles.popleft()
                        if self._sockets:
                            self._sockets.discard(handle)
                        if not handle.cancelled():
                            handle._run()
                        now = self.time()
                finally:
                    self.count(line, now - begin)
                    begin = now
                    line.place = 0
                    if handles:
                        self._wait(line)
        finally:
            self._serving = False
            if self._waiting:
                self._serve_soon()


class FairSemaphore:
    """A semaphore that lets the source go first that has used least time lately, and whom it knows before others.

    What is nobody's goes before all.

    Each `LONGEST_EVERY`th time it is for who has waited longest.

    Args:
        value: how many may have it at once.
    """

    def __init__(self, value: int) -> None:
        self._value = value
        self._turns = 0
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
        """Pass it to the next one."""
        while self._waiting:
            longest = (self._turns + 1) % LONGEST_EVERY == 0
            _, place = waiting = self._waiting[0] if longest else min(self._waiting, key=_rank)
            self._waiting.remove(waiting)
            if not place.done():
                self._turns += 1
                place.set_result(None)
                return
        self._value += 1


class FairThreads:
    """Work beside the loop, in the turn of whoever it is done for, and counted against them.

    Args:
        value: how much is done at once.
    """

    def __init__(self, value: int) -> None:
        self._places = FairSemaphore(value)

    async def do(
        self,
        work: Callable[[*_Arguments], _Done],
        run: Callable[[Callable[[*_Arguments], _Done]], Awaitable[_Done]] = asyncio.to_thread,
    ) -> _Done:
        """Do `work` in a thread, and return what it returns.

        Cancelling is safe. What has begun ends nevertheless: it keeps its place until then, and is counted.

        Args:
            run: has it done; in the default executor if nothing else is said.

        Raises:
            Exception: what `work` raised.
        """
        spent = 0.0

        def timed(*arguments: *_Arguments) -> _Done:
            nonlocal spent
            begun = time.thread_time()
            try:
                return work(*arguments)
            finally:
                spent = time.thread_time() - begun

        def ended(_: asyncio.Future[_Done]) -> None:
            self._places.release()
            count_work(spent)

        await self._places.acquire()
        begun_work = asyncio.ensure_future(run(timed))
        begun_work.add_done_callback(ended)
        return await asyncio.shield(begun_work)


def _rank(waiting: tuple[Line | None, asyncio.Future[None]]) -> tuple[bool, float]:
    line, _ = waiting
    return (False, -math.inf) if line is None else (not line.known, line.rank)


def line_of(loop: asyncio.AbstractEventLoop, source: str) -> Context | None:
    """Return a context in which work for a source is to be begun; None on loops where none take turns."""
    if not isinstance(loop, FairLoop):
        return None
    context = copy_context()
    context.run(_line.set, loop.line(source))
    return context


def line_of_account(loop: asyncio.AbstractEventLoop, account: str) -> Context | None:
    """Return a context in which work for an account that was admitted is to be begun; None as `line_of`."""
    context = line_of(loop, account)
    if context is not None and (line := context.get(_line)) is not None:
        line.known = line.known or not _is_address(account)
    return context


def _is_address(name: str) -> bool:
    """Whether a name is one that a source may have, too: all who come from there would be known."""
    try:
        ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
    return True


def join_account(account: str) -> None:
    """Put what the current task does from here on into the line of an account; what is nobody's stays so."""
    context = None if _line.get() is None else line_of_account(asyncio.get_running_loop(), account)
    if context is not None:
        _line.set(context.get(_line))


def join_source(source: str) -> None:
    """Put what the current task does from here on into the line of a source."""
    context = line_of(asyncio.get_running_loop(), source)
    if context is not None:
        _line.set(context.get(_line))


def count_work(seconds: float) -> None:
    """Count what was done for the current task in another thread, seconds of CPU, against whom its line is for."""
    loop, line = asyncio.get_running_loop(), _line.get()
    if line is not None and isinstance(loop, FairLoop):
        loop.count(line, seconds)


def line_for(source: str) -> Context | None:
    """Return the context for work that is a source's, though nobody may have asked for it now.

    What was begun for somebody stays in that line. None on loops where none take turns.
    """
    return line_of(asyncio.get_running_loop(), source) if _line.get() is None else copy_context()


def for_nobody() -> Context:
    """Return a context for work that is many sources', though one of them was the first to want it."""
    context = copy_context()
    context.run(_line.set, None)
    return context


def new_loop() -> asyncio.AbstractEventLoop:
    """Return the loop for programs that strangers talk to."""
    return asyncio.new_event_loop() if sys.platform == "win32" else FairLoop()
