"""Callers that come through a reverse proxy: who they are, as the proxy tells.

A proxy's connections all come from its own address. One that is named (`--proxy`) is believed what it says of them:
the last address of `X-Forwarded-For`, which is the one that it added itself, and `X-Forwarded-Proto`. What any other
caller writes there means nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aiohttp import web

from kodo.p2p.core.hosts import plain_host

__all__ = ["forwarded", "told_address"]

_FOR = "X-Forwarded-For"
_PROTO = "X-Forwarded-Proto"

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def told_address(header: str) -> str | None:
    """Return the last address of `X-Forwarded-For`, None when it is no address.

    Ports and brackets are taken off: `192.0.2.1:4711`, `[2001:db8::1]:4711`.
    """
    last = header.rpartition(",")[2].strip()
    if last.startswith("["):
        last = last[1:].partition("]")[0]
    elif last.count(":") == 1:
        last = last.partition(":")[0]
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return None


def forwarded(proxies: Collection[str]) -> Any:
    """Make the middleware that puts the caller's address and scheme in the place of those of one of `proxies`.

    A request of a proxy's own, without the header, stays as it is. Where the proxy tells what is no address, the
    caller is unknown: all of those are one source, and not this machine.

    Args:
        proxies: their addresses, as `plain_host` gives them.
    """

    @web.middleware
    async def believe(request: web.Request, handler: _Handler) -> web.StreamResponse:
        told = request.headers.getall(_FOR, [])
        if proxies and told and _plain(request.remote) in proxies:
            proto = request.headers.getall(_PROTO, [])
            scheme = "https" if proto and proto[-1].rpartition(",")[2].strip().lower() == "https" else "http"
            request = request.clone(remote=told_address(told[-1]) or "unknown", scheme=scheme)
        return await handler(request)

    return believe


def _plain(remote: str | None) -> str:
    try:
        return plain_host(remote or "")
    except ValueError:
        return remote or ""
