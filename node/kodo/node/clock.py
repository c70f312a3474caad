"""Time as the node sees it: passed in, so that tests can stand still and jump."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock", "wait_or_sleep"]


class Clock(Protocol):
    """Where the time comes from."""

    def now_ms(self) -> int:
        """Give the wall clock in ms UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. Cancelling is safe."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        """Give the wall clock in ms UTC."""
        return time.time_ns() // 1_000_000

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
