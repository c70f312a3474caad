"""Looks up names without holding anybody up: a name server that says nothing is nobody's to wait for.

What a loop's own executor looks up, its end waits for, and that may take half a minute. Here it is a thread that
nothing waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any

__all__ = ["MAX_LOOKUPS", "look_up"]

MAX_LOOKUPS = 64
"""Names that one process looks up at once; one more is refused."""

_slots = threading.BoundedSemaphore(MAX_LOOKUPS)

Found = list[tuple[int, int, int, str, Any]]
"""What `socket.getaddrinfo` returns."""


async def look_up(host: str, port: int, *, family: int = socket.AF_UNSPEC, kind: int = socket.SOCK_STREAM) -> Found:
    """Return the addresses of a host, as `socket.getaddrinfo` does. Cancelling is safe; the thread ends by itself.

    Raises:
        OSError: there are none, or too many names are looked up already.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Found] = loop.create_future()

    def settle(result: Found | BaseException) -> None:
        if found.done():
            return
        if isinstance(result, BaseException):
            found.set_exception(result)
        else:
            found.set_result(result)

    def work() -> None:
        result: Found | BaseException
        try:
            result = socket.getaddrinfo(host, port, family, kind)  # type: ignore[assignment]
        except (OSError, UnicodeError) as error:
            result = error if isinstance(error, OSError) else OSError(f"{host[:64]!r} is not the name of a host")
        finally:
            _slots.release()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result)

    if not _slots.acquire(blocking=False):
        raise OSError(f"{MAX_LOOKUPS} names are being looked up already, and nobody answers")
    threading.Thread(target=work, daemon=True, name="name lookup").start()
    return await found
