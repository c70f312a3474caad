"""Values from outside held against schemas without holding up the node's loop.

What takes no time is done at once. Whatever turns out to take more is done again by one thread, and cut off there
when it takes too long: the loop goes on meanwhile, and gets its turns of Python's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kodo.p2p.errors import CallError
from kodo.protocol.steps import MAX_STEPS, Steps, TooComplexError

__all__ = ["INLINE_STEPS", "MAX_WAITING", "Judge"]

INLINE_STEPS = 1000
"""Steps that the loop itself takes: about 5 ms. Most forms have fewer than 100."""

MAX_WAITING = 16
"""Values that wait for the thread: the last one is judged within about 16 s."""

T = TypeVar("T")


class Judge:
    """Does work that is counted in steps. `close` it: it keeps a thread once it needed one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "kodo-judge")
        self._waiting = 0

    def close(self) -> None:
        """Let the thread go; what it is doing ends by its bound."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def do(self, work: Callable[[Steps], T]) -> T:
        """Do `work`, which spends steps and has no effects: it may be begun twice.

        Cancelling is safe: what the thread has begun ends by its bound.

        Raises:
            CallError: 400 `too-complex`, 429 `busy`.
        """
        try:
            return work(Steps(INLINE_STEPS))
        except TooComplexError:
            pass
        if self._waiting >= MAX_WAITING:
            raise CallError(429, "busy", f"{MAX_WAITING} large values are being checked", {"retry_after_ms": 1000})
        self._waiting += 1
        try:
            return await asyncio.wrap_future(self._thread.submit(work, Steps(MAX_STEPS)))
        except TooComplexError as error:
            raise CallError(400, "too-complex", str(error)) from None
        finally:
            self._waiting -= 1
