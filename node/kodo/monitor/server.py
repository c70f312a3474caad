"""`/healthz` and `/metrics` over HTTP, at an address of its own: for the operator's monitoring, and for nobody else.

What is told are counts and times: no name of a user, no run, no content. The values of labels are bounded.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Self

from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder

from kodo.http.connections import Door, attended, serve
from kodo.http.named_host import named_host
from kodo.p2p.core.hosts import is_own_host, plain_host
from kodo.p2p.errors import UsageError

__all__ = ["Endpoint", "MonitorServer", "parse_endpoint"]

_SHUTDOWN_S = 2.0
_IDLE_S = 15.0
_HTTP: dict[str, Any] = {"access_log": None, "keepalive_timeout": _IDLE_S}
_DESCRIPTORS = 86
"""For `Door`: 64 connections, of which 16 are for one source, and 48 for this machine. A scraper has one or two."""


class Endpoint(NamedTuple):
    """Where it listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Read `PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`; a port alone is one of 127.0.0.1.

    Raises:
        UsageError: it is none of these.
    """
    host, _, port = text.strip().rpartition(":")
    if port.isascii() and port.isdecimal() and int(port) <= 65535:
        with contextlib.suppress(ValueError):
            return Endpoint(plain_host(host.strip("[]")) if host else "127.0.0.1", int(port))
    raise UsageError(f"metrics: {text[:80]!r} is not an address such as 127.0.0.1:9464, or a port")


class MonitorServer:
    """Serves while it is open; `async with`.

    Args:
        endpoint: where to listen.
        failing: gives what is wrong now, by what it is about; nothing when all is well.

    Attributes:
        registry: of the metrics. Those of the process are in it.
    """

    def __init__(self, endpoint: Endpoint, failing: Callable[[], Mapping[str, str]]):
        self._endpoint = endpoint
        self._failing = failing
        self._refreshers: list[Callable[[], Awaitable[None]]] = []
        self._stack = contextlib.AsyncExitStack()
        self._server: web.Server | None = None
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self._endpoint}"

    @property
    def is_wide(self) -> bool:
        """Whether other machines can reach it."""
        return not is_own_host(self._endpoint.host)

    def refresh_by(self, refresher: Callable[[], Awaitable[None]]) -> None:
        """Await `refresher` before metrics are told."""
        self._refreshers.append(refresher)

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            UsageError: it cannot.
        """
        app = web.Application(middlewares=[attended, _no_pages])
        app.add_routes([web.get("/healthz", self._healthz), web.get("/metrics", self._metrics)])
        async with contextlib.AsyncExitStack() as stack:
            listener = stack.enter_context(self._listen())
            runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_S, **_HTTP)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            assert runner.server is not None
            await stack.enter_async_context(serve(runner.server, listener, Door(_DESCRIPTORS), None, **_HTTP))
            self._server = runner.server
            self._endpoint = Endpoint(self._endpoint.host, listener.getsockname()[1])
            self._stack = stack.pop_all()
        return self

    def _listen(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self._endpoint.host else socket.AF_INET
        try:
            listener = socket.create_server(self._endpoint, family=family)
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"metrics cannot be served at {self._endpoint}: {why}") from error
        listener.setblocking(False)
        return listener

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        self._server = None

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._server.connections) if self._server is not None else 0

    async def _healthz(self, request: web.Request) -> web.Response:
        failing = dict(self._failing())
        answer: dict[str, Any] = {"status": "failing", "failing": failing} if failing else {"status": "ok"}
        return web.json_response(answer, status=503 if failing else 200, headers={hdrs.CACHE_CONTROL: "no-store"})

    async def _metrics(self, request: web.Request) -> web.Response:
        for refresh in self._refreshers:
            await refresh()
        try:
            encode, content_type = choose_encoder(request.headers.get(hdrs.ACCEPT, ""))
        except (TypeError, ValueError):  # a version that is none
            encode, content_type = choose_encoder("")
        return web.Response(body=encode(self.registry), headers={hdrs.CONTENT_TYPE: content_type})


@web.middleware
async def _no_pages(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer no script of a web page, which may have been led here by a name of its own (DNS rebinding)."""
    here = request.transport.get_extra_info("sockname") if request.transport is not None else None
    if here and is_own_host(here[0]) and not is_own_host(named_host(request) or ""):
        raise web.HTTPForbidden(text="on this machine, ask for 127.0.0.1 or localhost\n")
    if hdrs.ORIGIN in request.headers or request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise web.HTTPForbidden(text="not for web pages\n")
    return await handler(request)
