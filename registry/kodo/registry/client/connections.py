"""WebSockets to registries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from yarl import URL

from kodo.access.outgoing import open_session, proxy_error
from kodo.p2p.errors import PeerError

__all__ = ["open_websocket"]


@contextlib.asynccontextmanager
async def open_websocket(
    url: str, path: str, query: Mapping[str, str], *, alive_s: float, within_s: float, most_bytes: int
) -> AsyncIterator[tuple[aiohttp.ClientWebSocketResponse, str | None]]:
    """Connect to a path below a registry's URL; gives the connection, and the proxy by which it goes if it does.

    The connection is closed at the end of the block.

    Args:
        alive_s: seconds between pings.
        within_s: seconds for connecting.
        most_bytes: bound of a message that comes.

    Raises:
        PeerError: it leads elsewhere.
        UnreachableError: the proxy does not connect to it.
        TimeoutError: it does not answer in time.
        aiohttp.ClientError: no connection could be made.
    """
    at = URL(url.rstrip("/") + path).with_query(query)
    straight = aiohttp.TraceConfig()  # `ws_connect` follows redirects, and has no argument against it
    straight.on_request_redirect.append(_refuse_redirect)
    client, proxy = await open_session(url, trace_configs=[straight])
    async with client as http:
        try:
            async with asyncio.timeout(within_s):
                socket = await http.ws_connect(at, heartbeat=alive_s, max_msg_size=most_bytes, compress=0)
        except aiohttp.ClientError as error:
            raise proxy_error(error, url, proxy) or error from error
        async with socket:
            yield socket, proxy


async def _refuse_redirect(
    http: aiohttp.ClientSession, context: Any, asked: aiohttp.TraceRequestRedirectParams
) -> None:
    asked.response.close()
    raise PeerError(f"{asked.url.origin()} leads to another address; a registry does not")
