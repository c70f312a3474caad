"""The relay of a registry by a WebSocket, where UDP does not get there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kodo.p2p.core.batches import MAX_BATCH_BYTES
from kodo.p2p.core.hosts import is_own_host
from kodo.p2p.errors import BrokenSessionError, DeadlineError, KodoError, PeerError, UnreachableError
from kodo.p2p.net.leg import Carrier, Leg

if TYPE_CHECKING:
    import aiohttp

__all__ = ["carriers_to", "takes_connections"]

_CONNECT_S = 10.0
_ALIVE_S = 20.0
"""Seconds between pings; a registry that answers none has gone."""


def carriers_to(urls: Iterable[str]) -> tuple[Carrier, ...]:
    """Return what connects to the relays of registries. Those on this machine are left out: UDP gets there."""
    found = []
    for url in dict.fromkeys(urls):
        try:
            host = urlsplit(url).hostname or ""
        except ValueError:
            continue
        if host and not is_own_host(host):
            found.append(Carrier(host, partial(_carry, url)))
    return tuple(found)


async def takes_connections(url: str) -> bool:
    """Return whether a registry's relay can be reached by a connection from here."""
    leg = Leg(lambda data: None, lambda: None, lambda is_open: leg.close())
    try:
        async with asyncio.timeout(_CONNECT_S / 2):
            await _carry(url, leg, None)
    except (KodoError, OSError):
        pass
    return leg.opened_at is not None


async def _carry(url: str, leg: Leg, tag: str | None) -> None:
    """Connect, and let a leg go over the connection until that ends; see `Carrier`."""
    # Imported here: it takes long, and few have no UDP.
    import aiohttp

    from kodo.registry.client.connections import open_websocket

    try:
        async with open_websocket(
            url,
            "/relay",
            {} if tag is None else {"to": tag},
            alive_s=_ALIVE_S,
            within_s=_CONNECT_S,
            most_bytes=MAX_BATCH_BYTES,
        ) as (socket, _):
            await leg.carry(socket.send_bytes, partial(_receive, socket))
    except TimeoutError as error:
        raise DeadlineError(f"the relay of {url} does not answer in time") from error
    except aiohttp.WSServerHandshakeError as error:
        raise UnreachableError(f"{url} offers no connection to its relay (HTTP {error.status})") from error
    except aiohttp.ClientConnectorError as error:
        raise UnreachableError(f"no registry answers at {url}: {error.strerror or error}") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise BrokenSessionError(f"the connection to {url} broke: {error}") from error
    except ValueError as error:
        raise PeerError(f"{url} sent something else than a batch of datagrams: {error}") from error


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> bytes | None:
    import aiohttp

    message = await socket.receive()
    if message.type is aiohttp.WSMsgType.BINARY:
        data: bytes = message.data
        return data
    if message.type is aiohttp.WSMsgType.TEXT:
        raise ValueError("a text")
    return None
