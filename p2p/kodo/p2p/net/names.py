"""Looks up names without holding anybody up: a name server that says nothing is nobody's to wait for."""

from __future__ import annotations

import socket
import threading
from typing import Any

from kodo.p2p.net.unattended import unattended

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

    def work() -> Found:
        try:
            return socket.getaddrinfo(host, port, family, kind)  # type: ignore[return-value]
        except UnicodeError:
            raise OSError(f"{host[:64]!r} is not the name of a host") from None
        finally:
            _slots.release()

    if not _slots.acquire(blocking=False):
        raise OSError(f"{MAX_LOOKUPS} names are being looked up already, and nobody answers")
    return await unattended(work, "name lookup")
