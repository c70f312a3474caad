"""The rendezvous over HTTP: a WebSocket by which nodes wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from kodo.access.throttle import Throttle
from kodo.p2p.core.hosts import source_of
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, CapacityError, PeerError
from kodo.p2p.net.relay import RelayServer
from kodo.registry.problems import problem
from kodo.registry.records.signed import pack
from kodo.registry.rendezvous import (
    CHALLENGE_BYTES,
    MAX_FRAME_BYTES,
    REPLACED,
    Guest,
    Lobby,
    check_presence,
)

__all__ = ["Rendezvous"]

logger = logging.getLogger(__name__)

_PROOF_S = 10.0
_ALIVE_S = 30.0
"""Seconds between WebSocket pings; a node that answers none has gone."""

_GOING_AWAY = 1001
_MISBEHAVED = 4001
_NOT_TAKEN = 4003


@dataclass(slots=True)
class Rendezvous:
    """The two routes, and what they share.

    Attributes:
        taken: raises `CallError` when a node of this peer id is not taken here.
        clock: gives ms UTC.
        entries: how often one source may open a WebSocket.
        relay: to which nodes that wait may attach.
    """

    taken: Callable[[str], Awaitable[None]]
    clock: Callable[[], int]
    relay: RelayServer | None = None
    lobby: Lobby = field(default_factory=Lobby)
    entries: Throttle = field(default_factory=lambda: Throttle(burst=30, every_ms=1000))
    _sockets: set[web.WebSocketResponse] = field(default_factory=set)

    def routes(self) -> list[web.RouteDef]:
        """Return the two routes."""
        return [web.get("/rendezvous", self.wait), web.post("/rendezvous/{peer_id}", self.offer)]

    async def aclose(self, app: web.Application | None = None) -> None:
        """Ask every node that waits to come back later."""
        await asyncio.gather(
            *(socket.close(code=_GOING_AWAY, message=b"the registry is closing") for socket in list(self._sockets)),
            return_exceptions=True,
        )

    async def wait(self, request: web.Request) -> web.StreamResponse:
        """Take a node's WebSocket: challenge, proof, then what it needs to attach to the relay."""
        source = source_of(request.remote)
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            raise problem(426, "upgrade-required", "nodes wait here by a WebSocket (RFC 6455)")
        self._throttle(self.entries, source)
        self.lobby.arrive(source)
        socket = web.WebSocketResponse(
            heartbeat=_ALIVE_S, max_msg_size=MAX_FRAME_BYTES, autoping=True, compress=False, timeout=2.0
        )
        self._sockets.add(socket)
        try:
            if not socket.can_prepare(request).ok:
                raise problem(400, "malformed", "the WebSocket handshake is not one of RFC 6455")
            await socket.prepare(request)
            await self._serve(socket, request)
        finally:
            self._sockets.discard(socket)
            self.lobby.depart(source)
        return socket

    async def offer(self, request: web.Request) -> web.Response:
        """Refuse a sealed offer, as earlier registries passed on. For one release; then there is nothing here."""
        raise problem(
            410,
            "gone",
            "registries pass no sealed offers on; dial the node by its addresses, the relay's too",
        )

    async def _serve(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        try:
            async with asyncio.timeout(_PROOF_S):
                await socket.send_bytes(pack({"challenge": challenge}))
                proof = await _frame(socket)
                if proof is None:
                    return
                peer_id = check_presence(proof, request.headers[hdrs.HOST], challenge)
                await self.taken(peer_id)
        except TimeoutError:
            await socket.close(code=_MISBEHAVED, message=b"no proof in time")
            return
        except PeerError:
            await socket.close(code=_MISBEHAVED, message=b"the proof does not hold")
            return
        except CallError as error:
            await socket.close(code=_NOT_TAKEN, message=error.reason.encode())
            return

        replaced = asyncio.Event()
        guest = Guest(peer_id, replaced.set)
        try:
            self.lobby.enter(guest)
        except CallError as error:
            await socket.close(code=_NOT_TAKEN, message=error.reason.encode())
            return
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                said = {"waiting": True, **self._offered(stack, PeerId.parse(peer_id))}
                reading = group.create_task(self._hear(socket, guest))
                leaving = group.create_task(replaced.wait())
                with contextlib.suppress(ConnectionError):
                    await socket.send_bytes(pack(said))
                await asyncio.wait([leaving, reading], return_when=asyncio.FIRST_COMPLETED)
                leaving.cancel()
                reading.cancel()
        finally:
            self.lobby.exit(guest)
        if replaced.is_set():
            await socket.close(code=REPLACED, message=b"the node waits by another socket")
            if socket.close_code not in (None, WSCloseCode.ABNORMAL_CLOSURE):
                # A node that has come back by another connection does not answer on the one before.
                told = "two nodes have the key of %s, as from a copied home, and replace each other; one is at %s"
                logger.warning(told, peer_id, source_of(request.remote))

    def _offered(self, stack: contextlib.AsyncExitStack, peer_id: PeerId) -> dict[str, Any]:
        """Admit a node to the relay until the stack closes; return what it is told of that."""
        relay = self.relay
        if relay is None or not relay.port:
            return {}
        try:
            token = stack.enter_context(relay.admitted(peer_id))
        except CapacityError:
            return {}
        return {"relay": {"port": relay.port, "token": token, "carries": relay.carries}}

    async def _hear(self, socket: web.WebSocketResponse, guest: Guest) -> None:
        """Wait for the end of a socket on which nothing is to come."""
        with contextlib.suppress(PeerError):
            if await _frame(socket) is None:
                return
        # Out first: who is told that the socket is closed finds nobody here any more.
        self.lobby.exit(guest)
        await socket.close(code=_MISBEHAVED, message=b"a node that waits has nothing to say")

    def _throttle(self, throttle: Throttle, source: str) -> None:
        wait = throttle.wait_ms(source, self.clock())
        if wait:
            seconds = -(-wait // 1000)
            raise problem(429, "too-often", f"too many requests; wait {seconds} s", retry_after_s=seconds)


async def _frame(socket: web.WebSocketResponse) -> bytes | None:
    """Return the next binary frame, None at the end.

    Raises:
        PeerError: a frame of another kind.
    """
    message = await socket.receive()
    if message.type is WSMsgType.BINARY:
        data: bytes = message.data
        return data
    if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
        return None
    raise PeerError("frames are binary")
