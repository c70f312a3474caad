"""An HTTP proxy for tests: CONNECT, and requests with a whole URL, WebSockets included; it looks up the names."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

__all__ = ["Proxy", "proxy"]


class Proxy:
    """A proxy that runs.

    Attributes:
        url: where it is.
        asked: the hosts and ports that it was asked for, in order.
        hosts: the address of each name that it knows; others it looks up.
        login: user and password, separated by a colon, that it wants; None: nothing.
    """

    def __init__(self, hosts: Mapping[str, str], login: str | None) -> None:
        self.url = ""
        self.asked: list[str] = []
        self.hosts = hosts
        self.login = login

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
            try:
                await self._serve(reader, writer)
            finally:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, target, version = head.partition("\r\n")[0].split(" ")
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = parts.hostname or "", parts.port or (443 if method == "CONNECT" else 80)
        self.asked.append(f"{host}:{port}")
        wanted = None if self.login is None else f"basic {base64.b64encode(self.login.encode()).decode()}".lower()
        if wanted is not None and fields.get("proxy-authorization") != wanted:
            writer.write(b"HTTP/1.1 407 Login needed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        there, to = await asyncio.open_connection(self.hosts.get(host, host), port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
            lines = [line for line in head.split("\r\n")[1:] if not line.lower().startswith("proxy-")]
            to.write(f"{method} {path} {version}\r\n".encode("latin-1") + "\r\n".join(lines).encode("latin-1"))
        try:
            await asyncio.gather(_copy(reader, to), _copy(there, writer))
        finally:
            to.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def proxy(hosts: Mapping[str, str], login: str | None = None) -> AsyncIterator[Proxy]:
    """Run a proxy on loopback; its connections end with the block."""
    running = Proxy(hosts, login)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        await running.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    running.url = "http://{}:{}".format(*server.sockets[0].getsockname()[:2])
    try:
        yield running
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.sleep(0)  # what was closed is closed in the loop's next turn
