"""Values from outside held against schemas without holding up the node's loop.

What takes no time is done at once. Whatever turns out to take more is done again by one thread, and cut off there
when it takes too long: the loop goes on meanwhile, and gets its turns of Python's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kodo.access.places import Places
from kodo.p2p.errors import CallError
from kodo.protocol.steps import MAX_STEPS, Steps, TooComplexError

__all__ = ["INLINE_STEPS", "MAX_WAITING", "MAX_WAITING_EACH", "Judge"]

INLINE_STEPS = 1000
"""Steps that the loop itself takes: about 5 ms. Most forms have fewer than 100."""

MAX_WAITING = 16
"""Values that wait for the thread: the last one is judged within about 16 s."""

MAX_WAITING_EACH = MAX_WAITING // 2
"""The same of one payer: who sends many does not keep out everybody else."""

T = TypeVar("T")


class Judge:
    """Does work that is counted in steps. `close` it: it keeps a thread once it needed one."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "kodo-judge")
        self._waiting = Places("large values", most=MAX_WAITING, each=MAX_WAITING_EACH)

    def close(self) -> None:
        """Release the thread; what it is doing ends by its bound."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def do(self, work: Callable[[Steps], T], payer: str) -> T:
        """Do `work`, which spends steps and has no effects: it may be begun twice.

        Cancelling is safe: what the thread has begun ends by its bound.

        Args:
            payer: of whose share is the place in the line.

        Raises:
            CallError: 400 `too-complex`, 429 `busy`.
        """
        try:
            return work(Steps(INLINE_STEPS))
        except TooComplexError:
            pass
        with self._waiting.hold(payer):
            try:
                return await asyncio.wrap_future(self._thread.submit(work, Steps(MAX_STEPS)))
            except TooComplexError as error:
                raise CallError(400, "too-complex", str(error)) from None
