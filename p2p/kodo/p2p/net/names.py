"""Looks up names without holding anybody up: a name server that says nothing is nobody's to wait for."""

from __future__ import annotations

import socket
import threading
from typing import Any

from kodo.p2p.net.unattended import unattended

__all__ = ["MAX_LOOKUPS", "look_up"]

MAX_LOOKUPS = 64
"""Names that one process looks up at once, of peers and likewise of servers; one more is refused."""

_slots = {is_server: threading.BoundedSemaphore(MAX_LOOKUPS) for is_server in (False, True)}

Found = list[tuple[int, int, int, str, Any]]
"""What `socket.getaddrinfo` returns."""


async def look_up(
    host: str,
    port: int,
    *,
    family: int = socket.AF_UNSPEC,
    kind: int = socket.SOCK_STREAM,
    server: bool = False,
) -> Found:
    """Return the addresses of a host, as `socket.getaddrinfo` does. Cancelling is safe; the thread ends by itself.

    Args:
        server: the user or an operator has named it. Other names come from strangers, and wait in no server's way.

    Raises:
        OSError: there are none, or too many names are looked up already.
    """

    slots = _slots[server]

    def work() -> Found:
        try:
            return socket.getaddrinfo(host, port, family, kind)  # type: ignore[return-value]
        except UnicodeError:
            raise OSError(f"{host[:64]!r} is not the name of a host") from None
        finally:
            slots.release()

    if not slots.acquire(blocking=False):
        raise OSError(f"{MAX_LOOKUPS} names are being looked up already, and nobody answers")
    return await unattended(work, "name lookup")
