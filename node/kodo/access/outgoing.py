"""How registries and issuers are reached: one place makes all HTTP clients for them, by a proxy where that is set.

A proxy is a matter of the network that this process is in, so it is chosen once, for the process. What is on this
machine or in private networks is never reached by it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kodo.p2p.core.hosts import is_local, is_own_host, plain_host
from kodo.p2p.errors import UnreachableError
from kodo.p2p.net.names import look_up

if TYPE_CHECKING:
    import aiohttp

__all__ = ["SYSTEM", "open_session", "proxy_error", "proxy_to", "shown_proxy", "use_proxy"]

SYSTEM = "system"
"""For the proxy that the environment names: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`."""
LOOK_UP_SECONDS = 0.5
PLAIN_LOOK_UP_SECONDS = 3.0
"""The same for `http:`. A proxy would read all of that, so it is used only where the name is known to be far."""
_PROXY_LOGIN = 407

_chosen: str | None = None


def use_proxy(proxy: str | None) -> None:
    """Reach registries and issuers by a proxy from now on; None changes nothing.

    Args:
        proxy: its URL, or `SYSTEM`.
    """
    global _chosen
    if proxy is not None:
        _chosen = proxy


async def proxy_to(url: str) -> str | None:
    """Return the URL of the proxy by which a URL is reached; None for none. Cancelling is safe."""
    if _chosen is None:
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    if await _is_near(host, is_plain=parts.scheme in {"http", "ws"}):
        return None
    if _chosen != SYSTEM:
        return _chosen
    import urllib.request  # it imports much of what HTTP is

    proxies = urllib.request.getproxies()
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    return proxies.get(scheme) or proxies.get("all") or None


async def _is_near(host: str, *, is_plain: bool) -> bool:
    """Whether a host is this machine, or in a private network: by its address, or by all that its name has.

    Args:
        is_plain: it is spoken to without TLS, and counts as near while name servers do not say where it is.
    """
    if is_own_host(host) or host.endswith(".local"):
        return True
    with contextlib.suppress(ValueError):
        return is_local(plain_host(host))
    try:
        async with asyncio.timeout(PLAIN_LOOK_UP_SECONDS if is_plain else LOOK_UP_SECONDS):
            found = [str(name[0]) for *_, name in await look_up(host, 0, server=True)]
    except TimeoutError:
        return is_plain or "." not in host
    except OSError:
        return "." not in host  # where only the proxy looks names up, they are of hosts beyond it
    return all(is_local(each) for each in found)


def shown_proxy(proxy: str) -> str:
    """Return a proxy's URL without the name and password that may be in it; `SYSTEM` as it is."""
    if proxy == SYSTEM:
        return SYSTEM
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


async def open_session(url: str, **options: Any) -> tuple[aiohttp.ClientSession, str | None]:
    """Return a client for requests to one host, and by which proxy they go; whoever asks for it closes it.

    Args:
        options: as `aiohttp.ClientSession` takes them.
    """
    import aiohttp  # where it is needed: importing it takes longer than most commands that never do

    from kodo.http.names import Names

    proxy = await proxy_to(url)
    connector, jar = aiohttp.TCPConnector(resolver=Names()), aiohttp.DummyCookieJar()
    session = aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=jar, proxy=proxy, **options)
    return session, proxy


def proxy_error(error: Exception, url: str, proxy: str | None) -> UnreachableError | None:
    """Return what to raise where a request failed because of the proxy; None: it did not."""
    import aiohttp

    if proxy is None:
        return None
    setting = "HTTPS_PROXY or HTTP_PROXY" if _chosen == SYSTEM else "KODO_PROXY (proxy in kodo.toml)"
    status = getattr(error, "status", None)
    if isinstance(error, aiohttp.ClientHttpProxyError) or status == _PROXY_LOGIN:
        todo = "check that address, or ask whoever runs the proxy to allow it"
        if status == _PROXY_LOGIN:
            todo = f"put your name and password there into {setting}: http://USER:PASSWORD@HOST:PORT"
        return UnreachableError(f"the proxy {shown_proxy(proxy)} does not connect to {url}: HTTP {status}; {todo}")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return UnreachableError(
            f"the proxy {shown_proxy(proxy)} does not answer, so {url} is not reached; check {setting}"
        )
    return None
