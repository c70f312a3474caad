"""The relay over HTTP, for whom UDP is blocked: a WebSocket whose messages are batches of the same datagrams."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import WSMsgType, hdrs, web

from kodo.access.throttle import Throttle
from kodo.p2p.core.batches import MAX_BATCH_BYTES
from kodo.p2p.core.hosts import plain_host, source_of
from kodo.p2p.errors import CapacityError
from kodo.p2p.net.relay import RelayServer
from kodo.registry.problems import problem

__all__ = ["RelayConnections"]

_ALIVE_S = 20.0
"""Seconds between WebSocket pings."""
_UNSENT_BYTES = 64 << 10
"""What the kernel keeps of a connection beyond what is under way: more would only come late."""
_WRITTEN_BYTES = 16 << 10
"""What is kept of a connection beside what counts as waiting (`leg.Leg`) and the message that is being written."""
_READ_BYTES = 16 << 10
"""What is read of a connection at once. Nothing more is read before all messages in that are dealt with."""

_GOING_AWAY = 1001
_MISBEHAVED = 4001
_FULL = 4002


@dataclass(slots=True)
class RelayConnections:
    """The route, and what its calls share.

    Attributes:
        clock: gives ms UTC.
        relay: the relay; None: this registry has none.
        entries: how often one source may open a WebSocket.
    """

    clock: Callable[[], int]
    relay: RelayServer | None = None
    entries: Throttle = field(default_factory=lambda: Throttle(burst=60, every_ms=500))
    _sockets: set[web.WebSocketResponse] = field(default_factory=set)

    def routes(self) -> list[web.RouteDef]:
        """Return the route."""
        return [web.get("/relay", self.carry)]

    async def aclose(self, app: web.Application | None = None) -> None:
        """Ask everybody to come back later."""
        await asyncio.gather(
            *(socket.close(code=_GOING_AWAY, message=b"the registry is closing") for socket in list(self._sockets)),
            return_exceptions=True,
        )

    async def carry(self, request: web.Request) -> web.StreamResponse:
        """Take the WebSocket of a node that attaches, or of a dialler, who names the node by its tag in `to`."""
        relay = self.relay
        if relay is None or not relay.port or not relay.carries:
            raise problem(404, "no-relay", "this registry relays nothing")
        if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
            raise problem(426, "upgrade-required", "the relay is reached by a WebSocket here (RFC 6455), or by UDP")
        wait = self.entries.wait_ms(source_of(request.remote), self.clock())
        if wait:
            seconds = -(-wait // 1000)
            raise problem(429, "too-often", f"too many connections; wait {seconds} s", retry_after_s=seconds)
        if "to" in request.query and not relay.core.reaches(request.query["to"]):
            raise problem(404, "not-here", "the node is not attached to this relay")
        socket = web.WebSocketResponse(
            heartbeat=_ALIVE_S, max_msg_size=MAX_BATCH_BYTES, compress=False, timeout=2.0, writer_limit=_WRITTEN_BYTES
        )
        if not socket.can_prepare(request).ok:
            raise problem(400, "malformed", "the WebSocket handshake is not one of RFC 6455")
        self._sockets.add(socket)
        try:
            await socket.prepare(request)
            _keep_little(request)
            await _serve(relay, socket, request)
        finally:
            self._sockets.discard(socket)
        return socket


async def _serve(relay: RelayServer, socket: web.WebSocketResponse, request: web.Request) -> None:
    async def receive() -> bytes | None:
        _read(request, True)
        message = await socket.receive()
        _read(request, False)
        if message.type is WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
            return None
        raise ValueError("messages are binary")

    try:
        try:
            await relay.carry(_host(request), socket.send_bytes, receive)
        finally:
            _read(request, True)  # for the other side's goodbye
    except CapacityError as error:
        await socket.close(code=_FULL, message=str(error).encode()[:120])
    except ValueError as error:
        await socket.close(code=_MISBEHAVED, message=str(error).encode()[:120])
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()  # it takes nothing, and so no goodbye
    except OSError:
        return
    else:
        await socket.close(code=_GOING_AWAY, message=b"this connection is of no use any more")


def _host(request: web.Request) -> str:
    """Return the address of who is at the other end; behind a Unix socket that is this machine."""
    try:
        return plain_host(request.remote or "")
    except ValueError:
        return "127.0.0.1"


def _read(request: web.Request, on: bool) -> None:
    """Read from a connection from now on, or nothing: aiohttp alone would read half a MiB for a slow reader."""
    if request.transport is not None:
        (request.transport.resume_reading if on else request.transport.pause_reading)()


def _keep_little(request: web.Request) -> None:
    """Read little at once, and let the kernel take no more than can go soon: late datagrams are worth nothing."""
    transport = request.transport
    if transport is None:
        return
    transport.set_write_buffer_limits(high=_WRITTEN_BYTES)
    if hasattr(transport, "max_size"):  # asyncio's own transports of sockets
        transport.max_size = _READ_BYTES
    option = getattr(sockets, "TCP_NOTSENT_LOWAT", None)
    connection = transport.get_extra_info("socket")
    if option is not None and connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(sockets.IPPROTO_TCP, option, _UNSENT_BYTES)
