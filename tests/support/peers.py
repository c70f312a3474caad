"""Hosts for tests, over either transport, and a call handler that exercises every shape of a call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer, Request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Limits, Transport

SERVER = Identity.from_seed(b"s" * 32)
CLIENT = Identity.from_seed(b"c" * 32)
STRANGER = Identity.from_seed(b"x" * 32)


class Pair:
    """A listening host and a dialling one."""

    def __init__(self, server: Host, client: Host, addresses: list[Multiaddr], network: MemoryNetwork | None) -> None:
        self.server = server
        self.client = client
        self.addresses = addresses
        self.network = network
        self.calls: CallServer
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()

    async def answer(self, request: Request) -> Any:
        """Answer the calls of the tests."""
        match request.op:
            case "echo":
                return request.args
            case "count":
                await request.send_all(range(request.args["n"]))
                return {"n": request.args["n"]}
            case "pump":
                for _ in range(request.args["n"]):
                    await request.send(bytes(request.args["size"]))
                return None
            case "upload":
                pieces = [piece async for piece in request.uploads()]
                return {"bytes": b"".join(pieces)}
            case "refuse":
                raise CallError(409, "busy", "another is at it", {"retry_after_ms": 5})
            case "fail":
                raise ZeroDivisionError("the handler's own fault")
            case "hang":
                self.started.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        raise CallError(404, "no-such-op", request.op)


def _transport(wire: MemoryNetwork | None) -> Transport:
    return MemoryTransport(wire) if wire else WebRtcTransport()


@contextlib.asynccontextmanager
async def another_client(pair: Pair) -> AsyncIterator[Host]:
    """Make a host beside those of the pair, on the same network."""
    async with Host(STRANGER, _transport(pair.network)) as host:
        yield host


@contextlib.asynccontextmanager
async def make_pair(
    kind: str,
    *,
    limits: Limits | None = None,
    server_limits: Limits | None = None,
    admit: Callable[[Session], Awaitable[None]] | None = None,
    **network: Any,
) -> AsyncIterator[Pair]:
    """Make two hosts, `kind` is `memory` or `webrtc`; the server listens on loopback and answers calls.

    `admit`: says who has any business at the server; None: everybody.
    """
    wire = MemoryNetwork(**network) if kind == "memory" else None

    async with (
        Host(SERVER, _transport(wire), limits=server_limits or limits, welcome=admit) as server,
        Host(CLIENT, _transport(wire), limits=limits) as client,
    ):
        pair = Pair(server, client, [], wire)
        pair.calls = CallServer(pair.answer, admit)
        server.handle(CALL_PROTOCOL, pair.calls)
        pair.addresses = await server.listen(["127.0.0.1"])
        yield pair
