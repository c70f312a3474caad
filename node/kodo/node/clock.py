"""Time as the node sees it: passed in, so that tests can stand still and jump.

Two times. That of the wall is for people and for what must hold over restarts; anybody may set it, also back. The
steady one only ever goes on, and is for deadlines. A process that was stopped for a minute has not waited for that
minute: what was due to arrive meanwhile could not, so `awake_timeout` does not count it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Protocol

__all__ = ["Clock", "SystemClock", "awake_timeout", "wait_or_sleep"]

_TICK_S = 2.0
"""The most that one stop of the process counts for."""


class Clock(Protocol):
    """Where the time comes from."""

    def now_ms(self) -> int:
        """Return the wall clock in ms UTC."""
        ...

    def steady_ms(self) -> int:
        """Return the ms since some moment; never set, never back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. Cancelling is safe."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Return the wall clock in ms UTC."""
        return time.time_ns() // 1_000_000

    def steady_ms(self) -> int:
        """Return the ms since some moment; never set, never back."""
        return time.monotonic_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        """Wait. Cancelling is safe."""
        await asyncio.sleep(max(seconds, 0.0))


async def wait_or_sleep(clock: Clock, event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, at most `seconds` of `clock`; say whether it was set. Cancelling is safe."""
    if event.is_set():
        return True

    async def alarm() -> None:
        await clock.sleep(seconds)
        waiter.cancel()

    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(event.wait())
        timer = group.create_task(alarm())
        waiter.add_done_callback(lambda _: timer.cancel())
    return event.is_set()


@contextlib.asynccontextmanager
async def awake_timeout(seconds: float | None) -> AsyncIterator[None]:
    """As `asyncio.timeout`, but time in which this process was stopped, or its machine asleep, hardly counts.

    Raises:
        TimeoutError: after so many seconds; None: never.
    """
    loop = asyncio.get_running_loop()
    left = float("inf") if seconds is None else seconds
    timer: asyncio.TimerHandle | None = None

    def tick(share: float) -> None:
        nonlocal left, timer
        left -= share
        if left > 0:
            share = min(left, _TICK_S)
            timer = loop.call_later(share, tick, share)
        else:
            scope.reschedule(loop.time())

    async with asyncio.timeout(None) as scope:
        if seconds is not None:
            tick(0.0)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
