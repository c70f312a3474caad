"""The host that a request names, against DNS rebinding: read without what may fail on odd headers."""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import hdrs, web

__all__ = ["host_name", "named_host"]


def named_host(request: web.BaseRequest) -> str | None:
    """Return the host of a request's `Host` header, without its port; None unless it has exactly one valid one."""
    hosts = request.headers.getall(hdrs.HOST, [])
    return host_name(hosts[0]) if len(hosts) == 1 else None


def host_name(header: str) -> str | None:
    """Return the same of a header."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != header or "@" in header or parts.path or parts.query:
        return None
    return parts.hostname
