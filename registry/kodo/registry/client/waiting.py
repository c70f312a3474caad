"""A node that waits at a registry: by a WebSocket that proves its peer id, over which it gets its relay's token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from kodo.p2p.core.hosts import may_be_sent_to, plain_host
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import BrokenSessionError, DeadlineError, PeerError, UnreachableError
from kodo.p2p.net.names import look_up
from kodo.registry.client.connections import open_websocket
from kodo.registry.records.signed import sign, unpack
from kodo.registry.rendezvous import CHALLENGE_BYTES, MAX_FRAME_BYTES, REPLACED, Presence, ReplacedError

__all__ = ["OfferedRelay", "relay_hosts", "wait_at"]

_BEGIN_S = 10.0
_ALIVE_S = 30.0
"""Seconds between pings; a registry that answers none has gone."""
_MAX_TOKEN = 128


@dataclass(frozen=True, slots=True)
class OfferedRelay:
    """The relay of a registry.

    Attributes:
        hosts: its IP addresses, at most one of each family.
        port: UDP.
        token: by which this node attaches to it.
        carries: whether it relays; else it only introduces diallers to nodes.
    """

    hosts: tuple[str, ...]
    port: int
    token: str
    carries: bool


async def wait_at(url: str, identity: Identity, told: Callable[[OfferedRelay | None], None]) -> None:
    """Wait at a registry until the connection ends. Cancelling is safe.

    Args:
        told: called once the registry knows that the node waits, with its relay if it has one.

    Raises:
        UnreachableError: no connection could be made.
        BrokenSessionError: the connection broke, or the registry has ended it; `ReplacedError` for another socket.
        DeadlineError: the registry does not answer.
        PeerError: it says what a registry does not say, or leads elsewhere.
    """
    at = URL(url.rstrip("/") + "/rendezvous")
    try:
        async with (
            asyncio.timeout(_BEGIN_S) as deadline,
            open_websocket(
                url, "/rendezvous", {}, alive_s=_ALIVE_S, within_s=_BEGIN_S, most_bytes=MAX_FRAME_BYTES
            ) as (opened, proxy),
        ):
            challenge = _field(await _frame(opened, url), "challenge", bytes)
            if len(challenge) != CHALLENGE_BYTES:
                raise PeerError(f"{url} sent a challenge of {len(challenge)} bytes")
            host = f"{at.host_subcomponent}:{at.port}" if at.explicit_port else f"{at.host_subcomponent}"
            proof = Presence(peer_id=str(identity.peer_id), host=host.lower(), challenge=challenge)
            await opened.send_bytes(sign(proof, identity))
            said = await _frame(opened, url)
            if said.get("waiting") is not True:
                raise PeerError(f"{url} does not say that it lets this node wait")
            told(await _relay(opened, proxy, said.get("relay"), at))
            deadline.reschedule(None)
            while True:
                # A registry of 0.1.0 may pass sealed offers on: nobody answers them.
                await _frame(opened, url)
    except TimeoutError as error:
        raise DeadlineError(f"{url} did not answer within {_BEGIN_S:g} s") from error
    except aiohttp.ClientConnectorError as error:
        raise UnreachableError(f"no registry answers at {url}: {error.strerror or error}") from error
    except (aiohttp.ClientError, ConnectionError) as error:
        raise BrokenSessionError(f"the connection to {url} broke: {error}") from error


async def _frame(opened: aiohttp.ClientWebSocketResponse, url: str) -> dict[str, Any]:
    message = await opened.receive()
    if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
        reason = f": {message.extra}" if message.type is aiohttp.WSMsgType.CLOSE and message.extra else ""
        kind = ReplacedError if message.data == REPLACED else BrokenSessionError
        raise kind(f"{url} lets this node wait no longer{reason[:200]}")
    if message.type is not aiohttp.WSMsgType.BINARY:
        raise BrokenSessionError(f"the connection to {url} broke")
    said = unpack(message.data)
    if not isinstance(said, dict):
        raise PeerError(f"{url} sent something else than a map")
    return said


def _field(said: dict[str, Any], name: str, kind: type) -> Any:
    value = said.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise PeerError(f"a registry sent no {name}")
    return value


async def _relay(
    opened: aiohttp.ClientWebSocketResponse, proxy: str | None, said: Any, at: URL
) -> OfferedRelay | None:
    """Read what is said of a relay. It is where the registry is: at the address that answered, and at its others.

    Args:
        proxy: by which the registry answered: it is at the other end then, and the registry where its name says.
    """
    if not isinstance(said, dict):
        return None
    port, token, carries = said.get("port"), said.get("token"), said.get("carries")
    if not isinstance(port, int) or not 1 <= port <= 65535 or not isinstance(carries, bool):
        raise PeerError("a registry says of its relay no port, or not whether it carries")
    if not isinstance(token, str) or not token.isascii() or not 16 <= len(token) <= _MAX_TOKEN:
        raise PeerError("a registry gave no token for its relay")
    try:
        others = await look_up(at.host or "", at.port or 0, server=True)
    except OSError:
        others = []
    found = [str(name[0]) for *_, name in others]
    peer = None if proxy is not None else opened.get_extra_info("peername")
    if proxy is None and not isinstance(peer, tuple):
        return None
    hosts = relay_hosts(None if peer is None else peer[0], found, port, named=at.port)
    return OfferedRelay(hosts, port, token, carries) if hosts else None


def relay_hosts(peer: str | None, others: Iterable[str], port: int, *, named: int | None = None) -> tuple[str, ...]:
    """Return where a registry's relay is, at most one address of each family.

    Args:
        peer: the IP address at which the registry answered; None: a proxy's, and so none of the others is private.
        others: those that its name has. None has answered yet, so packets go only where the registry may send them.
        port: UDP, as the registry says.
        named: the TCP port in the registry's URL: the user named it, and a relay may have the same also below 1024.
    """
    found = {}
    if peer is not None:
        peer = plain_host(peer)
        found[":" in peer] = peer
    for host in map(plain_host, others):
        if may_be_sent_to(host, max(port, 1024) if port == named else port, because_of=peer):
            found.setdefault(":" in host, host)
    return tuple(found.values())
