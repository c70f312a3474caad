"""The rendezvous over HTTP: a WebSocket for nodes, a POST for who wants to reach one."""

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
from kodo.p2p.errors import CallError, CapacityError, DeadlineError, PeerError
from kodo.p2p.net.relay import RelayServer
from kodo.registry.problems import problem
from kodo.registry.records.signed import pack
from kodo.registry.rendezvous import (
    CHALLENGE_BYTES,
    MAX_FRAME_BYTES,
    MAX_SEALED_BYTES,
    REPLACED,
    Guest,
    Lobby,
    check_presence,
)

__all__ = ["Rendezvous"]

logger = logging.getLogger(__name__)

_PROOF_S = 10.0
_SEND_S = 10.0
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
        read_body: reads a msgpack body of at most so many bytes, or raises `CallError`.
        clock: gives ms UTC.
        offers: how often one source may post.
        entries: how often one source may open a WebSocket.
        relay: to which nodes that wait may attach.
    """

    taken: Callable[[str], Awaitable[None]]
    read_body: Callable[[web.Request, int], Awaitable[bytes]]
    clock: Callable[[], int]
    relay: RelayServer | None = None
    lobby: Lobby = field(default_factory=Lobby)
    offers: Throttle = field(default_factory=lambda: Throttle(burst=30, every_ms=1000))
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
        """Take a node's WebSocket: challenge, proof, then offers one way and answers the other."""
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
        """Pass a sealed offer to a node that waits, and its sealed answer back."""
        source = source_of(request.remote)
        self._throttle(self.offers, source)
        try:
            peer_id = PeerId.parse(request.match_info["peer_id"])
        except ValueError:
            raise problem(404, "not-here", "this is not a peer id") from None
        sealed = await self.read_body(request, MAX_SEALED_BYTES)
        try:
            answer = await self.lobby.offer(peer_id, sealed, source)
        except PeerError as error:
            raise problem(400, "malformed", str(error)) from None
        except DeadlineError as error:
            raise problem(504, "no-answer", str(error)) from None
        return web.Response(body=answer, content_type="application/msgpack", headers={hdrs.CACHE_CONTROL: "no-store"})

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

        async def send(frame: bytes) -> None:
            async with asyncio.timeout(_SEND_S):
                await socket.send_bytes(frame)

        replaced = asyncio.Event()
        guest = Guest(peer_id, send, replaced.set)
        try:
            self.lobby.enter(guest)
        except CallError as error:
            await socket.close(code=_NOT_TAKEN, message=error.reason.encode())
            return
        try:
            async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
                said = {"waiting": True, **self._offered(stack, PeerId.parse(peer_id))}
                reading = group.create_task(self._read(socket, guest))
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

    async def _read(self, socket: web.WebSocketResponse, guest: Guest) -> None:
        try:
            while (frame := await _frame(socket)) is not None:
                self.lobby.answered(guest, frame)
        except PeerError:
            # Out first: who is told that the socket is closed finds nobody here any more.
            self.lobby.exit(guest)
            await socket.close(code=_MISBEHAVED, message=b"not an answer")

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
