"""Connections that say nothing, from one address, and a caller from another beside them; real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path

import pytest
from aiohttp import web

from kodo.http import connections
from kodo.http.connections import Door, serve
from kodo.registry import server
from kodo.registry.server import Registry, RegistryConfig

HALF = b"GET /state HTTP/1.1\r\nHost: local"
WHOLE = b"GET /state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def say(port: int, data: bytes, address: str = "127.0.0.1") -> bytes:
    """Say `data` from `address`; give what is answered until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(data)
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_half_heads_of_one_address_keep_nobody_else_out_and_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "raise_descriptors", lambda: 64)
    monkeypatch.setattr(connections, "HEAD_S", 2.0)
    # All of this machine is one source else, and one that may have more.
    monkeypatch.setattr(connections, "source_of", str)
    async with Registry(RegistryConfig(home=tmp_path, port=0)) as registry:
        port = int(registry.url.rpartition(":")[2])
        # More than all of them may be, 48; of one address 12.
        halves = [asyncio.ensure_future(say(port, HALF)) for _ in range(60)]
        refused, _ = await asyncio.wait(halves, return_when=asyncio.FIRST_COMPLETED)
        assert [half.result() for half in refused] == [b""] * len(refused)
        assert b"200 OK" in await say(port, WHOLE, "127.0.0.2")
        assert await asyncio.gather(*halves) == [b""] * 60
        assert b"200 OK" in await say(port, WHOLE)


class CountingDoor(Door):
    """A door that lets nobody in, and notes in which turn of the loop each came."""

    def __init__(self) -> None:
        super().__init__(64)
        self.turn = 0
        self.came: list[int] = []

    def enter(self, source: str) -> bool:
        self.came.append(self.turn)
        return False


async def test_who_connects_without_end_leaves_the_loop_its_turns() -> None:
    async def unasked(request: web.BaseRequest) -> web.Response:
        raise AssertionError

    door = CountingDoor()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        listener.setblocking(False)
        # All of them have connected before the first is accepted.
        for _ in range(32):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        async with asyncio.timeout(30), serve(web.Server(unasked), listener, door, None):
            while len(door.came) < 32:
                door.turn += 1
                await asyncio.sleep(0)
    assert len(set(door.came)) == 32
