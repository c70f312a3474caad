"""Blocking work in threads that nothing waits for.

What a loop's own executor does, the end of the loop waits for; and what hangs there keeps its thread from others.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["unattended"]

T = TypeVar("T")


async def unattended(work: Callable[[], T], name: str) -> T:
    """Return what `work` returns, or raise what it raises. Cancelling is safe; the thread goes on by itself.

    Args:
        name: of the thread.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(settling: Callable[[], None]) -> None:
        if not result.done():
            settling()

    def do() -> None:
        try:
            value = work()
        except BaseException as error:
            failure = error
            settling = lambda: result.set_exception(failure)  # noqa: E731
        else:
            settling = lambda: result.set_result(value)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, settling)

    threading.Thread(target=do, daemon=True, name=name).start()
    return await result
